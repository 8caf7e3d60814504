"""Who goes on when a process is gone, and how soon (K2, K8): measured by the times that the journal gives its entries."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from soak.client import Client, session_path
from soak.fleet import Fleet, running
from soak.node import Node, NotStarted
from soak.plans import Call, Plan
from soak.report import Report
from support.waiting import until

LEASE_S = 5.0
#: What a machine that is busy with other tests may add to a promised time.
SLACK_S = 1.0
WAIT_S = 60.0
SLOW = Plan("slow", ((Call("idempotent", 0, 3_000),), (Call("idempotent", 0, 0),)))
STEADY = Plan("steady", tuple((Call("idempotent", 100, 100),) for _ in range(9)))
Entry = Mapping[str, Any]


@dataclass
class Stage:
    """A fleet with one session of one turn under way."""

    fleet: Fleet
    client: Client
    turn_id: str

    async def journal(self) -> list[dict[str, Any]]:
        return await self.client.pages(f"{session_path('one')}/journal")

    async def until(self, there: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The journal, once it is as wanted."""
        async with asyncio.timeout(WAIT_S):
            while True:
                entries = await self.journal()
                if there(entries):
                    return entries
                await asyncio.sleep(0.02)

    async def holder(self) -> Node:
        """The process whose worker has a tool call under way."""
        entries = await self.until(lambda entries: types(entries)[-1:] == ["tool.started"])
        name = starts(entries)[-1]["payload"]["worker"].partition("/")[0]
        return next(node for node in self.fleet.workers if node.name == name)

    async def effects(self) -> list[dict[str, Any]]:
        async with Client(lambda: [self.fleet.counter.url], random.Random(0), Report()) as counter:
            return (await counter.get("/keys?session=one"))["keys"]


@asynccontextmanager
async def stage(directory: Path, plan: Plan, database_url: str = "") -> AsyncGenerator[Stage]:
    """On PostgreSQL with two workers, else embedded."""
    async with (
        running(directory, database_url=database_url, workers=2 if database_url else 1, lease_s=LEASE_S) as fleet,
        Client(fleet.urls, random.Random(0), Report()) as client,
    ):
        path = f"{session_path('one')}/message?create=true"
        _, receipt = await client.call("POST", path, {"content": plan.content()}, key="first")
        yield Stage(fleet, client, receipt["turn_id"])


def types(entries: Sequence[Entry]) -> list[str]:
    return [entry["type"] for entry in entries]


def starts(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["type"] in ("turn.started", "turn.resumed")]


def is_resumed(entries: Sequence[Entry]) -> bool:
    return "turn.resumed" in types(entries)


def is_over(entries: Sequence[Entry]) -> bool:
    return types(entries)[-1:] == ["turn.completed"]


def at_s(entry: Entry) -> float:
    """Unix time of an entry."""
    return datetime.fromisoformat(entry["at"]).timestamp()


async def test_an_embedded_process_that_starts_again_goes_on_within_a_second_of_being_ready(tmp_path: Path) -> None:
    async with stage(tmp_path, SLOW) as here:
        node = await here.holder()
        await node.kill()
        ready_s = await node.start()
        resumed = starts(await here.until(is_resumed))[-1]
        assert at_s(resumed) - ready_s <= 1.0
        await here.until(is_over)
        assert [key["happened"] for key in await here.effects()] == [1, 1]


async def test_another_worker_goes_on_within_the_lease_and_a_second(tmp_path: Path, database_url: str) -> None:
    async with stage(tmp_path, SLOW, database_url) as here:
        node = await here.holder()
        killed_s = time.time()
        await node.kill()
        resumed = starts(await here.until(is_resumed))[-1]
        assert not resumed["payload"]["worker"].startswith(f"{node.name}/")
        assert at_s(resumed) - killed_s <= LEASE_S + 1.0 + SLACK_S
        await here.until(is_over)
        assert [key["happened"] for key in await here.effects()] == [1, 1]


async def test_a_worker_that_starts_again_under_its_name_goes_on_at_once(tmp_path: Path, database_url: str) -> None:
    async with stage(tmp_path, SLOW, database_url) as here:
        node = await here.holder()
        await node.kill()
        ready_s = await node.start()
        resumed = starts(await here.until(is_resumed))[-1]
        assert at_s(resumed) - ready_s <= 1.0
        await here.until(is_over)


async def test_after_sigterm_another_worker_goes_on_within_a_second_of_the_step_that_was_under_way(
    tmp_path: Path, database_url: str
) -> None:
    async with stage(tmp_path, STEADY, database_url) as here:
        node = await here.holder()
        asked_s = time.time()
        assert await node.stop() == 0
        entries = await here.until(is_resumed)
        resumed = starts(entries)[-1]
        last = entries[entries.index(resumed) - 1]
        assert not resumed["payload"]["worker"].startswith(f"{node.name}/")
        assert at_s(resumed) - max(asked_s, at_s(last)) <= 1.0
        assert at_s(resumed) - asked_s <= 1.0 + 0.4 + SLACK_S
        assert resumed["payload"].get("attempt", 1) == 1, "a drain is no attempt (K13)"
        final = await here.until(is_over)
        assert types(final).count("tool.started") == 9, "a drain repeats nothing"
        assert [key["attempts"] for key in await here.effects()] == [[1]] * 9


async def test_a_worker_that_slept_beyond_its_lease_is_fenced_out_and_begins_anew(tmp_path: Path, database_url: str) -> None:
    async with stage(tmp_path, SLOW, database_url) as here:
        node = await here.holder()
        node.pause()
        final = await here.until(is_over)
        node.go_on()
        await until(lambda: len(node.current_boots()) == 3, WAIT_S)  # its first life, the loss of its lease, its second life
        first, _, second = node.current_boots()
        assert first != second
        assert await here.journal() == final, "it has written after it was fenced out"
        assert [key["happened"] for key in await here.effects()] == [1, 1]
        other = next(worker for worker in here.fleet.workers if worker is not node)
        assert await other.stop() == 0
        await here.client.call("POST", f"{session_path('one')}/message", {"content": Plan("again", ()).content()}, key="second")
        entries = await here.until(lambda entries: types(entries).count("turn.completed") == 2)
        assert starts(entries)[-1]["payload"]["worker"] == second


async def test_a_second_process_on_the_data_directory_is_refused_while_the_first_one_is_there(tmp_path: Path) -> None:
    async with stage(tmp_path, SLOW) as here:
        node = await here.holder()
        rival = Node("rival", node.command, node.directory, node.env)
        node.pause()
        with pytest.raises(NotStarted, match="did not start"):
            await rival.start()
        assert f"process {node.pid} already runs" in rival.tail()
        await node.kill()
        await rival.start()
        await asyncio.wait_for(_over(rival), WAIT_S)
        await rival.kill()


async def _over(node: Node) -> None:
    async with Client(lambda: [node.url], random.Random(0), Report()) as client:
        while True:
            if is_over(await client.pages(f"{session_path('one')}/journal")):
                return
            await asyncio.sleep(0.05)
