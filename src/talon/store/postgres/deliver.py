"""Inbox operations, a batch in two round trips: look, then write what was decided, where it is still true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import asyncpg

from talon.domain.errors import TalonError
from talon.domain.ids import Ids
from talon.domain.inbox import Operation, Receipt
from talon.domain.schedules import Firing
from talon.store.postgres.connections import Database
from talon.store.postgres.deliver_sql import (
    FOUND,
    LOOK_APPROVAL,
    LOOK_PARTS,
    LOOK_SESSION,
    LOOK_TURN,
    LOOK_VERSION,
    argument,
    look,
    write,
)
from talon.store.postgres.draft import Draft, named
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import approval_row, session_row, transpose, turn_row
from talon.store.postgres.schedules import fire, open_firing
from talon.store.schedule_apply import stands_at, superseded
from talon.store.schedules import ScheduleRow

Answers = dict[int, Receipt | Exception]
#: What somebody else may have taken between the look and the write; or, with a lost answer, the same write before.
_TAKEN = ("keys_pkey", "sessions_incarnations", "sessions_pkey")


class PostgresDeliveries:
    """`Journal.deliver`."""

    _db: Database
    _ids: Ids
    _rings: bool

    async def deliver(self, batch: Sequence[Operation]) -> list[Receipt | Exception]:
        """See `talon.store.protocols.Journal`.

        Operations on a session that changed between the look and the write are decided again. When the answer of a write is lost,
        the same write runs again on a new connection: its versions let it in once, and where they do not, the mark on its
        entries, or a row as it would have left it, tells that the first one was in.

        A batch in which schedules fire is one transaction that locks their rows first; of one whose answer is lost the same marks
        tell, and what only skipped an occurrence is told as superseded.
        """
        answers: Answers = {}
        unsure: list[tuple[Draft, Answers]] = []
        if any(operation.firing is not None for operation in batch):
            return await self._db.inbox.run(lambda _, connection: self._fire(connection, batch, answers, unsure))

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

    async def _fire(
        self, connection: Connection, batch: Sequence[Operation], answers: Answers, unsure: list[tuple[Draft, Answers]]
    ) -> list[Receipt | Exception]:
        """`deliver` for a batch in which schedules fire; right when it is run again after a loss at any of its instructions."""
        if unsure:
            draft, decided = unsure.pop()
            if written := await self._in_already(connection, draft):
                answers.update((nth, answer) for nth, answer in decided.items() if draft.holds(batch[nth], answer, written))
        while len(answers) < len(batch):
            left = [nth for nth in range(len(batch)) if nth not in answers]
            rows = await open_firing(connection, [batch[nth] for nth in left])
            draft, decided = await self._decide(connection, batch, left, rows)
            written = await self._write(connection, draft, again=False)
            if draft.expected() and not written:
                await connection.execute("ROLLBACK")  # a name or a key was taken, or all sessions have changed meanwhile
                continue
            held = {nth: answer for nth, answer in decided.items() if draft.holds(batch[nth], answer, written)}
            await fire(connection, rows, _firings(batch, held))
            unsure.append((draft, decided))
            await connection.execute("COMMIT")
            unsure.clear()
            answers.update(held)
        return [answers[nth] for nth in range(len(batch))]

    async def _decide(
        self,
        connection: Connection,
        batch: Sequence[Operation],
        numbers: Sequence[int],
        schedules: Mapping[str, ScheduleRow] = MappingProxyType({}),
    ) -> tuple[Draft, Answers]:
        """Look, and ask each operation of these `numbers` what it writes. `schedules` are the locked rows of those that fire."""
        operations = [batch[nth] for nth in numbers]
        asked: dict[str, list[tuple[object, ...]]] = {
            "places": sorted({operation.where for operation in operations}),
            "keys": sorted({name for operation in operations if (name := named(operation)) is not None}),
            "free": sorted({operation.where for operation in operations if operation.creation is not None}),
            "approvals": sorted({(operation.approval,) for operation in operations if operation.approval}),
        }
        parts = tuple(name for name in LOOK_PARTS if asked[name])
        rows = await connection.fetch(look(parts), *(argument(name, asked[name]) for name in parts))
        # Without a row there is neither a session nor a receipt, and nothing to write at any time.
        draft = Draft(rows[0][0] if rows else 0, self._ids.uuid7())
        for row in rows:
            _found(draft, row)
        fired: set[str] = set()
        return draft, {
            nth: _admitted(draft, operation, schedules, fired) for nth, operation in zip(numbers, operations, strict=True)
        }

    async def _write(self, connection: Connection, draft: Draft, *, again: bool) -> set[int]:
        """Write the draft where it is still true; -> the sids of the sessions that it is in. `again`: it may be in already."""
        parts = draft.parts()
        if not parts:
            return set()
        arguments = [argument(name, rows) for name, rows in parts.items()]
        try:
            rows = await connection.fetch(write(tuple(parts), notify=self._rings), draft.now, *arguments)
        except asyncpg.UniqueViolationError as error:
            if getattr(error, "constraint_name", None) not in _TAKEN:
                raise
            rows = []  # a key or a name was used meanwhile: all that was decided beside it is decided again
        written = {int(row[0]) for row in rows}
        if again and len(written) < len(draft.expected()):
            written |= await self._in_already(connection, draft)
        return written

    async def _in_already(self, connection: Connection, draft: Draft) -> set[int]:
        """The sids of the sessions that an earlier write of the draft is in."""
        expected, written = draft.expected(), set[int]()
        for row in await connection.fetch(FOUND, *transpose([(sid, after.last_seq) for sid, (after, _) in expected.items()], 2)):
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


def _firings(batch: Sequence[Operation], held: Answers) -> list[tuple[Firing, Receipt]]:
    """What fires: the firings of those that are written or skipped, in order."""
    found: list[tuple[Firing, Receipt]] = []
    for nth, answer in sorted(held.items()):
        firing = batch[nth].firing
        if firing is not None and isinstance(answer, Receipt) and not answer.replayed:
            found.append((firing, answer))
    return found


def _admitted(draft: Draft, operation: Operation, schedules: Mapping[str, ScheduleRow], fired: set[str]) -> Receipt | Exception:
    """`fired` are the schedules that an operation before it moves on."""
    firing = operation.firing
    if firing is not None and (not stands_at(schedules.get(firing.uid), firing) or (firing.uid in fired and not firing.manual)):
        return superseded(firing)
    try:
        receipt = draft.admit(operation)
    except TalonError as refusal:
        return refusal
    if firing is not None and not firing.manual:
        fired.add(firing.uid)
    return receipt
