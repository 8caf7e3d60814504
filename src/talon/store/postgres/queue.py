"""Dispatch: workers and their leases, claims, sweeps. All lease times are the database's clock."""

from __future__ import annotations

from talon.domain.entries import READER
from talon.domain.session import SessionRow, TurnRow
from talon.store.model import Caps, Claimed, WorkerRow
from talon.store.postgres import queue_sql as sql
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import session_row, turn_row

_TURN_AT = len(SessionRow.__struct_fields__)
_WAS_AT = _TURN_AT + len(TurnRow.__struct_fields__)


class PostgresQueue:
    """`Queue`, on the pool: a heartbeat never waits for a commit."""

    _db: Database
    _notify: bool

    async def register(self, name: str, boot: str, ttl_ms: int, catalogue: bytes) -> str:
        worker = f"{name}/{boot}"

        async def write(connection: Connection) -> str:
            async with connection.transaction():
                await connection.execute(sql.REGISTER, worker, name, ttl_ms, catalogue)
                await connection.execute(sql.FORGET_BOOTS, name, worker)
                await connection.fetch(sql.GIVE_BACK_BOOTS, self._notify, worker)
            return worker

        return await self._db.pool.run(write, again=True)

    async def heartbeat(self, worker: str, ttl_ms: int, draining: bool = False) -> bool:
        return await self._db.pool.fetchval(sql.HEARTBEAT, worker, ttl_ms, draining) is not None

    async def retire(self, worker: str) -> int:
        async def write(connection: Connection) -> int:
            async with connection.transaction():
                await connection.execute(sql.RETIRE, worker)
                return _freed(await connection.fetchrow(sql.GIVE_BACK_RETIRED, self._notify, worker))

        return await self._db.pool.run(write, again=True)

    async def claim(self, worker: str, slots: int, caps: Caps) -> list[Claimed]:
        if slots <= 0:
            return []
        arguments = (worker, slots, READER, caps.per_namespace, caps.per_agent)

        async def write(connection: Connection) -> list[Row]:
            if not caps.per_namespace and not caps.per_agent:
                return await connection.fetch(sql.CLAIM, *arguments)
            async with connection.transaction():
                await connection.execute(sql.CLAIM_LOCK)
                return await connection.fetch(sql.CLAIM, *arguments)

        # Not run again after a lost answer: `owned` tells what the first one took.
        rows = await self._db.pool.run(write, again=False)
        return [Claimed(session_row(row), turn_row(row, _TURN_AT), row[_WAS_AT], row[_WAS_AT + 1]) for row in rows]

    async def sweep(self) -> int:
        async def write(connection: Connection) -> int:
            await connection.execute(sql.WAKE_BY_THE_CLOCK)
            # Two statements: the second must see who is gone.
            await connection.execute(sql.EXPIRE)
            return _freed(await connection.fetchrow(sql.GIVE_BACK_LOST, self._notify))

        return await self._db.pool.run(write, again=True)

    async def owned(self, worker: str) -> list[tuple[int, int]]:
        return [(row[0], row[1]) for row in await self._db.pool.fetch(sql.OWNED, worker)]

    async def next_wake_ms(self) -> int | None:
        return await self._db.pool.fetchval(sql.NEXT_WAKE, READER)

    async def workers(self) -> list[WorkerRow]:
        return [WorkerRow(*row) for row in await self._db.pool.fetch(sql.WORKERS)]

    async def put_definition(self, digest: str, body: bytes) -> None:
        await self._db.pool.fetch(sql.PUT_DEFINITION, digest, body)

    async def get_definition(self, digest: str) -> bytes | None:
        return await self._db.pool.fetchval(sql.GET_DEFINITION, digest)


def _freed(row: Row | None) -> int:
    return 0 if row is None else int(row[0])
