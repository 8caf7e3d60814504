"""What idle schedules cost, counted and not timed: the work of a look for what is due.

On SQLite statements and instructions of its virtual machine; on PostgreSQL transactions, rows and pages, by the server's own
counters. Nothing else may use the database meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from soak.node import Node
from support.postgres import PostgresServer, database_of
from talon.domain.ids import Ids
from talon.store import postgres
from talon.store.protocols import Store

#: What `talon.dispatch.schedules.scheduler` asks for.
LIMIT, HOLD_MS = 1_000, 10_000
Work = dict[str, float]


async def look(store: Store, looks: int) -> None:
    """Look for what is due so often; there is nothing."""
    for _ in range(looks):
        assert not (await store.take_due(LIMIT, HOLD_MS)).rows


class SqliteCounter:
    """Counts what the connections do that are opened in the block of `watching`."""

    def __init__(self) -> None:
        self._connections: list[sqlite3.Connection] = []
        self._statements = self._steps = 0

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Remember every connection that is opened."""
        plain = sqlite3.connect

        def connect(*args: Any, **named: Any) -> sqlite3.Connection:
            self._connections.append(plain(*args, **named))
            return self._connections[-1]

        with patch.object(sqlite3, "connect", connect):
            yield

    async def work(self, store: Store, looks: int = 20) -> Work:
        """What one look is: the median, since a connection reads the schema when it first needs it."""
        self._count(self._stepped, self._stated)
        found: list[tuple[int, int]] = []
        for _ in range(looks):
            self._statements = self._steps = 0
            await look(store, 1)
            found.append((self._statements, self._steps))
        self._count(None, None)
        statements, steps = (median(one) for one in zip(*found, strict=True))
        return {"statements": statements, "instructions": steps}

    def _count(self, step: Callable[[], int] | None, statement: Callable[[str], None] | None) -> None:
        for connection in self._connections:
            connection.set_progress_handler(step, 1)
            connection.set_trace_callback(statement)

    def _stepped(self) -> int:
        self._steps += 1
        return 0

    def _stated(self, _: str) -> None:
        self._statements += 1


_COUNTERS = """
SELECT d.xact_commit, (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables),
    (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes),
    (SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)) FROM pg_statio_user_tables)
FROM pg_stat_database d WHERE d.datname = current_database()"""
_COUNTED = ("transactions", "rows", "index_entries", "pages")


#: Whoever may still count something in a database.
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = '%s' AND backend_type IN ('client backend', 'autovacuum worker')"""
_ALONE_S = 30.0
#: After its start a product does what it does once; an idle connection tells its counters after ten seconds.
SETTLE_S = 15.0


class PostgresCounter:
    """Reads a server's counters of one database, which nobody else uses meanwhile; autovacuum rests."""

    def __init__(self, server: PostgresServer, url: str, ids: Ids) -> None:
        self._server, self._url, self._ids = server, url, ids
        self._database = database_of(url)

    async def work(self, looks: int = 100) -> Work:
        """What one look is, on average."""
        self._autovacuum("SET autovacuum = off")
        try:
            few, many = [await self._counted(count) for count in (0, looks)]
        finally:
            self._autovacuum("RESET autovacuum")
        return {name: (more - less) / looks for name, less, more in zip(_COUNTED, few, many, strict=True)}

    async def product(self, directory: Path, seconds: float = 20.0) -> Work:
        """What a booted `talon up` that has nothing to do is in a second."""
        up = Node("up", ("-m", "talon", "up", "--port", "0", "--data-dir", str(directory)), directory, {"DATABASE_URL": self._url})
        self._autovacuum("SET autovacuum = off")
        try:
            await up.start()
            await asyncio.sleep(SETTLE_S)
            before = self._counters()
            await asyncio.sleep(seconds)
            after = self._counters()
        finally:
            await up.kill()
            self._autovacuum("RESET autovacuum")
        return {name: round((now - then) / seconds, 1) for name, then, now in zip(_COUNTED, before, after, strict=True)}

    async def _counted(self, looks: int) -> list[int]:
        """By a store of its own: what a connection did is counted at the latest when it ends."""
        before = await self._read()
        store = await postgres.open_store(self._url, self._ids)
        try:
            await look(store, looks)
        finally:
            await store.close()
        return [now - then for now, then in zip(await self._read(), before, strict=True)]

    async def _read(self) -> list[int]:
        async with asyncio.timeout(_ALONE_S):
            while self._server.sql(_OTHERS % self._database) != "0":  # noqa: ASYNC110  the server tells nobody
                await asyncio.sleep(0.05)
        return self._counters()

    def _counters(self) -> list[int]:
        return [int(one or 0) for one in self._server.sql(_COUNTERS, self._database).split("|")]

    def _autovacuum(self, what: str) -> None:
        self._server.sql(f"ALTER SYSTEM {what}")
        self._server.sql("SELECT pg_reload_conf()")
