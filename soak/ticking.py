"""Processes that fire schedules, and what is seen of them from outside: histories, and what the sessions were told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

from soak.node import Node

HOLD_S, SWEEP_S = 2.0, 1.0
#: A schedule whose next occurrence was due no longer ago than this is up to date: it may fire every second.
BEHIND_MS = 2_000
CONFIG = """
providers: {fake: {kind: scripted, script: %s/script.yaml}}
session: {queue_max: 100000}
worker: {lease_ttl_s: 3, drain_timeout_s: 5, sweep_s: 1}
control_plane: {scheduler: {hold_s: 2, in_workers: false}}
"""
AGENT = {
    "apiVersion": "talon.dev/v1alpha1",
    "kind": "Agent",
    "metadata": {"name": "woken"},
    "definition": {"systemPrompt": "hi", "modelPolicy": {"profiles": [{"name": "a", "model": {"provider": "fake", "name": "x"}}]}},
}
ROUTE = "/v1/ns/default/schedules"


@dataclass(frozen=True)
class Tick:
    """A schedule with a session of its own name. `period_ms` lies between two of its occurrences; 0: it has one."""

    name: str
    times: Mapping[str, Any]
    period_ms: int
    policy: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def manifest(self, *, enabled: bool = True) -> dict[str, Any]:
        """As it is applied."""
        spec = {**self.times, **self.policy, "target": {"agent": "woken", "sessionId": self.name}, "enabled": enabled}
        spec |= {"inputMessage": "It is {{ scheduled_at }}.", "historyLimit": 1000}
        return {"apiVersion": "talon.dev/v1alpha1", "kind": "Schedule", "metadata": {"name": self.name}, "spec": spec}


@dataclass
class Seen:
    """What came of a run. `violations` are sentences."""

    fired: int = 0
    kills: int = 0
    violations: list[str] = field(default_factory=list[str])

    def judge(self, tick: Tick, *found: tuple[object, str]) -> None:
        """Each is whether something is wrong with it, and what."""
        self.violations += [f"{tick.name}: {what}" for wrong, what in found if wrong]


@dataclass(frozen=True)
class Record:
    """An occurrence of a history, or `count` that were missed, up to `last_ms`."""

    at_ms: int
    last_ms: int
    count: int
    decided_ms: int
    lag_ms: int
    local: str
    outcome: str


class World:
    """The processes of a run, started and ended by `async with`, and a client of them. `env` is given to all of them.

    On PostgreSQL a gateway, three `talon scheduler` and some `talon worker`; without a database `talon up`. `hurting`: whom it may
    hit; all but the gateway of the former.
    """

    def __init__(self, directory: Path, database_url: str, workers: int, env: Mapping[str, str] | None = None) -> None:
        (directory / "talon.yaml").write_text(CONFIG % directory)
        (directory / "script.yaml").write_text("default: {text: 'awake'}\n")
        given = {**(env or {}), **({"DATABASE_URL": database_url} if database_url else {})}
        here = ("--config", str(directory / "talon.yaml"), "--data-dir", str(directory / "data"))

        def node(role: str, name: str) -> Node:
            named = ("--name", name) if role == "worker" else ()
            return Node(name, ("-m", "talon", role, "--port", "{port}", *here, *named), directory, given)

        self.embedded = not database_url
        self.gateway = node("up", "up") if self.embedded else node("gateway", "gateway")
        others = [node("scheduler", f"scheduler{n}") for n in range(3)] + [node("worker", f"worker{n}") for n in range(workers)]
        self.hurting = [self.gateway] if self.embedded else others

    async def __aenter__(self) -> Self:
        try:
            await self.gateway.start()
            await asyncio.gather(*(node.start() for node in self.hurting if node is not self.gateway))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        for node in (self.gateway, *self.hurting):
            await node.kill()

    # --- acting --------------------------------------------------------------------------------------------------------------

    async def apply(self, ticks: Sequence[Tick], *, enabled: bool = True) -> None:
        """Apply the agent and these schedules."""
        await self.call("POST", "/v1/apply", [AGENT, *(tick.manifest(enabled=enabled) for tick in ticks)])

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

    # --- seeing --------------------------------------------------------------------------------------------------------------

    async def status(self, tick: Tick) -> dict[str, Any]:
        """Where a schedule stands."""
        return (await self.call("GET", f"{ROUTE}/{tick.name}"))["status"]["schedule"]

    async def ahead(self, ticks: Sequence[Tick], seconds: float, off_s: int = 0) -> list[str]:
        """Wait until these stand at what is to come, by clocks that are `off_s` off; -> those that do not after so long."""
        deadline = time.monotonic() + seconds
        while True:
            dues = {tick.name: (await self.status(tick))["dueAt"] for tick in ticks}
            now_ms = (time.time() + off_s) * 1000
            behind = [name for name, at in dues.items() if at is not None and unix_ms(at) < now_ms - BEHIND_MS]
            if not behind or time.monotonic() > deadline:
                return behind
            await asyncio.sleep(0.25)

    async def history(self, tick: Tick) -> list[Record]:
        """What became of its occurrences, oldest first."""
        found = [
            Record(
                unix_ms(one["at"]),
                unix_ms(one["last_at"]),
                one["count"],
                unix_ms(one["decided_at"]),
                one["lag_ms"],
                one["local"],
                one["outcome"],
            )
            for one in await self._items(f"{ROUTE}/{tick.name}/history")
        ]
        return sorted(found, key=lambda one: one.at_ms)

    async def told(self, tick: Tick) -> list[str]:
        """The occurrences whose messages its session got, as their zone shows them."""
        entries = await self._items(f"/v1/ns/default/agents/woken/sessions/{tick.name}/journal")
        return [one["payload"]["metadata"]["scheduled_at"] for one in entries if one["type"] == "message.received"]

    async def _items(self, path: str) -> list[Any]:
        found: list[Any] = []
        cursor = ""
        while True:
            page = await self.call("GET", f"{path}?limit=500{'&cursor=' + cursor if cursor else ''}")
            found += page["items"]
            cursor = page["next_cursor"] or ""
            if not cursor:
                return found


def unix_ms(rfc3339: str) -> int:
    """A time of the API."""
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1000)
