"""The processes of one run: counter and model server, and Talon as one process on SQLite or as several on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from soak.node import ROOT, Node

CONFIG = """
tools: {{modules: [soak.toolbox], path: [{root}]}}
providers:
  fake:
    kind: openai
    base_url: {model}/v1
    connect_timeout_s: 2
    first_token_timeout_s: 2
    idle_timeout_s: 2
    total_timeout_s: 20
gateway: {{heartbeat_s: 2}}
worker: {{lease_ttl_s: {lease_s}, concurrency: 64, drain_timeout_s: 10}}
"""
MANIFESTS = """
apiVersion: talon.dev/v1alpha1
kind: Namespace
metadata: {name: soak}
---
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: worker, namespace: soak}
definition:
  systemPrompt: Do what the message says.
  modelPolicy: {profiles: [{name: main, model: {provider: fake, name: fake-1}}]}
  mcpServerRefs: [toolbox]
"""


@dataclass
class Fleet:
    """`workers` run turns, `gateways` answer; embedded, one node is both."""

    directory: Path
    workers: list[Node]
    gateways: list[Node]
    counter: Node
    model: Node
    services: list[Node] = field(default_factory=list[Node])

    @property
    def nodes(self) -> list[Node]:
        """Every Talon process, once."""
        return list({id(node): node for node in (*self.gateways, *self.workers)}.values())

    @property
    def embedded(self) -> bool:
        return self.workers == self.gateways

    def urls(self) -> Sequence[str]:
        """Of gateways that are up, or of all when none is: a client then waits."""
        return [node.url for node in self.gateways if node.state == "up"] or [node.url for node in self.gateways]

    def killed(self) -> set[str]:
        """Workers (name/boot) that ended with a SIGKILL of ours."""
        return {boot for node in self.workers for boot in node.boots}

    async def apply(self) -> None:
        """The agent that everything runs on."""
        headers = {"Content-Type": "application/yaml"}
        url = f"{self.gateways[0].url}/v1/apply"
        async with aiohttp.ClientSession() as http, http.post(url, data=MANIFESTS, headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"apply: {answer.status} {await answer.text()}")


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    *,
    database_url: str = "",
    data_dir: Path | None = None,
    workers: int = 1,
    gateways: int = 1,
    lease_s: float = 5.0,
    launcher: Sequence[str] = ("-m", "talon"),
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Fleet]:
    """Everything started in `directory`, the agent applied; nothing runs after the block. Without `database_url`: embedded."""
    counter = Node("counter", ("-m", "soak.counter"), directory)
    model = Node("model", ("-m", "talon.providers.scripted", str(ROOT / "soak" / "model.py"), "--port", "0"), directory)
    started = [counter, model]
    try:
        await asyncio.gather(counter.start(), model.start())
        config = directory / "talon.yaml"
        model_url = model.url.removesuffix("/v1")
        config.write_text(CONFIG.format(root=ROOT, model=model_url, lease_s=lease_s))
        more = {"SOAK_COUNTER_URL": counter.url, **(env or {})}
        if database_url:
            more["DATABASE_URL"] = database_url

        def node(role: str, name: str, *words: str) -> Node:
            command = (*launcher, role, "--config", str(config), "--port", "{port}", *words)
            return Node(name, command, directory, more)

        if database_url:
            of_gateways = [node("gateway", f"g{number}") for number in range(1, gateways + 1)]
            of_workers = [node("worker", f"w{number}", "--name", f"w{number}") for number in range(1, workers + 1)]
        else:
            of_workers = [node("up", "up", "--name", "up", "--data-dir", str(data_dir or directory / "data"))]
            of_gateways = of_workers
        fleet = Fleet(directory, of_workers, of_gateways, counter, model)
        for one in fleet.nodes:
            started.append(one)
            await one.start()
        await fleet.apply()
        yield fleet
    finally:
        await asyncio.gather(*(one.kill() for one in started))
