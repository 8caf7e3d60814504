"""Providers that are killed, hang or throttle under many running turns, while workers are killed at random: every turn ends, on the
next candidate, with what happened in its journal.

    PYTHONPATH=tests python -m soak.outage --store pg        (`make outage`)

Three providers, each a process of its own, answer a third of the turns each. When all turns are in the middle of an answer, the
first process is killed, the second stopped, and the third answers with 429 from then on. All is seen from outside, by the API.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench import machine
from bench.stats import percentile
from soak.client import Client
from soak.node import Node
from soak.report import Report
from support.program import tell

#: What goes wrong with a provider -> the classes of error that journals may tell of it.
OUTAGES = {"killed": {"connection"}, "hung": {"timeout"}, "throttled": {"rate_limit"}}
PROVIDERS = (*OUTAGES, "good")
#: A provider that says nothing for so long hangs; a busy machine must not look like it.
IDLE_S = 3.0
LEASE_S = 3.0
#: The least time between two kills; the most is four times as long.
KILL_S = 1.5
#: All turns are running by then, and later all have ended: bounds for a busy machine.
RUNNING_S, ENDED_S = 120.0, 240.0
ENDS = ("turn.completed", "turn.failed", "turn.cancelled", "turn.denied")


@dataclass
class Seen:
    """What came of a run. `errors`: outage -> class -> how many failed calls; `ended_s`: from the outage to the end of each turn;
    `violations` are sentences."""

    turns: int = 0
    running: int = 0
    kills: int = 0
    lost: int = 0
    resets: Counter[str] = field(default_factory=Counter[str])
    errors: dict[str, Counter[str]] = field(default_factory=lambda: {outage: Counter[str]() for outage in OUTAGES})
    ended_s: list[float] = field(default_factory=list[float])
    violations: list[str] = field(default_factory=list[str])

    def document(self) -> dict[str, Any]:
        """For a report."""
        times = self.ended_s or [0.0]
        return {
            "turns": self.turns,
            "in_the_middle_of_an_answer_when_it_began": self.running,
            "workers_killed": self.kills,
            "calls_lost_with_their_worker": self.lost,
            "failed_calls": {outage: dict(counted) for outage, counted in self.errors.items()},
            "answers_dropped_in_the_middle": dict(self.resets),
            "ended_after_s": {f"p{p}": round(percentile(times, p / 100), 1) for p in (50, 99, 100)},
            "violations": self.violations,
        }


class World:
    """The processes of a run: four providers; `talon up` on SQLite, a gateway and workers on PostgreSQL."""

    def __init__(self, directory: Path, database_url: str, workers: int, pace_ms: int) -> None:
        self.directory = directory
        self.models = {name: self._model(name, pace_ms if name != "good" else pace_ms // 4) for name in PROVIDERS}
        env = {"DATABASE_URL": database_url} if database_url else {}
        here = ("--config", str(directory / "talon.yaml"), "--data-dir", str(directory / "data"))

        def node(role: str, name: str) -> Node:
            return Node(name, ("-m", "talon", role, "--port", "{port}", *here, "--name", name), directory, env)

        if database_url:
            self.gateway = node("gateway", "gateway")
            self.workers = [node("worker", f"worker{number}") for number in range(workers)]
        else:
            self.gateway = node("up", "up")
            self.workers = [self.gateway]
        self.nodes = list({id(one): one for one in (self.gateway, *self.workers)}.values())

    def _model(self, name: str, pace_ms: int) -> Node:
        script = str(Path(__file__).with_name("outage_model.py"))
        env = {"THROTTLED": str(self.directory / f"{name}.is-throttled"), "PACE_MS": str(pace_ms)}
        return Node(name, ("-m", "talon.providers.scripted", script, "--port", "{port}"), self.directory, env)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start all; at the end nothing is left."""
        try:
            await asyncio.gather(*(model.start() for model in self.models.values()))
            config = {
                "providers": {
                    name: {"kind": "openai", "base_url": model.url, "api_key": "sk-fake", "idle_timeout_s": IDLE_S}
                    | {"first_token_timeout_s": IDLE_S, "connect_timeout_s": 2 * IDLE_S}
                    for name, model in self.models.items()
                },
                "gateway": {"grpc": False},
                "worker": {"lease_ttl_s": LEASE_S, "sweep_s": 0.25},
            }
            (self.directory / "talon.yaml").write_text(yaml.safe_dump(config))
            await self.gateway.start()
            await asyncio.gather(*(node.start() for node in self.nodes if node is not self.gateway))
            yield
        finally:
            for node in (*self.nodes, *self.models.values()):
                if node.alive:
                    await node.kill()

    async def answering(self) -> int:
        """How many answers the providers that will fail are in the middle of."""
        found = 0
        async with aiohttp.ClientSession() as http:
            for name in OUTAGES:
                async with http.get(self.models[name].url.removesuffix("/v1") + "/requests") as answer:
                    found += sum(one["ended"] == "open" for one in (await answer.json())["items"])
        return found

    async def hurt(self) -> None:
        """The outages begin."""
        await self.models["killed"].kill()
        self.models["hung"].pause()
        (self.directory / "throttled.is-throttled").touch()

    async def kill_one(self, rng: random.Random) -> None:
        """SIGKILL one that runs turns, and start it again."""
        worker = rng.choice(self.workers)
        await worker.kill()
        await worker.start()


