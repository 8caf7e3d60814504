"""Fenced appends of a worker, a batch in one statement and one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from talon.domain.errors import Behind, FencedOut
from talon.store.inbox_apply import min_reader
from talon.store.model import Append, Appended, TurnChange
from talon.store.pack import bits, pack
from talon.store.postgres.commit_sql import BATCH, PARTS, REFUSED, commit
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import transpose

_SAME = TurnChange("")
Rows = list[tuple[object, ...]]


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
        statement, arguments = self._said(sorted(batch, key=lambda append: append.sid))

        async def write(_attempt: int, connection: Connection) -> list[Appended | Exception]:
            rows = {row["sid"]: row for row in await connection.fetch(statement, *arguments)}
            refused = [append for append in batch if append.sid not in rows]
            why = {row["sid"]: row for row in await connection.fetch(REFUSED, *_looked_for(refused))} if refused else {}
            return [
                _appended(append, rows[append.sid]) if append.sid in rows else _refusal(append, why.get(append.sid))
                for append in batch
            ]

        return await self._db.journal.run(write)

    def _said(self, batch: Sequence[Append]) -> tuple[str, list[str]]:
        """The statement for a batch in the order of its sids, and its parameters."""
        rows = _rows(batch)
        needed = _changes(batch) | {name for name, some in rows.items() if some}
        parts = tuple(name for name in PARTS if name in needed)
        own = [PARTS[name].argument(rows[name]) for name in parts if PARTS[name].parameters]
        return commit(parts, notify=self._rings), [BATCH.argument(map(_values, batch)), *own]


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


def _changes(batch: Sequence[Append]) -> set[str]:
    """The parts that the rows of the batch itself need."""
    needed: set[str] = set()
    for append in batch:
        if append.turn is not None or append.drained:
            needed.add("turned")
        if append.entries:
            needed.add("written")
        if append.hold != "keep":
            needed.add("let_go")
    return needed


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


def _rows(batch: Sequence[Append]) -> dict[str, Rows]:
    """The rows of the parts that have their own."""
    blobs = {(digest, append.sid) for append in batch for new in append.entries for digest in new.blobs}
    return {
        "dropped": [(append.sid, seq) for append in batch for seq in append.drop_fragments],
        # Of one moment: what is dropped with this append was never to be seen.
        "streamed": [
            (append.sid, f.seq, f.kind, f.offset, f.text.encode())
            for append in batch
            for f in append.fragments
            if f.seq not in append.drop_fragments
        ],
        "queued": [(append.sid, q.turn_id, q.seq, q.strategy, q.source) for append in batch for q in append.queue],
        # Those that come with this append are about what is still to be found out: they stay open.
        "cancelled": [(append.sid, append.turn.turn_id if append.turn else None) for append in batch if append.cancel_approvals],
        "opened": [(append.sid, p.id, p.turn_id, p.call, p.kind, p.payload) for append in batch for p in append.approvals],
        # In one order, since the same payload may be in two batches.
        "kept": [(sid, digest) for digest, sid in sorted(blobs)],
    }
