"""Stores for tests, open while the block lasts, with Talon's schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from talon.cli.system import SystemClock, SystemIds
from talon.domain.ids import Clock
from talon.store.postgres import PostgresStore, open_store
from talon.store.protocols import Store
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database

S = TypeVar("S", bound=SqliteStore)
CLOCK = SystemClock()


@asynccontextmanager
async def in_file(kind: type[S], directory: Path, clock: Clock = CLOCK) -> AsyncGenerator[S]:
    """A SQLite store in a directory."""
    store = kind(Database(directory / "talon.db", clock))
    await store.migrate()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def on_server(url: str) -> AsyncGenerator[PostgresStore]:
    """A store on a database of the test server."""
    store = await open_store(url, SystemIds())
    try:
        yield store
    finally:
        await store.close()


def of_param(request: pytest.FixtureRequest, directory: Path) -> AbstractAsyncContextManager[Store]:
    """For a fixture of `params=["sqlite", "postgres"]`: the one that it is asked for."""
    if request.param == "sqlite":
        return in_file(SqliteStore, directory)
    return on_server(request.getfixturevalue("database_url"))
