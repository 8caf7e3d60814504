"""Inbox operations on SQLite: one transaction decides and writes a batch of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from talon.domain.errors import Conflict, NotFound, Refused, Throttled
from talon.domain.inbox import InboxWrite, Key, Operation, Receipt, View
from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.inbox_apply import apply_write, bare_session_row, min_reader, queued_turns, receipt
from talon.store.schedule_apply import stands_at, superseded
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database
from talon.store.sqlite.journal import session_newest, values_of, write_entries, write_session, write_turn
from talon.store.sqlite.schedules import fire, schedule


class InboxPart:
    """`deliver` of `talon.store.protocols.Journal`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def deliver(self, batch: Sequence[Operation]) -> list[Receipt | Exception]:
        if not batch:
            return []
        return await self._db.write(lambda connection, now: [_deliver(connection, operation, now) for operation in batch])


def _deliver(connection: sqlite3.Connection, operation: Operation, now: int) -> Receipt | Exception:
    key, namespace = operation.key, operation.where[0]
    firing = operation.firing
    scheduled = None if firing is None else schedule(connection, firing.uid)
    if firing is not None and not stands_at(scheduled, firing):
        return superseded(firing)
    remembered = _remembered(connection, namespace, key) if key is not None else None
    if remembered is not None:
        return remembered
    newest = session_newest(connection, operation.where)
    session = newest or _created(connection, operation, now)
    if session is None or session.deleted_at_ms is not None:
        return session_not_found(operation.where)
    try:
        write = operation.admit(_view(connection, session, operation))
    except (Refused, Throttled) as refused:
        return refused
    if newest is None:
        sid = connection.execute(sql.SESSION_INSERT, (*values_of(session), 1)).lastrowid
        session = msgspec.structs.replace(session, sid=sid)
    answer = _write(connection, session, write, now)
    if firing is not None and scheduled is not None:
        fire(connection, scheduled, firing, answer, now)
    if key is not None:
        found = (answer.sid, answer.session_uid, answer.seq, answer.turn_id, answer.strategy)
        connection.execute(sql.KEY_INSERT, (namespace, key.source, key.key, key.body_sha256, *found, now))
    return answer


def _created(connection: sqlite3.Connection, operation: Operation, now: int) -> SessionRow | None:
    """The session that the operation may create under a name that was never taken, not written yet; None if it may not."""
    creation = operation.creation
    if creation is None:
        return None
    agent = connection.execute(sql.AGENT_ENDS, operation.where[:2]).fetchone()
    return bare_session_row(0, operation.where, creation, now) if agent == (creation.revision, 0) else None


def session_not_found(where: tuple[str, str, str]) -> NotFound:
    """The answer for a session that is not there, or not any more."""
    namespace, agent, name = where
    return NotFound("session_not_found", f"agent {agent!r} in namespace {namespace!r} has no session {name!r}; create it first")


def _remembered(connection: sqlite3.Connection, namespace: str, key: Key) -> Receipt | Conflict | None:
    row = connection.execute(sql.KEY, (namespace, key.source, key.key)).fetchone()
    if row is None:
        return None
    body, sid, uid, seq, turn_id, strategy = row
    if body != key.body_sha256:
        return Conflict("idempotency_conflict", f"the key {key.key!r} was used for another request; take a fresh key")
    return Receipt(sid, uid, seq, turn_id, strategy, replayed=True)


def _view(connection: sqlite3.Connection, session: SessionRow, operation: Operation) -> View:
    turns: tuple[TurnRow, ...] = ()
    approval = None
    if operation.needs_turns and (session.turn_id is not None or session.queued):
        rows = [
            *connection.execute(sql.TURN, (session.sid, session.turn_id)),
            *connection.execute(sql.TURNS_QUEUED, (session.sid, -1)),
        ]
        turns = tuple(TurnRow(*row) for row in rows)
    if operation.approval:
        row = connection.execute(sql.APPROVAL_OF_SESSION, (operation.approval, session.sid)).fetchone()
        approval = None if row is None else ApprovalRow(*row)
    revision = 0
    if operation.needs_revision:
        row = connection.execute(sql.AGENT_REVISION, (session.namespace, session.agent)).fetchone()
        revision = 0 if row is None else row[0]
    return View(session, turns, approval, revision)


def _write(connection: sqlite3.Connection, session: SessionRow, write: InboxWrite, now: int) -> Receipt:
    sid = session.sid
    after = apply_write(session, write, now)
    write_session(connection, session, after, min_reader(write.entries))
    write_entries(connection, session, write.entries, None, now)
    turns = queued_turns(session, write, now)
    for turn in turns:
        write_turn(connection, turn)
    for ended in write.end:
        connection.execute(sql.TURN_CANCELLED, (ended.reason, now, ended.turn_id, sid))
    if write.steer:
        connection.execute(sql.TURN_STEERED, (write.steer, sid))
    for turn_id in write.cancel_approvals:
        connection.execute(sql.APPROVALS_CANCEL, (now, sid, turn_id))
    if write.resolve is not None:
        approval, outcome, by = write.resolve
        connection.execute(sql.APPROVAL_RESOLVE, (outcome, by, now, approval, sid))
    if write.delete:
        connection.execute(sql.SESSION_TOMBSTONE, (now, sid))
    return receipt(session, after, write, turns, now)
