"""States that all workers share, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS
from talon.store.shared import Step, T

#: The row is made first, so that there is one to lock.
_MAKE = "INSERT INTO shared_states (name, state) VALUES ($1, '') ON CONFLICT (name) DO NOTHING"
_LOCK = "SELECT state FROM shared_states WHERE name = $1 FOR UPDATE"
_NOW = f"SELECT {NOW_MS}"
_PUT = "UPDATE shared_states SET state = $2 WHERE name = $1"
_LIST = "SELECT s.name, s.state FROM shared_states s WHERE starts_with(s.name, $1) AND s.state <> ''"


class PostgresShared:
    """`talon.store.shared.SharedStates`."""

    _db: Database

    async def change_shared(self, name: str, step: Step[T]) -> T:
        async def change(connection: Connection) -> T:
            async with connection.transaction():
                before = await connection.fetchval(_LOCK, name)
                if before is None:
                    await connection.execute(_MAKE, name)
                    before = await connection.fetchval(_LOCK, name)
                # After the lock is ours: the time of whoever had it is not later.
                after, answer = step(bytes(before), await connection.fetchval(_NOW))
                if after != before:
                    await connection.execute(_PUT, name, after)
            return answer

        return await self._db.pool.run(change, again=True)

    async def read_shared(self, prefix: str) -> tuple[Mapping[str, bytes], int]:
        rows = [tuple(row) for row in await self._db.pool.fetch(_LIST, prefix)]
        return {name: bytes(state) for name, state in rows}, await self._db.pool.fetchval(_NOW)
