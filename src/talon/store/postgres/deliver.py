"""Inbox operations, a batch in two round trips: look, then write what was decided, where it is still true."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from talon.domain.errors import TalonError
from talon.domain.ids import Ids
from talon.domain.inbox import Operation, Receipt
from talon.store.postgres.connections import Database
from talon.store.postgres.deliver_sql import FOUND, LOOK, LOOK_APPROVAL, LOOK_SESSION, LOOK_TURN, LOOK_VERSION, width, write
from talon.store.postgres.draft import Draft, named
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import approval_row, session_row, transpose, turn_row

Answers = dict[int, Receipt | Exception]
#: What somebody else may have taken between the look and the write; or, with a lost answer, the same write before.
_TAKEN = ("keys_pkey", "sessions_incarnations", "sessions_pkey")


class PostgresDeliveries:
    """`Journal.deliver`."""

    _db: Database
    _ids: Ids
    _notify: bool

    async def deliver(self, batch: Sequence[Operation]) -> list[Receipt | Exception]:
        """See `talon.store.protocols.Journal`.

        Operations on a session that changed between the look and the write are decided again. When the answer of a write is lost,
        the same write runs again on a new connection: its versions let it in once, and where they do not, the mark on its
        entries, or a row as it would have left it, tells that the first one was in.
        """
        answers: Answers = {}
        unsure: list[tuple[Draft, Answers]] = []

        async def work(_attempt: int, connection: Connection) -> list[Receipt | Exception]:
            while len(answers) < len(batch):
                again = bool(unsure)
                if not again:
                    left = [nth for nth in range(len(batch)) if nth not in answers]
                    unsure.append(await self._decide(connection, batch, left))
                draft, decided = unsure[0]
                written = await self._write(connection, draft, again=again)
                unsure.clear()
                answers.update((nth, answer) for nth, answer in decided.items() if draft.holds(batch[nth], answer, written))
            return [answers[nth] for nth in range(len(batch))]

        return await self._db.inbox.run(work)

    async def _decide(self, connection: Connection, batch: Sequence[Operation], numbers: Sequence[int]) -> tuple[Draft, Answers]:
        """Look, and ask each operation of these `numbers` what it writes."""
        operations = [batch[nth] for nth in numbers]
        new = sorted({operation.where for operation in operations if operation.creation is not None})
        places = [(*operation.where, *((named(operation) or ("", None, None))[1:])) for operation in operations]
        approvals = sorted({operation.approval for operation in operations if operation.approval})
        rows = await connection.fetch(LOOK, *transpose(places, 5), *transpose(new, 3), approvals)
        # Without a row there is neither a session nor a receipt, and nothing to write at any time.
        draft = Draft(rows[0][0] if rows else 0, self._ids.uuid7())
        for row in rows:
            _found(draft, row)
        return draft, {nth: _admitted(draft, operation) for nth, operation in zip(numbers, operations, strict=True)}

    async def _write(self, connection: Connection, draft: Draft, *, again: bool) -> set[int]:
        """Write the draft where it is still true; -> the sids of the sessions that it is in. `again`: it may be in already."""
        parts = draft.parts()
        if not parts:
            return set()
        arrays = [array for name, rows in parts.items() for array in transpose(rows, width(name))]
        try:
            rows = await connection.fetch(write(tuple(parts), notify=self._notify), draft.now, *arrays)
        except asyncpg.UniqueViolationError as error:
            if getattr(error, "constraint_name", None) not in _TAKEN:
                raise
            rows = []  # a key or a name was used meanwhile: all that was decided beside it is decided again
        written = {int(row[0]) for row in rows}
        expected = draft.expected()
        if again and len(written) < len(expected):
            for row in await connection.fetch(
                FOUND, *transpose([(sid, after.last_seq) for sid, (after, _) in expected.items()], 2)
            ):
                found = session_row(row, 1)
                after, marked = expected[found.sid]
                if row[0] == draft.mark if marked else found == after:
                    written.add(found.sid)
        return written


def _found(draft: Draft, row: Row) -> None:
    if row[1] is not None:
        _, namespace, source, key, body, *first = tuple(row)[:LOOK_SESSION]
        draft.found_receipt((namespace, source, key), body, Receipt(*first))
    elif row[LOOK_SESSION] is not None:
        # One that does not exist yet has no uid.
        draft.found_session(session_row(row, LOOK_SESSION), row[LOOK_VERSION], row[LOOK_VERSION + 1] or 0)
    elif row[LOOK_TURN] is not None:
        draft.found_turn(turn_row(row, LOOK_TURN))
    else:
        draft.found_approval(approval_row(row, LOOK_APPROVAL))


def _admitted(draft: Draft, operation: Operation) -> Receipt | Exception:
    try:
        return draft.admit(operation)
    except TalonError as refusal:
        return refusal
