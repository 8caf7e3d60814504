"""One timer for many waits: it bites when a wait is too long, and only then."""

from __future__ import annotations

import asyncio

from talon.providers.watchdog import Watchdog

WAIT_S = 5.0


class Bitten:
    """Counts the bites, and when the last one was."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.count, self.at_s = 0, 0.0
        self._came = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.at_s = self._loop.time()
        self._came.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._came.wait(), WAIT_S)


async def test_a_wait_that_is_too_long_is_bitten_once_at_its_deadline() -> None:
    bitten, now = Bitten(), asyncio.get_running_loop().time
    dog = Watchdog(bitten)
    due_s = now() + 0.05
    dog.watch(due_s)
    await bitten.wait()
    assert bitten.at_s >= due_s
    await asyncio.sleep(0.06)
    assert bitten.count == 1


async def test_the_deadline_of_the_latest_wait_counts_whether_it_is_later_or_earlier() -> None:
    bitten, now = Bitten(), asyncio.get_running_loop().time
    dog = Watchdog(bitten)
    dog.watch(now() + 0.02)
    dog.rest()
    later_s = now() + 0.1
    dog.watch(later_s)
    await bitten.wait()
    assert bitten.at_s >= later_s
    dog.watch(now() + 3600)
    dog.watch(now() + 0.01)
    await asyncio.sleep(0.05)
    assert bitten.count == 2


async def test_between_waits_and_after_the_last_one_nobody_is_bitten() -> None:
    bitten, now = Bitten(), asyncio.get_running_loop().time
    resting, stopped = Watchdog(bitten), Watchdog(bitten)
    resting.watch(now() + 0.02)
    resting.rest()
    stopped.watch(now() + 0.02)
    stopped.stop()
    await asyncio.sleep(0.06)
    assert bitten.count == 0
    resting.watch(now() + 0.01)
    await bitten.wait()
    stopped.stop()
