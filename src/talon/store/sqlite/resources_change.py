"""Changing resources on SQLite: one transaction, which nobody else's can overlap."""

from __future__ import annotations

import sqlite3

import msgspec

from talon.store.resource_apply import Found, Written, check, decide, identity, in_use, session_exists, wanted
from talon.store.resources import Changes, ResourceRow
from talon.store.sqlite import resources_sql as sql
from talon.store.sqlite.connection import Database
from talon.store.sqlite.journal import values_of
from talon.store.sqlite.resources import labels_of, resource, users_of
from talon.store.sqlite.schedules import change_schedules
from talon.store.sqlite.sessions import insert_session, session_living


class ChangesPart:
    """`Resources.change`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def change(self, changes: Changes) -> list[ResourceRow]:
        check(changes)
        return await self._db.write(lambda connection, now: _change(connection, changes, now))


def _change(connection: sqlite3.Connection, changes: Changes, now: int) -> list[ResourceRow]:
    written = decide(changes, _find(connection, changes), now)
    _write(connection, written, now)
    change_schedules(connection, written.schedules, written.deleted, now)
    for new in changes.sessions:
        if session_living(connection, (new.namespace, new.agent, new.id)) is not None:
            raise session_exists(new)
        insert_session(connection, new, now)
    for row in written.deleted:
        if _occupied(connection, row):
            raise in_use(row.kind, row.name)
    return written.answers


def _find(connection: sqlite3.Connection, changes: Changes) -> Found:
    rows = {one: row for one in wanted(changes) if (row := resource(connection, one)) is not None}
    touched = [identity(one) for one in (*changes.puts, *changes.deletes) if identity(one) in rows]
    agents = [(put.namespace, put.name) for put in changes.puts if put.effective is not None]
    namespaces = {one.namespace for one in (*changes.puts, *changes.deletes)}
    return Found(
        rows=rows,
        labels={one: labels_of(connection, one) for one in touched},
        newest={agent: row for agent in agents if (row := connection.execute(sql.NEWEST, agent).fetchone()) is not None},
        versions={name: row[0] for name in namespaces if (row := connection.execute(sql.VERSION, (name,)).fetchone()) is not None},
        users=[users_of(connection, one.namespace, one.ref, ("", "", ""), len(one.users) + 1) for one in changes.same_users],
    )


def _write(connection: sqlite3.Connection, written: Written, now: int) -> None:
    gone = [identity(row) for row in written.deleted]
    again = [*gone, *map(identity, written.described)]
    connection.executemany(sql.LABELS_CLEAR, again)
    connection.executemany(sql.REFS_CLEAR, again)
    connection.executemany(sql.SEALED_CLEAR, [(namespace, name) for namespace, kind, name in gone if kind == "Secret"])
    connection.executemany(sql.DELETE, gone)
    connection.executemany(sql.PUT, map(values_of, written.put))
    for put in written.described:
        connection.executemany(sql.LABEL_INSERT, [(*identity(put), *label) for label in put.labels.items()])
        connection.executemany(sql.REF_INSERT, [(*identity(put), ref.kind, ref.name) for ref in set(put.refs)])
    connection.executemany(sql.REVISION_INSERT, map(values_of, written.revisions))
    connection.executemany(sql.SEALED_PUT, map(values_of, written.sealed))
    events = [(*values_of(one.row), one.event, msgspec.json.encode(one.labels_before), now) for one in written.events]
    connection.executemany(sql.EVENT_INSERT, events)
    connection.executemany(sql.VERSION_PUT, written.versions.items())


def _occupied(connection: sqlite3.Connection, row: ResourceRow) -> bool:
    """Whether the deleted agent has living sessions, or the deleted namespace holds anything."""
    if row.kind == "Agent":
        return connection.execute(sql.AGENT_OCCUPIED, (row.namespace, row.name)).fetchone() is not None
    return row.kind == "Namespace" and connection.execute(sql.NAMESPACE_OCCUPIED, (row.name,)).fetchone() is not None
