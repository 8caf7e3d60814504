"""The PostgreSQL store passes the whole conformance suite, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.postgres import PostgresServer, database_of
from support.stores import on_server
from talon.store import conformance
from talon.store.conformance.support import Execute
from talon.store.postgres import PostgresStore


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with on_server(database_url) as opened:
        yield opened


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[PostgresStore]:
    async with on_server(database_url) as opened:
        yield opened


@pytest.fixture
def execute(postgres: PostgresServer, database_url: str) -> Execute:
    async def run(sql: str) -> None:
        postgres.sql(sql, database_of(database_url))

    return run


# One class per suite, so that none can be forgotten: `TestJournalSuite`, …
for _name in conformance.__all__:
    globals()[f"Test{_name}"] = type(f"Test{_name}", (getattr(conformance, _name),), {"__module__": __name__})
