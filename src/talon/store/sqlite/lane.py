"""Threads that own SQLite connections: work is handed over whole, one hop there and one back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from talon.domain.errors import Unavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]


class Lane:
    """`threads` threads with a connection each, which take work from one queue in order.

    Work that was handed over is done even when its caller is cancelled meanwhile: a transaction is never left in the middle.
    """

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], threads: int = 1) -> None:
        """Opens the connections in the calling thread. Raises what `connect` raises."""
        self._queue: SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = SimpleQueue()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        try:
            for _ in range(threads):
                self._connections.append(connect())
        except BaseException:
            for connection in self._connections:
                connection.close()
            raise
        self._threads = [
            threading.Thread(target=self._work, args=(connection,), name=f"{name}-{number}", daemon=True)
            for number, connection in enumerate(self._connections)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on a connection of this lane; raises what it raises, `Unavailable` once the lane is closed."""
        if self._closed:
            raise Unavailable("database_unavailable", "the database is closed: the program is shutting down")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put((work, future))
        return await future

    def end(self) -> None:
        """Take no more work; the threads finish what was handed over, close their connections and go. Does not wait for them."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)

    async def close(self) -> None:
        """`end`, and wait until the connections are closed."""
        self.end()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self, connection: sqlite3.Connection) -> None:
        with contextlib.closing(connection):
            while (item := self._queue.get()) is not None:
                work, future = item
                try:
                    answer, error = work(connection), None
                except BaseException as raised:  # noqa: BLE001  it belongs to the caller, whatever it is
                    answer, error = None, raised
                # The caller's loop may be gone by now; then nobody waits.
                with contextlib.suppress(RuntimeError):
                    future.get_loop().call_soon_threadsafe(_settle, future, answer, error)


def _settle(future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
