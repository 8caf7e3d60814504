"""One store after the other: what holds on SQLite must hold on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from talon.cli.system import SystemClock, SystemIds
from talon.store import postgres, sqlite
from talon.store.protocols import Store


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    """A migrated store, of each kind in turn."""
    if request.param == "sqlite":
        opened: Store = await sqlite.open_store(tmp_path / "talon.db", SystemClock(), SystemIds())
    else:
        opened = await postgres.open_store(request.getfixturevalue("database_url"), SystemIds())
    await opened.migrate()
    try:
        yield opened
    finally:
        await opened.close()