def agents() -> list[dict[str, Any]]:
    """One for each outage, whose second candidate is good."""
    return [
        {
            "apiVersion": "talon.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": outage},
            "definition": {
                "systemPrompt": "hi",
                "modelPolicy": {
                    "profiles": [{"name": name, "model": {"provider": name, "name": "m"}} for name in (outage, "good")],
                },
                "capabilities": {"allowed_tools": ["current_time"]},
            },
        }
        for outage in OUTAGES
    ]


def session(outage: str, number: int) -> str:
    """The route of a turn's session."""
    return f"/v1/ns/default/agents/{outage}/sessions/s{number}"


async def run(
    directory: Path,
    database_url: str,
    *,
    turns: int,
    kills: int,
    rng: random.Random,
    workers: int = 2,
    pace_ms: int = 50,
) -> Seen:
    """`turns` turns, a third of them for each outage, and `kills` workers killed once it has begun; then look at every journal."""
    seen, report = Seen(turns), Report()
    world = World(directory, database_url, workers, pace_ms)
    places = [(tuple(OUTAGES)[number % len(OUTAGES)], number) for number in range(turns)]
    async with world.running(), Client(lambda: [world.gateway.url], rng, report) as client:
        await _must(client, "POST", "/v1/apply", agents())
        sent = await asyncio.gather(*(_send(client, *place) for place in places))
        try:
            async with asyncio.timeout(RUNNING_S):
                while seen.running < turns:
                    await asyncio.sleep(0.1)
                    seen.running = await world.answering()
        except TimeoutError:
            seen.violations.append(f"{seen.running} turns were running, not {turns}")
        await world.hurt()
        began_s = time.monotonic()
        ended = [
            asyncio.create_task(_ended(client, outage, number, turn, began_s))
            for (outage, number), turn in zip(places, sent, strict=True)
        ]
        for _ in range(kills):
            await asyncio.sleep(KILL_S * (1 + 3 * rng.random()))
            await world.kill_one(rng)
            seen.kills += 1
        for (outage, number), turn_s in zip(places, await asyncio.gather(*ended), strict=True):
            if turn_s is None:
                seen.violations.append(f"{outage}/s{number}: its turn has not ended within {ENDED_S} s")
            else:
                seen.ended_s.append(turn_s)
                _look(f"{outage}/s{number}", outage, await client.pages(f"{session(outage, number)}/journal"), seen)
        # A vendor that asks for five minutes is left alone by all workers, whoever was told.
        explained = await client.get("/v1/ns/default/agents/throttled/models")
        if not any("throttled is passed over now" in rule for rule in explained["rules"]):
            seen.violations.append(f"the throttled provider is not left alone: {explained['rules']}")
        seen.violations += [f"{node.name}: a traceback in its log" for node in world.nodes if "Traceback" in node.tail(10_000_000)]
    return seen


async def _must(client: Client, method: str, path: str, body: Any, key: str = "") -> Any:
    status, answer = await client.call(method, path, body, key=key)
    if status >= 400:
        raise AssertionError(f"{method} {path}: {status} {answer}")
    return answer


