"""What the room does beside requests: it learns of revocations, writes down who did what, and forgets what is old."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from talon.access.recognised import Recognised
from talon.domain.errors import Unavailable
from talon.domain.ids import Clock
from talon.store.access import FORGET_MAX, AccessRows, LogFilter, LogRow

#: How often the store is asked what was revoked, and given what is to be written.
EVERY_S = 0.5
#: Longer without an answer, and nothing that is remembered is believed.
TRUSTED_S = 1.0
FORGET_EVERY_S = 600.0
#: Rows that wait to be written; beyond, the oldest are lost, and said to be.
WAITING_MAX = 50_000
BATCH = 1000
log = logging.getLogger(__name__)


class StoredLog:
    """`talon.access.protocol.AccessLog` on a store."""

    def __init__(self, store: AccessRows) -> None:
        self._store = store
        self._waiting: deque[LogRow] = deque(maxlen=WAITING_MAX)
        self._lost = 0

    def write(self, row: LogRow) -> None:
        """See `AccessLog.write`."""
        self._lost += len(self._waiting) == WAITING_MAX
        self._waiting.append(row)

    async def query(self, which: LogFilter, cursor: str, limit: int) -> tuple[list[LogRow], str]:
        """See `AccessLog.query`."""
        return await self._store.list_log(which, cursor, limit)

    async def flush(self) -> None:
        """Store what waits. Raises `Unavailable`; what is not stored then is tried again with the next."""
        while self._waiting:
            batch = [self._waiting[number] for number in range(min(BATCH, len(self._waiting)))]
            await self._store.append_log(batch)
            for row in batch:
                if self._waiting and self._waiting[0] is row:
                    self._waiting.popleft()
        if self._lost:
            log.warning("access log: %d rows were lost, the store was away for too long", self._lost)
            self._lost = 0


class Upkeep:
    """One of a process. `run` is to be running while requests are taken."""

    def __init__(self, store: AccessRows, clock: Clock, recognised: Recognised, written: StoredLog) -> None:
        self._store, self._clock, self._recognised, self._log = store, clock, recognised, written
        self._version = 0
        self._asked_s: float | None = None
        self._forget_at_s = 0.0
        self._bell = asyncio.Event()

    def trusted(self) -> bool:
        """Whether this process knew all revocations a moment ago."""
        return self._asked_s is not None and self._clock.monotonic_s() - self._asked_s <= TRUSTED_S

    def poke(self) -> None:
        """Ask now what was revoked."""
        self._bell.set()

    def revoked(self, credential: str) -> None:
        """This process has revoked it: it is nobody from now on; what was minted with it the store says in a moment."""
        self._recognised.revoked([credential])
        self.poke()

    async def run(self) -> None:
        """For ever, until cancelled."""
        away = False
        while True:
            self._bell.clear()
            self._recognised.expired()
            try:
                await self.turn()
            except Unavailable as error:
                if not away:
                    log.warning("access: the store is away, every request is recognised anew: %s", error.detail)
                away = True
            else:
                away = False
            try:
                await asyncio.wait_for(self._bell.wait(), EVERY_S)
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Write what waits to be written; what cannot be written now is lost, and said to be."""
        try:
            await self._log.flush()
        except Unavailable as error:
            log.warning("access log: the last rows are lost: %s", error.detail)

    async def turn(self) -> None:
        """One round. Raises `Unavailable`."""
        asked_s = self._clock.monotonic_s()
        if self._asked_s is None:
            self._version = await self._store.access_version()
        gone, self._version = await self._store.revoked_after(self._version)
        if not self.trusted():
            self._recognised.forget()  # what was revoked while nobody told us may be forgotten in the store by now
        self._asked_s = asked_s
        self._recognised.revoked(gone)
        if used := self._recognised.used():
            await self._store.touch_credentials(used)
        await self._log.flush()
        if asked_s >= self._forget_at_s:
            self._forget_at_s = asked_s + FORGET_EVERY_S
            while await self._store.forget_access() >= FORGET_MAX:
                pass
