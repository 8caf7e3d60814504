"""PostgreSQL as it comes, with fsync: a server for the run, a database for each subject, and what the server counts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from bench.machine import cpu_s
from support.postgres import PostgresServer, database_of, running_server

#: Nothing but a socket instead of a port: every other value is the server's own default.
SETTINGS = {"listen_addresses": ""}
COUNTERS = """
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
       pg_snapshot_xmax(pg_current_snapshot())::text,
       (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal')
"""


class Counters(NamedTuple):
    """Where the server stands. `commits` counts transactions that wrote something: each of them has a number of its own."""

    wal_bytes: int
    commits: int
    fsyncs: int
    cpu_s: float


class Database:
    """The server of one run."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.version = server.sql("SHOW server_version")

    def create(self) -> str:
        """A new, empty database; -> its URL. The checkpoint comes now and not in the middle of a measurement."""
        url = self._server.create_database(migrated=False)
        self._server.sql("CHECKPOINT")
        return url

    def drop(self, url: str) -> None:
        """Remove it."""
        self._server.drop_database(url)

    def counters(self) -> Counters:
        """The counters now."""
        wal, commits, fsyncs = self._server.sql(COUNTERS).split("|")
        return Counters(int(wal), int(commits), int(fsyncs or 0), cpu_s(self._server.pid))

    def transactions(self, url: str) -> int:
        """All transactions of a database so far, those that only read included; exact once its clients are gone."""
        return int(self._server.sql(f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{database_of(url)}'"))


@contextmanager
def running_database() -> Generator[Database]:
    """A server that is gone after the block."""
    with running_server(fsync=True, settings=SETTINGS) as server:
        yield Database(server)
