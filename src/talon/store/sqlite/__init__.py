"""The embedded store: one SQLite file, one process, one thread that writes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from talon.domain.ids import Clock, Ids
from talon.store.migrations import program_version
from talon.store.sqlite.access import AccessPart
from talon.store.sqlite.connection import BUSY_TIMEOUT_S, Database
from talon.store.sqlite.inbox import InboxPart
from talon.store.sqlite.journal import JournalPart
from talon.store.sqlite.lock import DataLock
from talon.store.sqlite.queue import QueuePart, give_back_all
from talon.store.sqlite.resources import ResourcesPart
from talon.store.sqlite.resources_change import ChangesPart
from talon.store.sqlite.resources_secrets import SecretsPart
from talon.store.sqlite.resources_watch import WatchesPart
from talon.store.sqlite.schedules import SchedulesPart
from talon.store.sqlite.schema import SchemaPart, version_of
from talon.store.sqlite.sessions import SessionsPart
from talon.store.sqlite.shared import SharedPart


class SqliteStore(
    JournalPart,
    InboxPart,
    QueuePart,
    SessionsPart,
    ResourcesPart,
    ChangesPart,
    WatchesPart,
    SecretsPart,
    SchedulesPart,
    AccessPart,
    SharedPart,
    SchemaPart,
):
    """All Protocols of `talon.store.protocols.Store` on one SQLite database."""

    def __init__(self, database: Database, lock: DataLock | None = None) -> None:
        """`lock` is released when the store is closed. Without one, somebody else in this process must hold it."""
        super().__init__(database)
        self._lock = lock

    async def close(self) -> None:
        await self._db.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


async def open_store(path: Path, clock: Clock, ids: Ids, busy_timeout_s: float = BUSY_TIMEOUT_S) -> SqliteStore:
    """Open (or create) the database at `path` and lock its directory by `talon.lock` beside it.

    The database is not migrated yet. Sessions that an earlier process left owned are given back at once: it cannot live any more.
    Raises `Unavailable`: another process has the directory, or the file cannot be opened.
    """

    def give_back(connection: sqlite3.Connection, now: int) -> None:
        version, min_program = version_of(connection)
        if version > 0 and min_program <= program_version("sqlite"):
            give_back_all(connection, now)

    lock = await asyncio.to_thread(DataLock, path.parent / "talon.lock")
    try:
        database = await asyncio.to_thread(Database, path, clock, busy_timeout_s)
        try:
            await database.write(give_back)
        except BaseException:
            await database.close()
            raise
    except BaseException:
        lock.release()
        raise
    return SqliteStore(database, lock)
