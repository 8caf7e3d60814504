"""CPU of a turn with and without access control, as a ratio: `python -m bench.access [--turns N] [--rounds N] [--out FILE]`.

Two booted `talon up` on SQLite, one that asks nobody (`none`) and one that asks for API keys and keeps its access log, are alive
all the while and get the same turns: a message to a session of its own, whose stream is read to the turn's end. Each round asks
them in the order none, api_key, api_key, none (the next the other way round), so that a machine that becomes busier or slower
meanwhile is so for both. What counts is the median over the rounds of the ratio of the two processes' CPU; the quartiles say how
sure it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import aiohttp

from bench import machine
from bench.node import Node
from bench.stats import median, percentile
from bench.subjects import AGENT, CONFIG, MESSAGE

RATIO_MAX = 1.1
AT_ONCE = 8
KEY = f"talon_bench_{'k' * 48}"
#: The key's own limit is not what is measured.
ASKING = {
    "TALON_GATEWAY_AUTH_MODE": "api_key",
    "TALON_GATEWAY_AUTH_BOOTSTRAP_KEY": KEY,
    "TALON_GATEWAY_PRINCIPAL_REQUESTS_PER_S": "0",
}


def main() -> int:
    """Prints the result as JSON; -> 1 if the ratio is above the target."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description=__doc__)
    parser.add_argument("--turns", type=int, default=400, help="turns of one side in one round")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="talon-access-"))
    try:
        result: dict[str, Any] = {
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "commit": machine.commit(),
            "machine": machine.describe(directory),
            **_measured(directory, given.turns, given.rounds),
        }
    finally:
        shutil.rmtree(directory)
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return 0 if result["ratio"] <= RATIO_MAX else 1


def _measured(directory: Path, turns: int, rounds: int) -> dict[str, Any]:
    with _running(directory) as nodes:
        clients = {name: Client(node.url, KEY if name == "api_key" else "") for name, node in nodes.items()}
        for client in clients.values():
            asyncio.run(client.begin())
        found: list[dict[str, float]] = []
        for number in range(rounds + 1):
            spent = dict.fromkeys(nodes, 0.0)
            there = (*nodes,) if number % 2 else (*reversed(nodes),)
            for half, name in enumerate((*there, *reversed(there))):
                before = machine.cpu_s(nodes[name].pid)
                asyncio.run(clients[name].turns(f"r{number}-{half}", turns // 2))
                spent[name] += (machine.cpu_s(nodes[name].pid) - before) * 1000 / (turns // 2 * 2)
            if number:  # the first warms both up
                found.append(spent)
                print(f"round {number}: {spent}", file=sys.stderr, flush=True)
    ratios = [spent["api_key"] / spent["none"] for spent in found]
    cpu = {name: round(median([spent[name] for spent in found]), 3) for name in found[0]}
    return {
        "turns": turns,
        "rounds": rounds,
        "cpu_ms_per_turn": cpu,
        "ratios": [round(one, 3) for one in ratios],
        "quartiles": [round(percentile(ratios, share), 3) for share in (0.25, 0.75)],
        "ratio": round(median(ratios), 3),
        "target": RATIO_MAX,
    }


@contextlib.contextmanager
def _running(directory: Path) -> Generator[dict[str, Node]]:
    with contextlib.ExitStack() as stack:
        model = Node("model", [sys.executable, "-m", "bench.model"], directory, {"PYTHONPATH": str(machine.ROOT)})
        stack.callback(model.stop)
        nodes: dict[str, Node] = {}
        for name, env in (("none", {}), ("api_key", ASKING)):
            here = directory / name
            here.mkdir()
            (here / "talon.yaml").write_text(CONFIG.format(root=machine.ROOT, model=model.url))
            command = [sys.executable, "-m", "talon", "up", "--port", "0", "--data-dir", "data"]
            nodes[name] = Node(name, command, here, {"PYTHONPATH": str(machine.ROOT), **env})
            stack.callback(nodes[name].stop)
        yield nodes


class Client:
    """Posts messages, and reads each one's stream to the end."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def begin(self) -> None:
        """The agent that is asked."""
        manifest = AGENT.format(name="chat", model="none/0/0").encode()
        headers = {**self._headers, "Content-Type": "application/yaml"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self._url}/v1/apply", data=manifest, headers=headers) as answer,
        ):
            if answer.status != 200:
                raise RuntimeError(await answer.text())

    async def turns(self, tag: str, count: int) -> None:
        """So many turns, `AT_ONCE` at a time."""
        numbers = iter(range(count))
        async with aiohttp.ClientSession(headers={**self._headers, "Accept": "text/event-stream"}) as http:
            await asyncio.gather(*(self._worker(http, tag, numbers) for _ in range(AT_ONCE)))

    async def _worker(self, http: aiohttp.ClientSession, tag: str, numbers: Any) -> None:
        for number in numbers:
            path = f"/v1/ns/default/agents/chat/sessions/{tag}-{number}/message?create=true"
            async with http.post(self._url + path, json={"content": MESSAGE}) as answer:
                text = await answer.text()
                if "turn.completed" not in text:
                    raise RuntimeError(f"{answer.status} {text[-500:]}")


if __name__ == "__main__":
    sys.exit(main())
