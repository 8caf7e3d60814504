"""Manifests and revisions on SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from talon.domain.errors import Conflict
from talon.store.model import Changes, PutResource, ResourceRow, RevisionRow
from talon.store.paging import cursor_after, position_of
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database
from talon.store.sqlite.journal import values_of
from talon.store.sqlite.sessions import insert_session, session_living

_LAST = 2**63 - 1


class ResourcesPart:
    """`talon.store.protocols.Resources`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get_resource(self, namespace: str, kind: str, name: str) -> ResourceRow | None:
        return await self._db.read(lambda connection: _resource(connection, namespace, kind, name))

    async def list_resources(self, namespace: str, kind: str, cursor: str, limit: int) -> tuple[list[ResourceRow], str]:
        if namespace == "*":
            position = position_of(cursor, str, str) or ("", "")
            found = await self._rows(sql.RESOURCES_EVERYWHERE, (kind, *position, limit + 1))
        else:
            position = position_of(cursor, str) or ("",)
            found = await self._rows(sql.RESOURCES, (namespace, kind, *position, limit + 1))
        rows = [ResourceRow(*row) for row in found[:limit]]
        if len(found) <= limit:
            return rows, ""
        return rows, cursor_after(rows[-1].namespace, rows[-1].name) if namespace == "*" else cursor_after(rows[-1].name)

    async def list_revisions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[RevisionRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        found = await self._rows(sql.REVISIONS, (namespace, agent, before, limit + 1))
        rows = [RevisionRow(*row) for row in found[:limit]]
        return rows, cursor_after(rows[-1].revision) if len(found) > limit else ""

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        rows = await self._rows(sql.REVISION, (namespace, agent, revision))
        return RevisionRow(*rows[0]) if rows else None

    async def change(self, changes: Changes) -> list[ResourceRow]:
        return await self._db.write(lambda connection, now: _change(connection, changes, now))

    async def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._db.read(lambda connection: connection.execute(statement, parameters).fetchall())


def _resource(connection: sqlite3.Connection, namespace: str, kind: str, name: str) -> ResourceRow | None:
    row = connection.execute(sql.RESOURCE, (namespace, kind, name)).fetchone()
    return None if row is None else ResourceRow(*row)


def _change(connection: sqlite3.Connection, changes: Changes, now: int) -> list[ResourceRow]:
    rows = [_put(connection, put, now) for put in changes.puts]
    for gone in changes.deletes:
        place = (gone.namespace, gone.kind, gone.name)
        if connection.execute(sql.RESOURCE_DELETE, (*place, gone.if_generation)).rowcount == 0:
            raise _changed(*place, gone.if_generation)
    for new in changes.sessions:
        if session_living(connection, (new.namespace, new.agent, new.id)) is not None:
            raise Conflict(
                "conflict", f"session {new.id!r} of agent {new.agent!r} was created in the meantime; read it and try again"
            )
        insert_session(connection, new, now)
    return rows


def _put(connection: sqlite3.Connection, put: PutResource, now: int) -> ResourceRow:
    old = _resource(connection, put.namespace, put.kind, put.name)
    if put.if_generation != (0 if old is None else old.generation) or (old is None and put.body is None):
        raise _changed(put.namespace, put.kind, put.name, put.if_generation)
    revision = _revision(connection, put, 0 if old is None else old.revision, now)
    if old is None:
        row = ResourceRow(put.namespace, put.kind, put.name, put.uid, 1, revision, put.body or b"", put.status, now, now)
        connection.execute(sql.RESOURCE_INSERT, values_of(row))
        return row
    body = old.body if put.body is None else put.body
    generation = old.generation + (1 if body != old.body else 0)
    row = msgspec.structs.replace(old, generation=generation, revision=revision, body=body, status=put.status, updated_at_ms=now)
    connection.execute(sql.RESOURCE_UPDATE, (generation, revision, body, put.status, now, put.namespace, put.kind, put.name))
    return row


def _revision(connection: sqlite3.Connection, put: PutResource, current: int, now: int) -> int:
    """The revision that `put` leaves the agent at: a new one if its definition differs from the newest ever made."""
    if put.effective is None:
        return current
    row = connection.execute(sql.REVISIONS, (put.namespace, put.name, _LAST, 1)).fetchone()
    newest = None if row is None else RevisionRow(*row)
    if newest is not None and newest.digest == put.digest:
        return newest.revision
    number = 1 if newest is None else newest.revision + 1
    connection.execute(sql.REVISION_INSERT, (put.namespace, put.name, number, put.effective, put.digest, put.cause, now))
    return number


def _changed(namespace: str, kind: str, name: str, generation: int) -> Conflict:
    place = f"{kind} {name!r}" + (f" in namespace {namespace!r}" if namespace else "")
    was = f"is not at generation {generation} any more" if generation else "exists already"
    return Conflict("conflict", f"{place} {was}; read it and try again")
