"""Attention: waiting for an effect without going deaf. A cancel request or the wall time stops it; a receipt is taken at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from talon.domain.errors import Unavailable
from talon.turn.ledger import Ledger

Tasks = set[asyncio.Task[Any]]
#: Takes a task that has ended; the flag says that others still run, so what it brought is to be made durable now.
OnDone = Callable[[asyncio.Task[Any], bool], Awaitable[None]]
log = logging.getLogger(__name__)


class Attention:
    """Watches the running effects of one turn.

    `poke` is called by the worker when the session's journal has grown; it costs one read if it was not us, and only while an
    effect runs (between effects the ledger notices by itself).
    """

    def __init__(self, ledger: Ledger, cancel_grace_s: float) -> None:
        self._ledger, self._grace_s = ledger, cancel_grace_s
        self._seq = 0  # how far the journal goes, as far as was heard
        self._news = False
        self._waiting: asyncio.Future[None] | None = None
        self.wall_time_max_s = 0.0

    def poke(self, last_seq: int) -> None:
        """Somebody, perhaps we, has written: the journal goes up to `last_seq` at least."""
        self._seq = max(self._seq, last_seq)
        self._news = True
        if self._seq > self._ledger.last_seq:
            self._wake()

    async def watch(self, tasks: Tasks, on_done: OnDone) -> bool:
        """Wait for `tasks`, handing each to `on_done` as it ends. -> whether all ended by themselves.

        On a cancel request or at the wall time limit the rest is cancelled and given `cancel_grace_s`; what has not ended then is
        left behind (its result is nobody's). Cancelling the caller cancels the tasks.
        """
        pending = set(tasks)
        for task in tasks:
            task.add_done_callback(self._wake)
        try:
            while pending:
                while self._news:
                    self._news = False
                    await self._look()
                if self._must_stop():
                    return await self._stop(pending, on_done)
                done = await self._wait(pending)
                pending -= done
                await self._take(done, on_done, more=bool(pending))
            return True
        finally:
            for task in pending:
                task.cancel()

    async def _take(self, done: Tasks, on_done: OnDone, *, more: bool) -> None:
        """Those that ended at once are made durable at once."""
        for left, task in enumerate(done, 1 - len(done)):
            await on_done(task, more and left == 0)

    async def _look(self) -> None:
        if self._seq <= self._ledger.last_seq:
            return
        try:
            await self._ledger.refresh()
        except Unavailable as error:
            # Looking can wait for the next bell; stopping a tool for it would lose its receipt.
            log.warning("session %s could not be read, trying again: %s", self._ledger.session.sid, error.detail)

    def _must_stop(self) -> bool:
        return self._ledger.state.cancel is not None or self._wall_left_s() == 0.0

    def _wall_left_s(self) -> float | None:
        if not self.wall_time_max_s:
            return None
        return max(0.0, self.wall_time_max_s - self._ledger.state.active_s(self._ledger.now_ms()))

    async def _wait(self, pending: Tasks) -> Tasks:
        """Until a task ends, somebody else writes, or the wall time is over; -> the tasks that have ended."""
        if not any(task.done() for task in pending):
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            left_s = self._wall_left_s()
            timer = None if left_s is None else loop.call_later(left_s, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        return {task for task in pending if task.done()}

    def _wake(self, _ended: asyncio.Task[Any] | None = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _stop(self, pending: Tasks, on_done: OnDone) -> bool:
        for task in pending:
            task.cancel()
        done, _ = await asyncio.wait(pending, timeout=self._grace_s)
        await self._take({task for task in done if not task.cancelled()}, on_done, more=False)
        return False
