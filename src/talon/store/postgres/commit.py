"""Fenced appends of a worker, a batch in one statement and one round trip."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from talon.domain.errors import Behind, FencedOut
from talon.store.inbox_apply import min_reader
from talon.store.model import Append, Appended
from talon.store.postgres.commit_sql import COMMIT, FIND_APPENDS, Size
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import transpose


class PostgresCommits:
    """`Journal.commit`."""

    _db: Database
    _notify: bool

    async def commit(self, batch: Sequence[Append]) -> list[Appended | Exception]:
        """See `talon.store.protocols.Journal`.

        A lost answer needs no special path: the statement runs again on a new connection, and what it had written is recognised by
        its append id, or, without entries, written again to the same effect.
        """
        if not batch:
            return []
        sids = {append.sid for append in batch}
        if len(sids) != len(batch):
            twice = next(sid for sid in sids if sum(append.sid == sid for append in batch) > 1)
            raise ValueError(f"two appends to session {twice} in one batch: the second could not know the first one's seqs")
        size = max(map(_size, batch))
        statement = COMMIT[size, self._notify]
        arguments = _arguments(batch, size)

        async def write(_attempt: int, connection: Connection) -> list[Appended | Exception]:
            try:
                rows = await connection.fetch(statement, *arguments)
            except asyncpg.UniqueViolationError:
                # The same append came over another connection, and was committed after this statement's snapshot.
                if not await connection.fetch(FIND_APPENDS, [append.id for append in batch]):
                    raise
                rows = await connection.fetch(statement, *arguments)
            answers = _answers(batch, rows)
            refused = [append for append, answer in zip(batch, answers, strict=True) if isinstance(answer, Exception)]
            if refused:
                answers = _recognise(batch, answers, await connection.fetch(FIND_APPENDS, [append.id for append in refused]))
            return answers

        return await self._db.journal.run(write)


def _answers(batch: Sequence[Append], rows: Sequence[Row]) -> list[Appended | Exception]:
    answers: list[Appended | Exception] = [FencedOut()] * len(batch)
    for row in rows:
        ord_: int = row["ord"]
        append = batch[ord_]
        if row["repeated_base"] is not None:
            answers[ord_] = Appended(append.sid, row["repeated_base"], row["repeated_at_ms"], row["runnable"])
        elif row["base"] is not None:
            answers[ord_] = Appended(append.sid, row["base"], row["at_ms"], row["runnable"])
        elif row["held"]:
            answers[ord_] = Behind(f"session {append.sid} does not end at {append.if_last_seq} any more")
        else:
            answers[ord_] = FencedOut(f"session {append.sid} is no longer held under fence {append.fence}")
    return answers


def _recognise(batch: Sequence[Append], answers: Sequence[Appended | Exception], rows: Sequence[Row]) -> list[Appended | Exception]:
    """Refusals that are none: the append was committed while this statement, with an older snapshot, waited for its lock."""
    found = {(row["append_id"], row["sid"]): Appended(row["sid"], row["base"], row["at_ms"], row["runnable"]) for row in rows}
    return [found.get((append.id, append.sid), answer) for append, answer in zip(batch, answers, strict=True)]


def _size(append: Append) -> Size:
    if append.queue or append.approvals or append.cancel_approvals:
        return Size.ALL
    return Size.FRAGMENTS if append.fragments or append.drop_fragments else Size.STEPS


def _arguments(batch: Sequence[Append], size: Size) -> list[list[object]]:
    """The arrays of the statement, in its order."""
    appends = [
        (
            ord_,
            append.id,
            append.sid,
            append.fence,
            append.if_last_seq,
            len(append.entries),
            min_reader(append.entries),
            len(append.queue),
            append.hold,
            append.wake_in_ms,
            # An append of nothing but fragments locks its session's row and leaves it as it is.
            bool(append.entries or append.queue or append.turn or append.drained) or append.hold != "keep",
        )
        for ord_, append in enumerate(batch)
    ]
    turns = [
        (
            ord_,
            turn.turn_id if turn else None,
            turn.state if turn else None,
            turn.revision if turn else None,
            turn.reason if turn else None,
            turn.waiting_for if turn else None,
            turn.loop if turn else None,
            turn.input_tokens if turn else None,
            turn.output_tokens if turn else None,
            turn is not None and turn.progress,
            append.drained,
        )
        for ord_, append in enumerate(batch)
        for turn in [append.turn]
        if turn is not None or append.drained
    ]
    entries = [
        (ord_, nth, new.turn_id, new.type, new.payload, new.blob, new.traceparent, new.v, new.min_reader)
        for ord_, append in enumerate(batch)
        for nth, new in enumerate(append.entries, 1)
    ]
    arrays = [*transpose(appends, 11), *transpose(turns, 11), *transpose(entries, 9)]
    if size >= Size.FRAGMENTS:
        arrays += _fragment_arguments(batch)
    return [*arrays, *_rare_arguments(batch)] if size == Size.ALL else arrays


def _fragment_arguments(batch: Sequence[Append]) -> list[list[object]]:
    numbered = list(enumerate(batch))
    drops = [(ord_, seq) for ord_, append in numbered for seq in append.drop_fragments]
    # Of one moment: what is dropped with this append was never to be seen.
    fragments = [
        (ord_, f.seq, f.kind, f.offset, f.text.encode())
        for ord_, append in numbered
        for f in append.fragments
        if f.seq not in append.drop_fragments
    ]
    return [*transpose(drops, 2), *transpose(fragments, 5)]


def _rare_arguments(batch: Sequence[Append]) -> list[list[object]]:
    numbered = list(enumerate(batch))
    queue = [(ord_, q.turn_id, q.seq, q.strategy, q.source) for ord_, append in numbered for q in append.queue]
    cancels = [(ord_, append.turn.turn_id if append.turn else None) for ord_, append in numbered if append.cancel_approvals]
    opened = [(ord_, a.id, a.turn_id, a.call, a.kind, a.payload) for ord_, append in numbered for a in append.approvals]
    return [*transpose(queue, 5), *transpose(cancels, 2), *transpose(opened, 6)]
