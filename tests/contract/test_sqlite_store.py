"""The whole conformance suite on SQLite, and what is SQLite's own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from talon.cli.system import SystemClock
from talon.store import conformance as suite
from talon.store.conformance.support import Execute
from talon.store.protocols import Store
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database

CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    handle = SqliteStore(Database(tmp_path / "talon.db", CLOCK))
    assert await handle.migrate() == [1]
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


class TestApproval(suite.ApprovalSuite): ...


class TestBlob(suite.BlobSuite): ...


class TestCancel(suite.CancelSuite): ...


class TestDelete(suite.DeleteSuite): ...


class TestFault(suite.FaultSuite): ...


class TestFragment(suite.FragmentSuite): ...


class TestGapless(suite.GaplessSuite): ...


class TestHold(suite.HoldSuite): ...


class TestInbox(suite.InboxSuite): ...


class TestJournal(suite.JournalSuite): ...


class TestKey(suite.KeySuite): ...


class TestList(suite.ListSuite): ...


class TestOffer(suite.OfferSuite): ...


class TestProjection(suite.ProjectionSuite): ...


class TestQueue(suite.QueueSuite): ...


class TestRead(suite.ReadSuite): ...


class TestRepeat(suite.RepeatSuite): ...


class TestResource(suite.ResourceSuite): ...


class TestRevision(suite.RevisionSuite): ...


class TestSchema(suite.SchemaSuite): ...


class TestSession(suite.SessionSuite): ...


class TestStrategy(suite.StrategySuite): ...


class TestTakeover(suite.TakeoverSuite): ...
