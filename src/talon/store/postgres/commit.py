"""Fenced appends of a worker, a batch in one statement and one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from talon.domain.errors import Behind, FencedOut
from talon.store.inbox_apply import min_reader
from talon.store.model import Append, Appended, TurnChange
from talon.store.pack import bits, pack
from talon.store.postgres.commit_sql import (
    BATCH,
    CANCELLED,
    COMMIT,
    DROPPED,
    KEPT,
    OPENED,
    QUEUED,
    REFUSED,
    STREAMED,
    Size,
)
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import transpose

_SAME = TurnChange("")


class PostgresCommits:
    """`Journal.commit`."""

    _db: Database
    _rings: bool

    async def commit(self, batch: Sequence[Append]) -> list[Appended | Exception]:
        """See `talon.store.protocols.Journal`.

        A lost answer needs no special path: the statement runs again on a new connection; what it had written refuses it, and is
        found, or, without entries, it is written again to the same effect.
        """
        if not batch:
            return []
        sids = {append.sid for append in batch}
        if len(sids) != len(batch):
            twice = next(sid for sid in sids if sum(append.sid == sid for append in batch) > 1)
            raise ValueError(f"two appends to session {twice} in one batch: the second could not know the first one's seqs")
        size = max(map(_size, batch))
        statement = COMMIT[size, self._rings]
        arguments = _arguments(sorted(batch, key=lambda append: append.sid), size)

        async def write(_attempt: int, connection: Connection) -> list[Appended | Exception]:
            rows = {row["sid"]: row for row in await connection.fetch(statement, *arguments)}
            refused = [append for append in batch if append.sid not in rows]
            why = {row["sid"]: row for row in await connection.fetch(REFUSED, *_looked_for(refused))} if refused else {}
            return [
                _appended(append, rows[append.sid]) if append.sid in rows else _refusal(append, why.get(append.sid))
                for append in batch
            ]

        return await self._db.journal.run(write)


def _appended(append: Append, row: Row) -> Appended:
    return Appended(append.sid, row["last_seq"] - len(append.entries), row["at_ms"], row["runnable"])


def _refusal(append: Append, row: Row | None) -> Appended | Exception:
    """Why it was refused (None: nobody knows its session). No refusal is that it was written before."""
    if row is not None and row["last_seq"] is not None:
        return _appended(append, row)
    if row is not None and row["held"]:
        return Behind(f"session {append.sid} does not end at {append.if_last_seq} any more")
    return FencedOut(f"session {append.sid} is no longer held under fence {append.fence}")


def _looked_for(refused: Sequence[Append]) -> list[list[object]]:
    rows = [
        (append.sid, append.fence, append.id, None if append.if_last_seq is None else append.if_last_seq + len(append.entries))
        for append in refused
    ]
    return transpose(rows, 4)


def _size(append: Append) -> Size:
    if append.queue or append.approvals or append.cancel_approvals or any(new.blobs for new in append.entries):
        return Size.ALL
    return Size.FRAGMENTS if append.fragments or append.drop_fragments else Size.STEPS


def _arguments(batch: Sequence[Append], size: Size) -> list[str]:
    """The parameters of the statement, in its order. `batch` is in the order of its sids."""
    arguments = [BATCH.argument(map(_values, batch))]
    if size >= Size.FRAGMENTS:
        arguments += _fragment_arguments(batch)
    return [*arguments, *_rare_arguments(batch)] if size == Size.ALL else arguments


def _values(append: Append) -> tuple[object, ...]:
    new = append.entries
    turn = append.turn or _SAME
    return (
        append.sid,
        append.fence,
        append.if_last_seq,
        append.id,
        len(new),
        bits(entry.type for entry in new),
        min_reader(new),
        pack(new) if new else b"",
        len(append.queue),
        append.hold,
        append.wake_in_ms,
        turn.turn_id or None,
        turn.state,
        turn.revision,
        turn.reason,
        turn.waiting_for,
        turn.loop,
        turn.input_tokens,
        turn.output_tokens,
        turn.progress,
        append.drained,
    )


def _fragment_arguments(batch: Sequence[Append]) -> list[str]:
    drops = [(append.sid, seq) for append in batch for seq in append.drop_fragments]
    # Of one moment: what is dropped with this append was never to be seen.
    fragments = [
        (append.sid, f.seq, f.kind, f.offset, f.text.encode())
        for append in batch
        for f in append.fragments
        if f.seq not in append.drop_fragments
    ]
    return [DROPPED.argument(drops), STREAMED.argument(fragments)]


def _rare_arguments(batch: Sequence[Append]) -> list[str]:
    queued = [(append.sid, q.turn_id, q.seq, q.strategy, q.source) for append in batch for q in append.queue]
    # Those that come with this append are about what is still to be found out: they stay open.
    closed = [(append.sid, append.turn.turn_id if append.turn else None) for append in batch if append.cancel_approvals]
    opened = [(append.sid, p.id, p.turn_id, p.call, p.kind, p.payload) for append in batch for p in append.approvals]
    # In one order, since the same payload may be in two batches.
    blobs = sorted({(digest, append.sid) for append in batch for new in append.entries for digest in new.blobs})
    kept = [(sid, digest) for digest, sid in blobs]
    return [QUEUED.argument(queued), CANCELLED.argument(closed), OPENED.argument(opened), KEPT.argument(kept)]
