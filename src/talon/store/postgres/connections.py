"""The store's connections: one for journal commits, one for deliveries, a few for everything else (`pool`), and a few that look
through the wall (`walled`).

A dedicated connection (`Link`) is opened when it is first needed and again after it was lost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from talon.store.postgres.driver import Connection, connect, disconnect
from talon.store.postgres.errors import UNAVAILABLE, is_gone, place, unavailable
from talon.store.postgres.pool import Pool, use
from talon.store.postgres.walled import WalledPool
from talon.store.sight import current

T = TypeVar("T")

#: How long a commit or a delivery tries to reach the database again before it gives up.
PATIENCE_S = 8.0
_BACKOFF_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


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
                    return await use(self._connection, partial(work, attempt))
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


class Database:
    """All connections of one store. `pool` has the process's own role, for what it writes and for its own reads; `reads` is what
    callers are shown through."""

    def __init__(self, url: str, patience_s: float) -> None:
        self.journal = Link(url, patience_s)
        self.inbox = Link(url, patience_s)
        self.pool = Pool(url)
        self.walled: WalledPool | None = None
        self._url = url

    @property
    def reads(self) -> Pool:
        """For a read: as whoever asks in this context sees it. Where no wall stands, and for the process itself, `pool`."""
        return self.pool if self.walled is None or current() is None else self.walled

    def wall(self, role: str) -> WalledPool:
        """Connections with that role, not used by `reads` yet."""
        return WalledPool(self._url, role)

    async def close(self) -> None:
        """Close everything."""
        pools = [self.pool] if self.walled is None else [self.pool, self.walled]
        await asyncio.gather(self.journal.close(), self.inbox.close(), *(pool.close() for pool in pools))
