"""The worker's lease: kept alive by a thread of its own, so that a busy event loop does not lose it (kernel §5).

The worker believes in its lease by its own monotonic clock, and stops `MARGIN_S` before it can have ended in the database: whoever
takes over finds nobody running.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol

from talon.domain.errors import Unavailable
from talon.domain.ids import Clock

MARGIN_S = 2.0
log = logging.getLogger(__name__)


class Heartbeats(Protocol):
    """The store over a connection of its own, opened and used on the heartbeat's thread only."""

    async def heartbeat(self, worker: str, ttl_ms: int, draining: bool = False) -> bool:
        """Extend the lease; False if it is gone."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class Lease(Protocol):
    """Whether this worker may still act."""

    def alive(self) -> bool:
        """True while nobody else can have taken over."""
        ...

    def start(self, worker: str, began_s: float) -> None:
        """A lease was registered under this id; `began_s` is the monotonic time just before it was asked for."""
        ...

    async def stop(self) -> None:
        """No more heartbeats."""
        ...


class FileLease:
    """On SQLite the lock on the data directory is the lease: it cannot expire while the process lives."""

    def alive(self) -> bool:
        return True

    def start(self, worker: str, began_s: float) -> None:
        """Nothing to keep alive."""

    async def stop(self) -> None:
        """Nothing to stop."""


class HeartbeatLease:
    """A lease of `ttl_s` in the database, extended three times in the part of it that the worker believes in."""

    def __init__(self, open_store: Callable[[], Awaitable[Heartbeats]], ttl_s: float, clock: Clock) -> None:
        self._open, self._ttl_s, self._clock = open_store, ttl_s, clock
        self._alive_until_s = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def alive(self) -> bool:
        return self._clock.monotonic_s() < self._alive_until_s

    def start(self, worker: str, began_s: float) -> None:
        self._alive_until_s = began_s + self._ttl_s - MARGIN_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(worker, self._stop), name="talon-heartbeat", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._ttl_s)

    def _run(self, worker: str, stop: threading.Event) -> None:
        asyncio.run(self._beat(worker, stop))

    async def _beat(self, worker: str, stop: threading.Event) -> None:
        store: Heartbeats | None = None
        try:
            while not await asyncio.to_thread(stop.wait, (self._ttl_s - MARGIN_S) / 3):
                began_s = self._clock.monotonic_s()
                try:
                    store = store or await self._open()
                    kept = await store.heartbeat(worker, int(self._ttl_s * 1000))
                except Unavailable as error:
                    log.warning("heartbeat of %s failed, trying again: %s", worker, error.detail)
                    continue
                if stop.is_set():
                    return
                if not kept:
                    log.warning("the lease of %s is gone; its sessions run elsewhere", worker)
                    self._alive_until_s = 0.0
                    return
                self._alive_until_s = began_s + self._ttl_s - MARGIN_S
        finally:
            if store is not None:
                await store.close()
