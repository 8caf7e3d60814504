"""Attention: a running effect is stopped by a cancel request or the wall time, and by nothing else. Over a real journal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.turnworld import AGENT, FunctionTool, World, four, says, world
from support.waiting import until
from talon.cli.system import SystemClock
from talon.domain import entries as e
from talon.domain.errors import Unavailable
from talon.domain.session import SessionRow
from talon.store.model import Caps
from talon.turn.attend import Attention, Tasks
from talon.turn.ledger import Ledger

WAIT_S = 5.0


class Clock(SystemClock):
    """The system's clock and `ahead_s`."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Desk:
    """One claimed turn and what watches it."""

    def __init__(self, around: World, session: SessionRow, turn_id: str, ledger: Ledger, clock: Clock) -> None:
        self.world, self.session, self.turn_id, self.ledger, self.clock = around, session, turn_id, ledger, clock
        self.attention = Attention(ledger, cancel_grace_s=0.05)
        self.taken: list[tuple[str, bool]] = []

    async def on_done(self, task: asyncio.Task[str], others_run: bool) -> None:
        self.taken.append((task.result(), others_run))

    def watch(self, tasks: Tasks) -> asyncio.Task[bool]:
        return asyncio.create_task(self.attention.watch(tasks, self.on_done))

    async def others_write(self, content: str = "steered") -> None:
        await self.world.send(self.session, content, strategy="steer")
        self.attention.poke(await self.tail())

    async def cancel(self) -> None:
        await self.world.cancel(self.session, self.turn_id)

    async def tail(self) -> int:
        return (await self.world.store.inner.tails([self.session.sid]))[self.session.sid]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk, None]:
    async with world(tmp_path, lambda _: says(), FunctionTool("look", four)) as around:
        session = await around.session()
        turn_id = await around.send(session)
        await around.store.register("w1", "boot", 3_600_000, b"{}")
        (claimed,) = await around.store.claim("w1/boot", 1, Caps())
        clock = Clock()
        ledger = Ledger(claimed, around.deps("w").journal, around.writer, clock, around.ids, around.cache, around.limits)
        await ledger.open()
        ledger.fact(e.TurnStarted(agent=AGENT, revision=1))
        await ledger.settle()
        yield Desk(around, session, turn_id, ledger, clock)


async def after(event: asyncio.Event, word: str = "done") -> str:
    await event.wait()
    return word


async def never() -> str:
    await asyncio.Event().wait()
    return "never"


async def stubborn(stopped: asyncio.Event, go: asyncio.Event) -> str:
    """Does not stop when it is cancelled."""
    while not go.is_set():
        try:
            await go.wait()
        except asyncio.CancelledError:
            stopped.set()
    return "late"


async def test_tasks_that_end_are_taken_as_they_end(desk: Desk) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    watching = desk.watch({asyncio.create_task(after(gate, str(number))) for number, gate in enumerate(gates)})
    for expected, gate in enumerate(gates, 1):
        gate.set()
        await until(lambda expected=expected: len(desk.taken) >= expected)
    assert await asyncio.wait_for(watching, WAIT_S)
    assert desk.taken == [("0", True), ("1", True), ("2", False)]


async def test_those_that_end_together_are_made_durable_together(desk: Desk) -> None:
    gate, last = asyncio.Event(), asyncio.Event()
    tasks: Tasks = {asyncio.create_task(after(gate)) for _ in range(3)} | {asyncio.create_task(after(last, "last"))}
    watching = desk.watch(tasks)
    await asyncio.sleep(0)
    gate.set()
    await until(lambda: len(desk.taken) >= 3)
    assert [others_run for _, others_run in desk.taken] == [False, False, True]
    last.set()
    assert await asyncio.wait_for(watching, WAIT_S)
    assert desk.taken[-1] == ("last", False)


async def test_news_of_others_are_read_and_stop_nothing(desk: Desk) -> None:
    gate = asyncio.Event()
    watching = desk.watch({asyncio.create_task(after(gate))})
    await desk.others_write()
    await until(lambda: desk.ledger.state.offered)
    assert not watching.done()
    gate.set()
    assert await asyncio.wait_for(watching, WAIT_S)


