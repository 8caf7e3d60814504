"""What watches read of resources: versions and changes, and what is forgotten of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from talon.store.postgres import resources_sql as sql
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS
from talon.store.resources import EVENTS_KEEP_MAX, EVENTS_KEEP_MS, USES_KEEP_MS, ResourceEvent, ResourceRow
from talon.store.watching import told


class PostgresWatches:
    """The history of `Resources`."""

    _db: Database

    async def versions(self, namespaces: Sequence[str]) -> Mapping[str, int]:
        found = {row[0]: row[1] for row in await self._db.reads.fetch(sql.VERSIONS, list(namespaces))} if namespaces else {}
        return {namespace: found.get(namespace, 0) for namespace in namespaces}

    async def read_events(self, namespace: str, after: int, limit: int, kind: str = "") -> tuple[list[ResourceEvent], int]:
        more = (kind,) if kind else ()
        rows = await self._db.reads.fetch(sql.EVENTS[bool(kind)], namespace, after, limit, *more)
        newest, forgotten, *_ = tuple(rows[0])
        events = [_event(tuple(row)) for row in rows if row[2] is not None]
        return told(namespace, events, after, limit, newest or 0, forgotten or 0)

    async def forget_events(self) -> int:
        async def write(connection: Connection) -> int:
            now = await connection.fetchval(f"SELECT {NOW_MS}")
            rows = await connection.fetch(sql.FORGETTABLE, now - EVENTS_KEEP_MS, EVENTS_KEEP_MAX)
            count = 0
            # One namespace at a time: a change waits for no more than that, and never in a circle.
            for namespace in sorted(row[0] for row in rows):
                async with connection.transaction():
                    oldest = now - EVENTS_KEEP_MS
                    forgotten = await connection.fetchval(sql.FORGET_UP_TO, namespace, oldest, EVENTS_KEEP_MAX)
                    count += await connection.fetchval(sql.FORGET, namespace, forgotten)
            return count + await connection.fetchval(sql.FORGET_USES, now - USES_KEEP_MS)

        return await self._db.pool.run(write, again=True)


def _event(row: tuple[Any, ...]) -> ResourceEvent:
    _, _, event, labels, *fields = row
    return ResourceEvent(event, ResourceRow(*fields), msgspec.json.decode(labels, type=dict[str, str]))
