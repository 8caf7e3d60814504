"""How the task of one stream waits until there is something to tell."""

from __future__ import annotations

import asyncio


class Sleeper:
    """What one task waits on. Whoever `wake`s it is on the same event loop, and has said before what there is to do."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the sleep, if the task sleeps."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def sleep(self) -> None:
        """Until woken."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
