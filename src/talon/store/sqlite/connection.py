"""One SQLite database: how it is opened, its lanes, transactions, and its errors as ours."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from talon.domain.errors import Unavailable
from talon.domain.ids import Clock
from talon.store.sqlite.lane import Lane

T = TypeVar("T")

#: How long a statement waits for a lock that another program holds (a backup, a shell) before it is `database_unavailable`.
BUSY_TIMEOUT_S = 5.0
#: Threads that read beside the writer, so that a read never waits for an fsync.
READERS = 2
#: Pages of the write-ahead log after which the writer moves them into the database: 16 MiB of 4 KiB.
CHECKPOINT_PAGES = 4_096
#: Upserts and row values are needed; both came with 3.24.
OLDEST_SQLITE = (3, 24, 0)

_FULL = {sqlite3.SQLITE_FULL}
_AWAY = {
    sqlite3.SQLITE_BUSY: "is locked by another program; try again, or find out who holds it open",
    sqlite3.SQLITE_LOCKED: "is locked by another program; try again, or find out who holds it open",
    sqlite3.SQLITE_READONLY: "cannot be written; check the permissions of the file and its directory",
    sqlite3.SQLITE_PERM: "cannot be opened; check the permissions of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that the directory exists and is writable",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database; check the path",
    sqlite3.SQLITE_PROTOCOL: "is locked by another program; try again, or find out who holds it open",
}


class Database:
    """The lanes of one database file: one that writes, and one that reads beside it."""

    def __init__(self, path: Path, clock: Clock, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Opens (and creates) the file. Raises `Unavailable` when it cannot be opened."""
        self.path, self.clock = path, clock
        with mapped(path):
            self._writer = Lane("talon-write", lambda: _connect(path, busy_timeout_s, writes=True))
            self._file = _file_at(path)
            try:
                self._readers = Lane("talon-read", lambda: _connect(path, busy_timeout_s, writes=False), READERS)
            except BaseException:
                self._writer.end()
                raise

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which only reads, on a reading connection. It sees every write that was answered before."""

        def reading(connection: sqlite3.Connection) -> T:
            with mapped(self.path):
                return work(connection)

        return await self._readers.run(reading)

    async def write(self, work: Callable[[sqlite3.Connection, int], T]) -> T:
        """Do `work(connection, now)` in one transaction on the writer, durable when this returns.

        Raises what `work` raises, `Unavailable` for what the database cannot do now; then nothing was written.
        """

        def writing(connection: sqlite3.Connection) -> T:
            self._check_file()
            with mapped(self.path), transaction(connection):
                return work(connection, self.clock.now_ms())

        return await self._writer.run(writing)

    def _check_file(self) -> None:
        """SQLite goes on writing into a file that was removed from its path: what it holds would be gone with the process."""
        if _file_at(self.path) != self._file:
            raise Unavailable(
                "database_unavailable",
                f"the database {self.path} was removed or replaced while in use; put it back, or start again on what is there",
                retry_after_s=1.0,
            )

    async def close(self) -> None:
        await self._readers.close()
        await self._writer.close()


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there now, or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Take the write lock, then all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[None]:
    """All reads in the block see the same state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def mapped(path: Path) -> Generator[None]:
    """Errors of SQLite that a later attempt may not meet become `Unavailable`; the others are mistakes and stay as they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        if primary in _FULL:
            raise Unavailable("storage_full", f"no space is left for the database {path}; free some, then try again") from error
        if primary in _AWAY:
            raise Unavailable(
                "database_unavailable", f"the database {path} {_AWAY[primary]} ({error})", retry_after_s=1.0
            ) from error
        raise


def _connect(path: Path, busy_timeout_s: float, writes: bool) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise Unavailable("database_unavailable", f"this Python has SQLite {sqlite3.sqlite_version}; Talon needs {oldest} or newer")
    if writes:
        # Sessions are private: the file is made for its owner only, whatever the umask.
        os.close(_create(path))
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        if writes:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {4 * CHECKPOINT_PAGES * 4_096}")
        else:
            connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable("database_unavailable", f"the database {path} cannot be opened: {error.strerror}") from error
