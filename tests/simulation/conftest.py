"""One store after the other: what holds on SQLite must hold on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.stores import of_param
from talon.store.protocols import Store


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    """A migrated store, of each kind in turn."""
    async with of_param(request, tmp_path) as opened:
        yield opened