async def _send(client: Client, outage: str, number: int) -> str:
    path = f"{session(outage, number)}/message?create=true"
    receipt = await _must(client, "POST", path, {"content": "hello"}, key=f"{outage}-{number}")
    return str(receipt["turn_id"])


async def _ended(client: Client, outage: str, number: int, turn: str, began_s: float) -> float | None:
    """Seconds until the turn has ended; None if it has not."""
    while time.monotonic() - began_s < ENDED_S:
        row = await client.get(f"{session(outage, number)}/turns/{turn}")
        if row["state"] in ("completed", "failed", "cancelled", "denied"):
            return time.monotonic() - began_s
        await asyncio.sleep(0.5)
    return None


def _look(where: str, outage: str, journal: Sequence[dict[str, Any]], seen: Seen) -> None:
    """What every journal must say."""
    ends = [entry["type"] for entry in journal if entry["type"] in ENDS]
    of: dict[str, list[dict[str, Any]]] = {}
    for entry in journal:
        of.setdefault(entry["type"], []).append(entry["payload"])
    started, finished = of.get("model.started", []), of.get("model.finished", [])
    failed, resets = of.get("model.failed", []), of.get("stream.reset", [])
    lost = [one for one in resets if one["reason"] == "worker_lost"]
    seen.lost += len(lost)
    seen.resets.update(one["reason"] for one in resets)
    seen.errors[outage].update(one["error"] for one in failed)
    attempts = [*finished, *failed, *lost]
    # Whose first answer came whole may find the circuit open for the second, and need not be refused itself.
    found_open = outage == "throttled" and len(finished) == len(started) and started[0]["provider"] == outage
    end = of.get("turn.completed", [{}])[0].get("usage", {})
    counted = {name: sum(one.get("usage", {}).get(name, 0) for one in attempts) for name in ("input_tokens", "output_tokens")}
    answer = next((one["content"] for one in of.get("message.completed", [])), "")
    for wrong, what in (
        (ends != ["turn.completed"], f"its ends are {ends}"),
        (not started or started[-1]["provider"] != "good", "the last call was not made to the next candidate"),
        (len(finished) != 2, f"{len(finished)} answers, not the call of the tool and the story"),
        (len(started) != len(attempts), f"{len(started)} calls have {len(attempts)} outcomes"),
        (not failed and not lost and not found_open, "nothing tells of an outage"),
        (not {one["error"] for one in failed} <= OUTAGES[outage], f"errors of another kind: {[one['error'] for one in failed]}"),
        (any(end.get(name, 0) != value for name, value in counted.items()), f"its usage is {end}, of its calls {counted}"),
        (not answer.startswith("once upon a time") or not answer.endswith("a call "), f"its answer is {answer!r}"),
    ):
        if wrong:
            seen.violations.append(f"{where}: {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; -> 0 if nothing was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "pg"), default="pg")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--kills", type=int, default=0, help="0: ten on PostgreSQL; two on SQLite, where each hits every turn")
    parser.add_argument("--workers", type=int, default=3, help="on PostgreSQL")
    parser.add_argument("--pace-ms", type=int, default=300, help="between two words of a provider that will fail")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is in the result")
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    seed = options.seed or secrets.randbits(32)
    directory = Path(tempfile.mkdtemp(prefix="talon-outage-"))
    head = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": machine.commit(),
        "machine": machine.describe(directory),
        "store": options.store,
        "seed": seed,
    }
    try:
        from support.postgres import running_server

        with ExitStack() as stack:
            server = stack.enter_context(running_server()) if options.store == "pg" else None
            kills = options.kills or (10 if server else 2)
            sizes = {"turns": options.turns, "kills": kills, "workers": options.workers, "pace_ms": options.pace_ms}
            url = server.create_database() if server else ""
            seen = asyncio.run(run(directory, url, rng=random.Random(seed), **sizes))
    finally:
        if "TALON_KEEP" not in os.environ:
            shutil.rmtree(directory, ignore_errors=True)
    tell({**head, **seen.document()}, options.out)
    print("FAILED" if seen.violations else "PASSED", file=sys.stderr)
    return 1 if seen.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
