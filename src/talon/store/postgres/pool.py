"""A few connections for everything that is neither a journal commit nor a delivery. What has to be alive beside a long commit, a
heartbeat above all, goes through here and waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from talon.store.postgres.driver import Connection, Row, connect, disconnect
from talon.store.postgres.errors import UNAVAILABLE, is_gone, place, unavailable

T = TypeVar("T")

POOL_MAX = 6


async def use(connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
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


class Pool:
    """Up to `POOL_MAX` connections, opened when needed, the one used last taken first. With `role` they have
    that one, and not the role of the URL's user."""

    def __init__(self, url: str, role: str = "") -> None:
        self._url, self._role = url, role
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
            connection = self._pick(self._free)
            if not connection.is_closed():
                return connection, False
        return await connect(self._url, self._role), True

    def _pick(self, free: list[Connection]) -> Connection:
        """Take one of those that are free; there is one."""
        return free.pop()

    async def _with(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await use(connection, work)
        finally:
            if not connection.is_closed():
                self._free.append(connection)

    async def fetch(self, query: str, *args: object, again: bool = True) -> list[Row]:
        """One statement; see `run` for `again`."""
        return await self.run(lambda connection: connection.fetch(query, *args), again=again)

    async def fetchrow(self, query: str, *args: object, again: bool = True) -> Row | None:
        """Its first row, or None."""
        return await self.run(lambda connection: connection.fetchrow(query, *args), again=again)

    async def fetchval(self, query: str, *args: object, again: bool = True) -> Any:
        """The first column of its first row, or None."""
        return await self.run(lambda connection: connection.fetchval(query, *args), again=again)

    async def close(self) -> None:
        """Close all when whoever uses them is done."""
        for _ in range(POOL_MAX):
            await self._slots.acquire()
        free, self._free = self._free, []
        for _ in range(POOL_MAX):
            self._slots.release()
        await asyncio.gather(*(disconnect(connection) for connection in free))
