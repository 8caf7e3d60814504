"""What watches read of resources on SQLite, and what is forgotten of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from talon.store.resources import EVENTS_KEEP_MAX, EVENTS_KEEP_MS, USES_KEEP_MS, ResourceEvent, ResourceRow
from talon.store.sqlite import resources_sql as sql
from talon.store.sqlite.connection import Database, snapshot
from talon.store.watching import told


class WatchesPart:
    """The history of `Resources`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def versions(self, namespaces: Sequence[str]) -> Mapping[str, int]:
        return await self._db.read(lambda connection: {name: _counter(connection, name)[0] for name in namespaces})

    async def read_events(self, namespace: str, after: int, limit: int, kind: str = "") -> tuple[list[ResourceEvent], int]:
        def read(connection: sqlite3.Connection) -> tuple[list[ResourceEvent], int]:
            statement, which = (sql.EVENTS_OF_KIND, (kind,)) if kind else (sql.EVENTS, ())
            with snapshot(connection):
                newest, forgotten = _counter(connection, namespace)
                rows = connection.execute(statement, (namespace, after, *which, limit)).fetchall()
            return told(namespace, list(map(_event, rows)), after, limit, newest, forgotten)

        return await self._db.read(read)

    async def forget_events(self) -> int:
        def forget(connection: sqlite3.Connection, now: int) -> int:
            found = [
                *connection.execute(sql.FORGET_BY_AGE, (now - EVENTS_KEEP_MS,)),
                *connection.execute(sql.FORGET_BY_NUMBER, (EVENTS_KEEP_MAX,)),
            ]
            count = 0
            for namespace, version in found:
                connection.execute(sql.FORGOTTEN, (version, namespace))
                count += connection.execute(sql.FORGET, (namespace, version)).rowcount
            return count + connection.execute(sql.FORGET_USES, (now - USES_KEEP_MS,)).rowcount

        return await self._db.write(forget)


def _counter(connection: sqlite3.Connection, namespace: str) -> tuple[int, int]:
    """The newest version of a namespace, and the newest that is forgotten."""
    return connection.execute(sql.VERSION, (namespace,)).fetchone() or (0, 0)


def _event(row: tuple[Any, ...]) -> ResourceEvent:
    event, labels, *fields = row
    return ResourceEvent(event, ResourceRow(*fields), msgspec.json.decode(labels, type=dict[str, str]))
