"""Schedulers killed and stopped at random: each occurrence is fired once, none is lost, and none later than a take-over.

    PYTHONPATH=tests python -m soak.schedules --store pg --seconds 240

On PostgreSQL a gateway, three `talon scheduler` and two `talon worker`, and the database itself is restarted now and then; on
SQLite `talon up`, which is all of them. Everything is seen from outside, by the API: the history of every schedule against the
messages that its session got.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from soak.node import Node

HOLD_S = 2.0
#: What a busy machine may need beside the hold and a restart, before an occurrence fires.
SLACK_S = 15.0
CONFIG = """
providers: {fake: {kind: scripted, script: %s/script.yaml}}
session: {queue_max: 100000}
worker: {lease_ttl_s: 3, drain_timeout_s: 5}
control_plane: {scheduler: {hold_s: 2, in_workers: false}}
"""
AGENT = {
    "apiVersion": "talon.dev/v1alpha1",
    "kind": "Agent",
    "metadata": {"name": "woken"},
    "definition": {"systemPrompt": "hi", "modelPolicy": {"profiles": [{"name": "a", "model": {"provider": "fake", "name": "x"}}]}},
}


@dataclass
class Seen:
    """What came of a run. `lags_ms` are of all occurrences, in no order; `violations` are sentences."""

    fired: int = 0
    kills: int = 0
    stops: int = 0
    lags_ms: list[int] = field(default_factory=list[int])
    violations: list[str] = field(default_factory=list[str])

    def document(self) -> dict[str, Any]:
        """For a report."""
        lags = sorted(self.lags_ms) or [0]
        told = {f"lag_p{p}_ms": lags[min(len(lags) - 1, len(lags) * p // 100)] for p in (50, 99)}
        return {"fired": self.fired, "kills": self.kills, "stops": self.stops, **told, "lag_max_ms": lags[-1]} | {
            "violations": self.violations
        }


class World:
    """The processes of a run and a client of them."""

    def __init__(self, directory: Path, database_url: str, workers: int) -> None:
        (directory / "talon.yaml").write_text(CONFIG % directory)
        (directory / "script.yaml").write_text("default: {text: 'awake'}\n")
        env = {"DATABASE_URL": database_url} if database_url else {}
        here = ("--config", str(directory / "talon.yaml"), "--data-dir", str(directory / "data"))

        def node(role: str, name: str) -> Node:
            named = ("--name", name) if role == "worker" else ()
            return Node(name, ("-m", "talon", role, "--port", "{port}", *here, *named), directory, env)

        if database_url:
            self.gateway = node("gateway", "gateway")
            self.schedulers = [node("scheduler", f"scheduler{n}") for n in range(3)]
            self.workers = [node("worker", f"worker{n}") for n in range(workers)]
        else:
            self.gateway = node("up", "up")
            self.schedulers, self.workers = [self.gateway], []
        self.nodes = list({id(one): one for one in (self.gateway, *self.schedulers, *self.workers)}.values())

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request, repeated while the server restarts."""
        async with asyncio.timeout(120), aiohttp.ClientSession() as http:
            while True:
                try:
                    async with http.request(method, self.gateway.url + path, json=body) as answer:
                        if answer.status < 500:
                            text = await answer.text()
                            if answer.status >= 400:
                                raise AssertionError(f"{method} {path}: {answer.status} {text[:500]}")
                            return json.loads(text) if text else None
                except (aiohttp.ClientError, ConnectionError):
                    pass
                await asyncio.sleep(0.2)

    async def items(self, path: str) -> list[Any]:
        """All pages of a list."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = await self.call("GET", f"{path}?limit=500{'&cursor=' + cursor if cursor else ''}")
            found += page["items"]
            cursor = page["next_cursor"] or ""
            if not cursor:
                return found


def schedule(name: str, *, enabled: bool = True) -> dict[str, Any]:
    """One that fires every second."""
    target = {"agent": "woken", "sessionId": name}
    spec = {"kind": "every", "every": "1s", "target": target, "inputMessage": "It is {{ scheduled_at }}.", "historyLimit": 1000}
    return {
        "apiVersion": "talon.dev/v1alpha1",
        "kind": "Schedule",
        "metadata": {"name": name},
        "spec": {**spec, "enabled": enabled},
    }


async def run(
    directory: Path,
    database_url: str,
    *,
    seconds: float,
    schedules: int,
    rng: random.Random,
    workers: int = 0,
    restart_database: Callable[[], None] | None = None,
) -> Seen:
    """Fire for so long while schedulers are killed and stopped, then look at everything; at most 1000 occurrences a schedule."""
    seen, world = Seen(), World(directory, database_url, workers)
    names = [f"tick-{n}" for n in range(schedules)]
    async with AsyncExitStack() as stack:
        for node in world.nodes:
            stack.push_async_callback(_end, node)
        await world.gateway.start()
        await asyncio.gather(*(node.start() for node in world.nodes if node is not world.gateway))
        await world.call("POST", "/v1/apply", [AGENT, *(schedule(name) for name in names)])
        until = time.monotonic() + seconds
        hurting = [*world.schedulers, *world.workers]
        while time.monotonic() < until:
            await asyncio.sleep(0.5 + rng.random() * 2)
            node = rng.choice(hurting)
            if node.alive and rng.random() < 0.4 and node is not world.gateway:
                seen.stops += 1
                node.pause()
                await asyncio.sleep(HOLD_S * (0.5 + rng.random()))
                node.go_on()
            else:
                seen.kills += 1
                await node.kill()
                await node.start()
            if restart_database is not None and rng.random() < 0.05:
                await asyncio.to_thread(restart_database)
        await asyncio.sleep(HOLD_S + 1.5)
        await world.call("POST", "/v1/apply", [schedule(name, enabled=False) for name in names])
        for name in names:
            await _look(world, name, seen)
    return seen


async def _look(world: World, name: str, seen: Seen) -> None:
    """The history of a schedule has no gap and nothing twice, and is what its session was told."""
    records = await world.items(f"/v1/ns/default/schedules/{name}/history")
    entries = await world.items(f"/v1/ns/default/agents/woken/sessions/{name}/journal")
    told = [one["payload"]["metadata"]["scheduled_at"] for one in entries if one["type"] == "message.received"]
    times = sorted(round(datetime.fromisoformat(one["at"]).timestamp() * 1000) for one in records)
    status = (await world.call("GET", f"/v1/ns/default/schedules/{name}"))["status"]["schedule"]
    seen.fired += len(records)
    seen.lags_ms += [one["lag_ms"] for one in records]
    for wrong, what in (
        (len(told) != len(set(told)), "an occurrence was told twice"),
        (sorted(told) != sorted(one["local"] for one in records), "history and messages differ"),
        (any(one["outcome"] in ("missed", "skipped") for one in records), "an occurrence was not fired"),
        (any(later - earlier != 1000 for earlier, later in pairwise(times)), "there is a gap in the history"),
        (status["fired"] != len(records) < 1000, "the count is another"),
        (not records, "it never fired"),
    ):
        if wrong:
            seen.violations.append(f"{name}: {what}")


async def _end(node: Node) -> None:
    if node.alive:
        await node.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; -> 0 if nothing was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "pg"), default="pg")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--schedules", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    seed = options.seed or secrets.randbits(32)
    directory = Path(tempfile.mkdtemp(prefix="talon-schedules-"))
    try:
        from support.postgres import running_server

        with ExitStack() as stack:
            server = stack.enter_context(running_server()) if options.store == "pg" else None
            url = server.create_database() if server else ""
            seen = asyncio.run(
                run(
                    directory,
                    url,
                    seconds=options.seconds,
                    schedules=options.schedules,
                    rng=random.Random(seed),
                    workers=2,
                    restart_database=server.restart if server else None,
                )
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"seed": seed, "store": options.store, **seen.document()}, indent=2))
    return 1 if seen.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
