"""Attention: waiting for an effect without going deaf. A cancel request or the wall time stops it; a receipt is taken at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from talon.domain.ids import Clock
from talon.turn.ledger import Ledger

Tasks = set[asyncio.Task[Any]]


class Attention:
    """Watches the running effects of one turn.

    `poke` is called by the worker when the session's journal has grown; it costs one read if it was not us, and only while an
    effect runs (between effects the ledger notices by itself).
    """

    def __init__(self, ledger: Ledger, clock: Clock, cancel_grace_s: float) -> None:
        self._ledger, self._clock, self._grace_s = ledger, clock, cancel_grace_s
        self._poked = asyncio.Event()
        self._seq = 0
        self.wall_time_max_s = 0.0

    def poke(self, last_seq: int) -> None:
        """Somebody, perhaps we, has written: the journal goes up to `last_seq` at least."""
        self._seq = max(self._seq, last_seq)
        self._poked.set()

    async def watch(self, tasks: Tasks, on_done: Callable[[asyncio.Task[Any], bool], Awaitable[None]]) -> bool:
        """Wait for `tasks`; `on_done(task, last)` takes each as it ends, `last` when none is left.
        -> whether all ended by themselves.

        On a cancel request or at the wall time limit the rest is cancelled and given `cancel_grace_s`; what has not ended then is
        left behind (its result is nobody's). Cancelling the caller cancels the tasks.
        """
        pending = set(tasks)
        try:
            while pending:
                if self._must_stop():
                    return await self._stop(pending, on_done)
                done, pending = await self._wait(pending)
                for number, task in enumerate(done, 1):
                    await on_done(task, not pending and number == len(done))
                if self._poked.is_set():
                    self._poked.clear()
                    if self._seq > self._ledger.last_seq:
                        await self._ledger.refresh()
            return True
        finally:
            for task in pending:
                task.cancel()

    def _must_stop(self) -> bool:
        return self._ledger.state.cancel is not None or self._wall_left_s() == 0.0

    def _wall_left_s(self) -> float | None:
        if not self.wall_time_max_s:
            return None
        return max(0.0, self.wall_time_max_s - self._ledger.state.active_s(self._clock.now_ms()))

    async def _wait(self, pending: Tasks) -> tuple[Tasks, Tasks]:
        poked = asyncio.ensure_future(self._poked.wait())
        try:
            done, still = await asyncio.wait({*pending, poked}, timeout=self._wall_left_s(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            poked.cancel()
        return done - {poked}, still - {poked}

    async def _stop(self, pending: Tasks, on_done: Callable[[asyncio.Task[Any], bool], Awaitable[None]]) -> bool:
        for task in pending:
            task.cancel()
        done, _ = await asyncio.wait(pending, timeout=self._grace_s)
        for task in done:
            if not task.cancelled():
                await on_done(task, False)
        return False
