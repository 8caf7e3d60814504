"""Inbox operations, a batch in one transaction of five round trips at most, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

from talon.domain.bell import encode
from talon.domain.errors import TalonError
from talon.domain.ids import Ids
from talon.domain.inbox import Operation, Receipt
from talon.domain.session import SessionRow
from talon.store.postgres.connections import Database
from talon.store.postgres.deliver_sql import FOUND, LOCK, LOCK_SESSION, NAMED_APPROVALS, OPEN_TURNS, WAIT, WRITE
from talon.store.postgres.draft import Draft, named
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import approval_row, session_row, transpose, turn_row
from talon.store.postgres.sessions import agent_lock, begin, lock_of, name_lock

Answers = list[Receipt | Exception]


class PostgresDeliveries:
    """`Journal.deliver`."""

    _db: Database
    _ids: Ids
    _notify: bool

    async def deliver(self, batch: Sequence[Operation]) -> Answers:
        """See `talon.store.protocols.Journal`.

        When the answer of COMMIT is lost, the batch is looked for on a new connection: by the append id on its first entry, or, if
        it has no entry, by the row that it would have left.
        """
        if not batch:
            return []
        begin = _begin(batch)
        unsure: list[tuple[tuple[SessionRow, int, str], Answers]] = []

        async def write(_attempt: int, connection: Connection) -> Answers:
            if unsure:
                witness, answers = unsure[0]
                if await _was_written(connection, begin, witness):
                    return answers
                unsure.clear()
            draft, answers = await self._decide(connection, begin, batch)
            witness = draft.witness()
            if witness is None:
                await connection.execute("ROLLBACK")
                return answers
            now, bell = witness[0].updated_at_ms, encode(draft.bell()) if self._notify else ""
            await connection.fetch(WRITE[draft.creates], now, bell, *draft.arguments())
            unsure.append((witness, answers))
            await connection.execute("COMMIT")
            return answers

        return await self._db.inbox.run(write)

    async def _decide(self, connection: Connection, begin: str, batch: Sequence[Operation]) -> tuple[Draft, Answers]:
        """Lock, look, and ask each operation what it writes. Leaves the transaction open."""
        await connection.execute(begin)
        new = sorted({operation.where for operation in batch if operation.creation is not None})
        places = [(*operation.where, *((named(operation) or ("", None, None))[1:])) for operation in batch]
        rows = await connection.fetch(LOCK, *transpose(places, 5), *transpose(new, 3))
        # Without a row there is neither a session nor a receipt, and nothing to write at any time.
        draft = Draft(rows[0][0] if rows else 0, self._ids.uuid7())
        for row in rows:
            _, namespace, source, key, body, *first = tuple(row)[:LOCK_SESSION]
            if key is not None:
                draft.found_receipt((namespace, source, key), body, Receipt(*first))
            else:
                draft.found_session(session_row(row, LOCK_SESSION), row[-1] or 0)  # one that does not exist yet has no uid
        busy = draft.busy()
        if busy and any(operation.needs_turns for operation in batch):
            draft.found_turns(turn_row(row) for row in await connection.fetch(OPEN_TURNS, busy))
        approvals = [operation.approval for operation in batch if operation.approval]
        if approvals:
            draft.found_approvals(approval_row(row) for row in await connection.fetch(NAMED_APPROVALS, approvals))
        return draft, [_admitted(draft, operation) for operation in batch]


def _begin(batch: Sequence[Operation]) -> str:
    """Open a transaction and lock the keys, and the names of sessions that may be created (sharing their agents'), that the batch
    is about.

    These first and in one order, sessions second and in one order: batches that overlap wait for each other and never in a circle.
    """
    names = {name for operation in batch if (name := named(operation)) is not None}
    new = {operation.where for operation in batch if operation.creation is not None}
    return begin({*(lock_of(*name) for name in names), *map(name_lock, new)}, {agent_lock(*where[:2]) for where in new})


def _admitted(draft: Draft, operation: Operation) -> Receipt | Exception:
    try:
        return draft.admit(operation)
    except TalonError as refusal:
        return refusal


async def _was_written(connection: Connection, begin: str, witness: tuple[SessionRow, int, str]) -> bool:
    """Whether the batch with this witness is committed, once nobody can be committing it any more: the locks of the transaction
    whose answer was lost are waited for, those of names as well as the session's own."""
    row, seq, mark = witness
    await connection.execute(begin)
    await connection.fetch(WAIT, row.sid)
    found = await connection.fetchrow(FOUND, row.sid, seq)
    await connection.execute("ROLLBACK")
    if found is None:
        return False
    return found[0] == mark if mark else session_row(found, 1) == row
