"""Looking for work again and again: at once where somebody says that there is some, else after a while."""

from __future__ import annotations

import asyncio
import contextlib


class Rounds:
    """The rounds of one loop: `while rounds.begin(): …; await rounds.rest(pause_s)`. What wakes it during a round is not lost: the
    rest after that round ends at once."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.stopped = False

    def wake(self) -> None:
        """There is something to do now."""
        self._woken.set()

    def stop(self) -> None:
        """The round that is under way is the last."""
        self.stopped = True
        self._woken.set()

    def begin(self) -> bool:
        """Whether there is another round; whoever wakes from now on means the one after it."""
        self._woken.clear()
        return not self.stopped

    async def rest(self, pause_s: float) -> None:
        """Until woken or stopped, but for `pause_s` at the most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), pause_s)
