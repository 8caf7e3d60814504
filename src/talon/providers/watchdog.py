"""One timer for all the waits of a call: a deadline is a number, and only when the timer fires does it look how late it is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Watchdog:
    """Calls `bite` when a wait goes over its deadline. On the running loop; for one wait at a time, any number of times."""

    __slots__ = ("_bite", "_due_s", "_fires_s", "_loop", "_timer")

    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite = bite
        self._loop = asyncio.get_running_loop()
        self._due_s = math.inf
        self._fires_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, due_s: float) -> None:
        """A wait begins; `bite` at `due_s` (the loop's time) unless it has ended."""
        self._due_s = due_s
        if due_s < self._fires_s:
            if self._timer is not None:
                self._timer.cancel()
            self._set()

    def rest(self) -> None:
        """The wait has ended; another may follow."""
        self._due_s = math.inf

    def stop(self) -> None:
        """No wait follows: the timer goes."""
        self._due_s = self._fires_s = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._fires_s = self._due_s
        self._timer = self._loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        self._timer, self._fires_s = None, math.inf
        if self._due_s <= self._loop.time():
            self._due_s = math.inf
            self._bite()
        elif self._due_s < math.inf:
            self._set()
