"""Migrations, and whether the database is there."""

from __future__ import annotations

from talon.domain.errors import Unavailable
from talon.store.migrations import missing, program_version
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS

#: Many processes may start at once: one migrates, the others wait and find it done.
_LOCK = "SELECT pg_advisory_xact_lock(7441002, 2)"
#: Asked of the catalogue itself: `to_regclass` may answer from before the lock was waited for.
_EXISTS = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_info')"
_VERSION = "SELECT coalesce(max(version), 0), coalesce(max(min_program), 0) FROM schema_info"
_RECORD = f"INSERT INTO schema_info (version, min_program, at_ms) VALUES ($1, $2, {NOW_MS})"
_READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
#: A commit of nothing but a note in the write-ahead log: it fails where a real one would.
_WRITE = "SELECT pg_logical_emit_message(true, 'talon', 'ping')"
_MIGRATE_TIMEOUT_S = 3600.0


class PostgresSchema:
    """`Schema`."""

    _db: Database

    async def migrate(self) -> list[int]:
        async def write(connection: Connection) -> list[int]:
            async with connection.transaction():
                await connection.execute(_LOCK, timeout=_MIGRATE_TIMEOUT_S)
                steps = missing("postgres", *await _versions(connection))
                for step in steps:
                    await connection.execute(step.sql, timeout=_MIGRATE_TIMEOUT_S)
                    await connection.execute(_RECORD, step.number, step.min_program)
            return [step.number for step in steps]

        return await self._db.pool.run(write, again=True)

    async def schema_version(self) -> tuple[int, int]:
        version, _ = await self._db.pool.run(_versions, again=True)
        return version, program_version("postgres")

    async def ping(self) -> None:
        if await self._db.pool.fetchval(_READ_ONLY):
            raise Unavailable("database_unavailable", "the database only takes reads now; is it a standby?", retry_after_s=1.0)
        await self._db.pool.fetch(_WRITE)

    async def close(self) -> None:
        await self._db.close()


async def _versions(connection: Connection) -> tuple[int, int]:
    """(version, min_program) of the database; zeros for an empty one."""
    if not await connection.fetchval(_EXISTS):
        return 0, 0
    row = await connection.fetchrow(_VERSION)
    assert row is not None
    return row[0], row[1]