async def test_a_bell_for_what_is_known_costs_no_read(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.world.store.reset()
    watching = desk.watch({asyncio.create_task(after(gate))})
    for _ in range(5):
        desk.attention.poke(desk.ledger.last_seq)
        await asyncio.sleep(0)
    gate.set()
    assert await asyncio.wait_for(watching, WAIT_S)
    assert desk.world.store.calls["read_entries"] == 0


async def test_a_cancel_request_cancels_the_tasks(desk: Desk) -> None:
    task = asyncio.create_task(never())
    watching = desk.watch({task})
    await desk.cancel()
    assert not watching.done(), "without a bell nobody looks"
    desk.attention.poke(await desk.tail())
    assert not await asyncio.wait_for(watching, WAIT_S)
    assert task.cancelled()
    assert desk.taken == []


async def test_a_cancel_request_that_is_known_already_stops_at_once(desk: Desk) -> None:
    await desk.cancel()
    await desk.ledger.refresh()
    assert not await asyncio.wait_for(desk.watch({asyncio.create_task(never())}), WAIT_S)


async def test_what_ends_within_the_grace_is_taken_and_what_does_not_is_left_behind(desk: Desk) -> None:
    async def cleans_up() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await never()
        return "cleaned up"

    stopped, go = asyncio.Event(), asyncio.Event()
    stays = asyncio.create_task(stubborn(stopped, go))
    tasks: Tasks = {asyncio.create_task(cleans_up()), stays}
    watching = desk.watch(tasks)
    await asyncio.sleep(0)
    await desk.cancel()
    desk.attention.poke(await desk.tail())
    assert not await asyncio.wait_for(watching, WAIT_S)
    assert desk.taken == [("cleaned up", False)]
    assert stopped.is_set()
    assert not stays.done()
    go.set()
    await asyncio.wait_for(stays, WAIT_S)


async def test_the_wall_time_stops_a_task_and_waiting_does_not_count(desk: Desk) -> None:
    desk.attention.wall_time_max_s = 60.0
    gate = asyncio.Event()
    watching = desk.watch({asyncio.create_task(after(gate))})
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.wait_for(watching, WAIT_S), "a minute is not over"
    desk.clock.ahead_s = 61.0
    assert not await asyncio.wait_for(desk.watch({asyncio.create_task(never())}), WAIT_S)


async def test_the_wall_time_ends_without_any_bell(desk: Desk) -> None:
    desk.attention.wall_time_max_s = desk.ledger.state.active_s(desk.ledger.now_ms()) + 0.05
    task = asyncio.create_task(never())
    assert not await asyncio.wait_for(desk.watch({task}), WAIT_S)
    assert task.cancelled()


async def test_cancelling_the_watcher_cancels_the_tasks(desk: Desk) -> None:
    task = asyncio.create_task(never())
    watching = desk.watch({task})
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, WAIT_S)


async def test_a_failing_taker_cancels_the_others(desk: Desk) -> None:
    async def refuses(task: asyncio.Task[str], others_run: bool) -> None:
        raise RuntimeError("no")

    gate = asyncio.Event()
    gate.set()
    other = asyncio.create_task(never())
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(desk.attention.watch({asyncio.create_task(after(gate)), other}, refuses), WAIT_S)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(other, WAIT_S)


async def test_a_look_that_fails_is_tried_again_and_stops_nothing(desk: Desk) -> None:
    failures = 0

    async def before(name: str) -> None:
        nonlocal failures
        if name == "read_entries" and not failures:
            failures += 1
            raise Unavailable("database_unavailable", "gone for a moment")

    desk.world.store.before = before
    task = asyncio.create_task(never())
    watching = desk.watch({task})
    await desk.cancel()
    tail = await desk.tail()
    desk.attention.poke(tail)
    await until(lambda: failures)
    assert not watching.done()
    desk.attention.poke(tail)
    assert not await asyncio.wait_for(watching, WAIT_S)
    assert task.cancelled()
