"""Start and stop of the booted product: what stands in its way is said in a sentence, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from support.product import Api, Product
from support.stage import Stage, call, gate_of, say, set_stage, talon
from support.waiting import BOUND_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def processes(word: str) -> list[int]:
    """The living processes that have `word` in their command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in words:
                found.append(int(entry.name))
    return found


class Lives:
    """One `talon up` after another on the same data. Each test ends a life; the next one begins where it is needed."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._stack = contextlib.AsyncExitStack()

    async def begin(self) -> Product:
        """Boot the next one, if none lives; -> the one that lives."""
        stage = self.stage
        if not stage.gateways:
            up = await self._stack.enter_async_context(stage.product())
            stage.gateways, stage.workers = [up], [up]
            stage.apis = [await self._stack.enter_async_context(Api(up.url))]
        return stage.gateways[0]

    async def end(self, number: signal.Signals) -> int:
        """Send a signal -> the exit code."""
        up = self.stage.gateways[0]
        assert up.process is not None
        up.process.send_signal(number)
        code = await asyncio.wait_for(up.process.wait(), BOUND_S)
        assert "Traceback" not in up.log
        await self._stack.aclose()
        self.stage.gateways = []
        return code


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lives(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Lives]:
    """A data directory, and whoever lives on it: a drain lasts a second at most."""
    worker = {"sweep_s": 0.25, "drain_timeout_s": 1, "cancel_grace_s": 0.5}
    async with set_stage(tmp_path_factory.mktemp("lives"), worker=worker) as stage:
        lives = Lives(stage)
        await lives.begin()
        await stage.agent()
        yield lives
        if stage.gateways:
            await lives.end(signal.SIGKILL)


# --- what stands in the way ---------------------------------------------------------------------------------------------------


async def test_what_keeps_it_from_starting_is_said_in_a_sentence(lives: Lives, tmp_path: Path) -> None:
    up, stage = await lives.begin(), lives.stage
    data = str(stage.directory / "talon-data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
            (("up", "--port", port, "--data-dir", "free"), 1, (port, "--port")),
            (
                ("up", "--port", "0", "--data-dir", data),
                1,
                (f"process {up.pid} ", data, "[database_unavailable]"),
            ),
            (("gateway", "--port", "0"), 2, ("PostgreSQL", "talon up")),
            (("up", "--port", "0", "--set", "worker.colour=red"), 2, ("worker.colour",)),
            (("up", "--port", "0", "--data-dir", "other", "--set", "tools.modules=nothing_here"), 2, ("nothing_here",)),
            (("up", "--port", "0", "--data-dir", "/proc/talon"), 2, ("/proc/talon", "--data-dir")),
        ]
        ran = await asyncio.gather(*(talon(*words, cwd=tmp_path) for words, _, _ in cases))
    for (words, expected, told), (code, out, errors) in zip(cases, ran, strict=True):
        assert (code, out) == (expected, ""), (words, code, errors)
        assert all(word in errors for word in told), (words, errors)
        assert "Traceback" not in errors, errors
    where = stage.session()
    assert (await stage.run(where, "still here"))["type"] == "turn.completed"


# --- leaving ------------------------------------------------------------------------------------------------------------------


async def test_ctrl_c_leaves_no_process_and_no_lock_behind_and_standard_output_says_where_it_listens(lives: Lives) -> None:
    up, stage = await lives.begin(), lives.stage
    where = stage.session()
    assert (await stage.run(where, f"{where} hello", call("look"), say("done")))["type"] == "turn.completed"
    assert processes(str(stage.directory)) == [up.pid], "it needs no other process"
    assert await lives.end(signal.SIGINT) == 0
    assert processes(str(stage.directory)) == []
    assert up.process is not None
    assert up.process.stdout is not None
    told = (await up.process.stdout.read()).decode()
    assert re.fullmatch(r"(talon grpc 127\.0\.0\.1:\d+\n)?", told), "the ready line was read before"
    await lives.begin()
    assert (await stage.run(where, f"{where} again"))["type"] == "turn.completed"


async def test_a_drain_lets_a_running_tool_finish_and_the_next_process_goes_on(lives: Lives) -> None:
    up, stage = await lives.begin(), lives.stage
    where = stage.session()
    turn = await stage.turn(where, f"{where} pay", call("pay", amount=1, gate="slow"), say("paid"))
    await stage.began(where, "pay")
    drains = up.log.count("drains 1 turns") + 1
    leaving = asyncio.create_task(lives.end(signal.SIGTERM))
    await until(lambda: up.log.count("drains 1 turns") == drains)
    stage.open("slow")
    assert await leaving == 0
    await lives.begin()
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert [line["event"] for line in stage.effects(where, "pay")] == ["began", "ended"], "an unsafe tool ran once"
    resumed = [entry["payload"] for entry in await stage.api.journal(where) if entry["type"] == "turn.resumed"]
    assert [one.get("attempt", 1) for one in resumed] == [1], "a drain is no attempt"


async def test_a_drain_ends_in_its_time_whatever_runs_and_the_turns_go_on_later(lives: Lives) -> None:
    await lives.begin()
    stage = lives.stage
    read, unsafe = stage.session(), stage.session()
    looking = await stage.turn(read, f"{read} look", call("look", what="x", gate="later"), say("seen"))
    paying = await stage.turn(unsafe, f"{unsafe} pay", call("pay", amount=1, gate="never"), say("paid"))
    await stage.began(read, "look")
    await stage.began(unsafe, "pay")
    began = time.monotonic()
    assert await lives.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    stage.open("later")
    await lives.begin()
    assert (await stage.done(read, looking))["type"] == "turn.completed"
    waiting = await stage.entry(unsafe, "turn.waiting", paying)
    assert waiting["payload"]["kind"] == "approval"
    assert len(stage.effects(unsafe, "pay", "began")) == 1, "an unsafe call is never repeated unseen"


async def test_a_second_signal_does_not_wait(lives: Lives) -> None:
    up, stage = await lives.begin(), lives.stage
    where = stage.session()
    turn = await stage.turn(where, f"{where} look", call("look", what="x", gate="much later"), say("seen"))
    await stage.began(where, "look")
    drains = up.log.count("drains 1 turns") + 1
    os.kill(up.pid, signal.SIGTERM)
    await until(lambda: up.log.count("drains 1 turns") == drains)
    assert await lives.end(signal.SIGTERM) == -signal.SIGTERM
    stage.open("much later")
    await lives.begin()
    assert (await stage.done(where, turn))["type"] == "turn.completed"


async def test_a_worker_that_is_told_to_stop_gives_its_turns_to_the_other_one(spread: Stage) -> None:
    """A third worker takes part, gets a turn, and leaves; the turn goes on elsewhere at once, long before any lease ends."""
    leaving = await spread.product("worker", "leaving", "--worker-drain-timeout-s", "0.2").start()
    where, turn = "", ""
    for _ in range(60):
        where = spread.session()
        turn = await spread.turn(where, f"{where} look", call("look", what="x", gate=gate_of(where)), say("seen"))
        started = await spread.entry(where, "tool.started", turn)
        claimed = next(entry for entry in await spread.api.journal(where) if entry["type"] == "turn.started")
        if claimed["payload"]["worker"].startswith("leaving/"):
            assert started
            break
        await spread.api.call("DELETE", f"/v1/ns/default/agents/helper/sessions/{where.rpartition('/')[2]}", expect=204)
    else:
        pytest.fail("the third worker got no turn")
    assert await leaving.stop() == 0
    began = time.monotonic()
    await spread.began(where, "look", times=2)
    assert time.monotonic() - began < 5
    spread.open(gate_of(where))
    assert (await spread.done(where, turn))["type"] == "turn.completed"
    resumed = [entry["payload"] for entry in await spread.api.journal(where) if entry["type"] == "turn.resumed"]
    assert [one["why"] for one in resumed] == ["takeover"]
