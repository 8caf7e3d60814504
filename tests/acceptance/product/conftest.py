"""The stages on which these tests play. Booted once per test process; every test has sessions of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from support.postgres import PostgresServer
from support.stage import Stage, embedded_stage, spread_stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stage]:
    """`talon up` on SQLite, whose spans stand in its log."""
    async with embedded_stage(tmp_path_factory.mktemp("embedded"), observe={"exporter": "console"}) as stage:
        yield stage
        assert "Traceback" not in stage.log, stage.log


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def spread(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> AsyncGenerator[Stage]:
    """Two gateways and two workers on PostgreSQL."""
    database = postgres.create_database()
    async with spread_stage(tmp_path_factory.mktemp("spread"), database) as stage:
        yield stage
        assert "Traceback" not in stage.log, stage.log
    postgres.drop_database(database)


@pytest.fixture(params=["embedded", "spread"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Either of them."""
    found: Stage = request.getfixturevalue(request.param)
    return found
