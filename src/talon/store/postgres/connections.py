"""The store's connections: one for journal commits, one for deliveries, a few for everything else.

A dedicated connection (`Link`) is opened when it is first needed and again after it was lost. What has to be alive beside a long
commit, a heartbeat above all, goes through the `Pool` and waits for nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import asyncpg

from talon.store.postgres.driver import Connection, Row, connect, disconnect
from talon.store.postgres.errors import UNAVAILABLE, is_gone, place, unavailable

T = TypeVar("T")

#: How long a commit or a delivery tries to reach the database again before it gives up.
PATIENCE_S = 8.0
POOL_MAX = 6
_BACKOFF_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


async def _use(connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    """`await work(connection)`; afterwards the connection is either closed or in no transaction."""
    try:
        return await work(connection)
    except asyncpg.InternalClientError as error:
        # The driver's state is broken: the server said goodbye between two statements.
        connection.terminate()
        raise ConnectionResetError(str(error)) from error
    except asyncpg.InterfaceError as error:
        if connection.is_closed():
            raise ConnectionResetError("the connection was closed") from error
        raise
    except UNAVAILABLE:
        connection.terminate()
        raise
    except Exception:
        if connection.is_in_transaction():
            await _roll_back(connection)
        raise
    except BaseException:  # cancelled in the middle of something: nobody knows what is on the wire
        connection.terminate()
        raise


async def _roll_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except (*UNAVAILABLE, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()


class Link:
    """One connection, used by one at a time. `patience_s`: how long a loss is answered by trying again."""

    def __init__(self, url: str, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None

    async def run(self, work: Callable[[int, Connection], Awaitable[T]]) -> T:
        """`await work(attempt, connection)`, and again on a new connection (attempt 1, 2, …) whenever it is lost.

        So `work` must be right when it is run again after a loss at any of its instructions. Raises `Unavailable` when the
        database cannot be reached for that long, or will not have us.
        """
        loop = asyncio.get_running_loop()
        attempt, deadline = 0, math.inf
        async with self._lock:
            while True:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await connect(self._url)
                    return await _use(self._connection, partial(work, attempt))
                except UNAVAILABLE as error:
                    # Counted from the first loss: a statement may have hung for long before it was given up.
                    deadline = min(deadline, loop.time() + self._patience_s)
                    if not is_gone(error) or loop.time() >= deadline:
                        raise unavailable(error, place(self._url)) from error
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1

    def is_backend(self, pid: int) -> bool:
        """Whether `pid` is the server's process behind this connection."""
        connection = self._connection
        return connection is not None and not connection.is_closed() and connection.get_server_pid() == pid

    async def close(self) -> None:
        """Close it when whoever uses it is done."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await disconnect(connection)


class Pool:
    """Up to `POOL_MAX` connections, opened when needed, the one used last taken first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(POOL_MAX)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, again: bool) -> T:
        """`await work(connection)`. With `again` (a read, or a write that may be repeated) it is run once more on a new connection
        when one that had been open before turns out to be lost. Raises `Unavailable`."""
        async with self._slots:
            try:
                connection, fresh = await self._take(fresh=False)
                try:
                    return await self._with(connection, work)
                except UNAVAILABLE as error:
                    if fresh or not again or not is_gone(error):
                        raise
                connection, _ = await self._take(fresh=True)
                return await self._with(connection, work)
            except UNAVAILABLE as error:
                raise unavailable(error, place(self._url)) from error

    async def _take(self, *, fresh: bool) -> tuple[Connection, bool]:
        while self._free and not fresh:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection, False
        return await connect(self._url), True

    async def _with(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await _use(connection, work)
        finally:
            if not connection.is_closed():
                self._free.append(connection)

    async def close(self) -> None:
        """Close all when whoever uses them is done."""
        for _ in range(POOL_MAX):
            await self._slots.acquire()
        free, self._free = self._free, []
        for _ in range(POOL_MAX):
            self._slots.release()
        await asyncio.gather(*(disconnect(connection) for connection in free))


class Database:
    """All connections of one store."""

    def __init__(self, url: str, patience_s: float) -> None:
        self.journal = Link(url, patience_s)
        self.inbox = Link(url, patience_s)
        self.pool = Pool(url)

    async def fetch(self, query: str, *args: object, again: bool = True) -> list[Row]:
        """One statement on the pool; see `Pool.run` for `again`."""
        return await self.pool.run(lambda connection: connection.fetch(query, *args), again=again)

    async def fetchrow(self, query: str, *args: object, again: bool = True) -> Row | None:
        """Its first row, or None."""
        return await self.pool.run(lambda connection: connection.fetchrow(query, *args), again=again)

    async def fetchval(self, query: str, *args: object, again: bool = True) -> Any:
        """The first column of its first row, or None."""
        return await self.pool.run(lambda connection: connection.fetchval(query, *args), again=again)

    async def close(self) -> None:
        """Close everything."""
        await asyncio.gather(self.journal.close(), self.inbox.close(), self.pool.close())
