"""Session, turn and approval rows on SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.inbox_apply import check_agent, first_seq_after, min_reader, new_session_row
from talon.store.model import NewSession, SessionPatch
from talon.store.paging import cursor_after, position_of
from talon.store.protocols import Where
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database
from talon.store.sqlite.journal import session_by_sid, session_newest, values_of, write_entries

_LAST = 2**63 - 1
_APPROVAL_FIELDS = len(ApprovalRow.__struct_fields__)


class SessionsPart:
    """`talon.store.protocols.Sessions`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create_session(self, new: NewSession) -> tuple[SessionRow, bool]:
        def create(connection: sqlite3.Connection, now: int) -> tuple[SessionRow, bool]:
            living = session_living(connection, (new.namespace, new.agent, new.id))
            if living is not None:
                return living, False
            agent = connection.execute(sql.AGENT_ENDS, (new.namespace, new.agent)).fetchone()
            check_agent(new, None if agent is None else bool(agent[1]))
            return insert_session(connection, new, now), True

        return await self._db.write(create)

    async def get_session(self, where: Where) -> SessionRow | None:
        return await self._db.read(lambda connection: session_living(connection, where))

    async def get_session_by_sid(self, sid: int) -> SessionRow | None:
        return await self._db.read(lambda connection: session_by_sid(connection, sid))

    async def patch_session(self, where: Where, patch: SessionPatch) -> SessionRow | None:
        def write(connection: sqlite3.Connection, now: int) -> SessionRow | None:
            session = session_living(connection, where)
            if session is None:
                return None
            new = (patch.metadata, patch.features, patch.profile, patch.config)
            connection.execute(sql.SESSION_PATCH, (*new, now, session.sid))
            return session_by_sid(connection, session.sid)

        return await self._db.write(write)

    async def list_sessions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[SessionRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        if agent:
            rows = await self._rows(sql.SESSIONS_OF_AGENT, (namespace, before, agent, limit + 1))
        else:
            rows = await self._rows(sql.SESSIONS, (namespace, before, limit + 1))
        sessions = [SessionRow(*row) for row in rows[:limit]]
        return sessions, cursor_after(sessions[-1].sid) if len(rows) > limit else ""

    async def get_turn(self, sid: int, turn_id: str) -> TurnRow | None:
        rows = await self._rows(sql.TURN, (sid, turn_id))
        return TurnRow(*rows[0]) if rows else None

    async def list_turns(self, sid: int, cursor: str, limit: int) -> tuple[list[TurnRow], str]:
        seq, turn_id = position_of(cursor, int, str) or (_LAST, "")
        rows = await self._rows(sql.TURNS, (sid, seq, turn_id, limit + 1))
        turns = [TurnRow(*row) for row in rows[:limit]]
        return turns, cursor_after(turns[-1].seq, turns[-1].turn_id) if len(rows) > limit else ""

    async def get_approval(self, namespace: str, approval: str) -> tuple[ApprovalRow, SessionRow] | None:
        rows = await self._rows(sql.APPROVAL, (approval, namespace))
        return _with_session(rows[0]) if rows else None

    async def list_approvals(
        self, namespace: str, state: str, cursor: str, limit: int
    ) -> tuple[list[tuple[ApprovalRow, SessionRow]], str]:
        created, approval = position_of(cursor, int, str) or (_LAST, "")
        if state:
            rows = await self._rows(sql.APPROVALS_IN_STATE, (namespace, created, approval, state, limit + 1))
        else:
            rows = await self._rows(sql.APPROVALS, (namespace, created, approval, limit + 1))
        found = [_with_session(row) for row in rows[:limit]]
        return found, cursor_after(found[-1][0].created_at_ms, found[-1][0].id) if len(rows) > limit else ""

    async def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._db.read(lambda connection: connection.execute(statement, parameters).fetchall())


def session_living(connection: sqlite3.Connection, where: Where) -> SessionRow | None:
    """The session of that name, unless it is deleted."""
    newest = session_newest(connection, where)
    return newest if newest is not None and newest.deleted_at_ms is None else None


def insert_session(connection: sqlite3.Connection, new: NewSession, now: int) -> SessionRow:
    """A new incarnation with its history. The name must be free, and the agent there to stay."""
    first_seq = first_seq_after(session_newest(connection, (new.namespace, new.agent, new.id)))
    row = new_session_row(0, new, first_seq, now)
    sid = connection.execute(sql.SESSION_INSERT, (*values_of(row), min_reader(new.history))).lastrowid
    row = msgspec.structs.replace(row, sid=sid)
    empty = msgspec.structs.replace(row, last_seq=first_seq - 1)
    write_entries(connection, empty, new.history, None, now)
    return row


def _with_session(row: tuple[Any, ...]) -> tuple[ApprovalRow, SessionRow]:
    return ApprovalRow(*row[:_APPROVAL_FIELDS]), SessionRow(*row[_APPROVAL_FIELDS:])
