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


#: Of Talon's own tables: index entries that were looked at, and rows where no index helped; ways from an index's root to a leaf, of
#: scans and of rows that were written; pages of tables and indexes.
READS = """
SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes) + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables),
       (SELECT sum(coalesce(idx_scan, 0) + (n_tup_ins + n_tup_upd - n_tup_hot_upd) * indexes)
        FROM pg_stat_user_tables, LATERAL (SELECT count(*) AS indexes FROM pg_index WHERE indrelid = relid) of_table),
       (SELECT sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)) FROM pg_statio_user_tables)
"""
#: A server process that has nothing to do tells what it counted after 10 seconds (PGSTAT_IDLE_INTERVAL), a busy one each second.
COUNTED_AFTER_S = 10.5


class Reads(NamedTuple):
    """What was read of a database's tables so far."""

    rows: int
    descents: int
    pages: int


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

    def reads(self, url: str) -> Reads:
        """What was read so far, all that is older than `COUNTED_AFTER_S` included."""
        return Reads(*map(int, self._server.sql(READS, database_of(url)).split("|")))

    def backends(self, url: str) -> list[int]:
        """The process ids of the server's processes that serve a database's clients."""
        told = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database_of(url)}' AND backend_type = 'client backend'"
        return [int(pid) for pid in self._server.sql(told).split()]

    def settle(self, url: str) -> None:
        """Do now what the server would do in its own time after many rows were written."""
        self._server.sql("VACUUM (ANALYZE)", database_of(url))
        self._server.sql("CHECKPOINT")


@contextmanager
def running_database() -> Generator[Database]:
    """A server that is gone after the block."""
    with running_server(fsync=True, settings=SETTINGS) as server:
        yield Database(server)
