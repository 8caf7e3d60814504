"""Talon's processes killed at random under load: nothing lost, nothing repeated, nothing stuck: the soak's short run."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from soak.client import Client
from soak.fleet import Fleet, running
from soak.node import Node
from soak.plans import Pace
from soak.report import Report
from soak.workload import Load, Workload

KILLS = 22
#: About 40 s on two idle cores; a start alone costs more than a second of CPU.
KILLING_S = 150.0
LOAD = Load(lanes=6, operations=6, stuck_s=KILLING_S, pace=Pace(model_ms=60, tool_ms=80))


@asynccontextmanager
async def loaded(fleet: Fleet, rng: random.Random, load: Load = LOAD) -> AsyncGenerator[tuple[Workload, Report]]:
    """A workload over the fleet; on the way out it is brought to rest and every session of it verified."""
    report = Report()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(fleet.urls, rng, report))
        counter = await stack.enter_async_context(Client(lambda: [fleet.counter.url], rng, report))
        workload = Workload(client, counter, report, rng, load)
        task = asyncio.create_task(workload.run())
        try:
            yield workload, report
            workload.stop.set()
            await asyncio.wait_for(task, load.stuck_s)
        finally:
            task.cancel()
            await asyncio.wait({task})


async def kill_in_a_step(workload: Workload, node: Node, rng: random.Random) -> None:
    """SIGKILL while readers see a step of that worker under way, or after a second all the same; then start it again.

    It lives a moment first: five lives in a row without any progress would end a turn, as they should (K13).
    """
    await asyncio.sleep(0.2 + rng.random() * 0.6)
    for _ in range(100):
        if workload.under_way(node.name):
            break
        await asyncio.sleep(0.01)
    await node.kill()
    await node.start()


async def _kill_often(workload: Workload, node: Node, times: int, rng: random.Random) -> None:
    for _ in range(times):
        await kill_in_a_step(workload, node, rng)


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """From SOAK_SEED, else a new one; printed, so that a failure can be tried again."""
    chosen = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbits(32)
    print(f"SOAK_SEED={chosen}")
    return chosen


@pytest.mark.slow
@pytest.mark.timeout(2 * KILLING_S)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_random_kills_lose_nothing_repeat_nothing_and_leave_nothing_stuck(
    store: str, tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(seed)
    url = request.getfixturevalue("database_url") if store == "postgres" else ""
    async with running(tmp_path, database_url=url, workers=2 if url else 1) as fleet, loaded(fleet, rng) as (workload, report):
        async with asyncio.timeout(KILLING_S):
            await asyncio.gather(*(_kill_often(workload, node, KILLS // len(fleet.workers), rng) for node in fleet.workers))
    told = f"seed {seed}: {report.document()}"

    assert not report.violations, told
    assert report.turns >= KILLS, told
    assert report.success >= 0.9, told
    assert report.seen["effects"] > 0, told
    assert len(fleet.killed()) >= 20, told
    # Of two dozen kills; `make soak` asks nine in ten of hundreds.
    assert report.in_step(fleet.killed()) >= 0.5, f"{report.in_step(fleet.killed())} of the kills fell inside a step; {told}"
