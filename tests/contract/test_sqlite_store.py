"""The whole conformance suite on SQLite, and what is SQLite's own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from talon.cli.system import SystemClock
from talon.store import conformance
from talon.store.conformance.support import Execute
from talon.store.protocols import Store
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database

CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    handle = SqliteStore(Database(tmp_path / "talon.db", CLOCK))
    assert await handle.migrate() == [1, 2]
    yield handle
    await handle.close()


@pytest.fixture
async def second(store: Store, tmp_path: Path) -> AsyncIterator[Store]:
    """Connections of its own, which meet those of the first at the locks of the file."""
    handle = SqliteStore(Database(tmp_path / "talon.db", CLOCK))
    yield handle
    await handle.close()


@pytest.fixture
def execute(store: Store, tmp_path: Path) -> Execute:
    def run(sql: str) -> None:
        connection = sqlite3.connect(tmp_path / "talon.db", timeout=10)
        with connection:
            connection.execute(sql)
        connection.close()

    async def execute(sql: str) -> None:
        await asyncio.to_thread(run, sql)

    return execute


# One class per suite, so that none can be forgotten: `TestJournalSuite`, …
for _name in conformance.__all__:
    globals()[f"Test{_name}"] = type(f"Test{_name}", (getattr(conformance, _name),), {"__module__": __name__})
