"""`python -m bench.flat [--store sqlite|pg|both] [--out FILE] [--small]`: `make flat`.

Whether what resources cost depends on how many there are: the booted product on stores of 10 to 100,000 agents, asked the same over
HTTP; CPU of its process and of the database, and what the database read. `tests` has to be on the path (`PYTHONPATH=tests`).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.asks import QUESTIONS, Client, Question
from bench.database import COUNTED_AFTER_S, Database, running_database
from bench.flatness import AT_REST, judged, text
from bench.worlds import World

#: The smallest size twice: how far the two are apart is the noise.
SIZES, SMALL_SIZES = (10, 10, 1_000, 10_000, 100_000), (10, 10, 1_000)
#: Requests of one reading of what is read, of one reading of CPU, and rounds of these.
COUNT, BURST, ROUNDS = 200, 15, 20
CPU = ("talon_ms", "database_ms")
#: How long it is watched what is read when nobody asks.
REST_S = 20.0
Readings = dict[str, dict[str, dict[str, Any]]]  # question -> world -> what was measured, for one request


def main() -> int:
    """-> the exit code: 0 if everything is flat."""
    parser = argparse.ArgumentParser(prog="python -m bench.flat", description="Does it matter how many resources there are?")
    parser.add_argument("--store", choices=("sqlite", "pg", "both"), default="both")
    parser.add_argument("--out", type=Path, help="the JSON file to write (default: a dated one under .bench/)")
    parser.add_argument("--small", action="store_true", help="up to 1,000 resources, one round: does everything work?")
    given = parser.parse_args()
    now = datetime.datetime.now(datetime.UTC)
    out: Path = given.out or machine.ROOT / ".bench" / f"flat-{now:%Y-%m-%d-%H%M}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(machine.ROOT)
    directory = Path(tempfile.mkdtemp(prefix="talon-flat-", dir=out.parent))
    document: dict[str, Any] = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": machine.commit(),
        "machine": machine.describe(directory),
        "requests_counted": COUNT,
        "requests_timed": BURST,
        "rounds": 1 if given.small else ROUNDS,
        "stores": {},
    }
    sizes = SMALL_SIZES if given.small else SIZES
    try:
        for store in ("sqlite", "pg") if given.store == "both" else (given.store,):
            with running_database() if store == "pg" else contextlib.nullcontext() as postgres:
                readings = _measured(directory / store, postgres, sizes, document["rounds"])
            document["stores"][store] = judged(readings)
    finally:
        shutil.rmtree(directory)
    document["machine"]["load_after"] = [round(value, 2) for value in os.getloadavg()]
    document["flat"] = all(store["flat"] for store in document["stores"].values())
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(text(document))
    return 0 if document["flat"] else 1


def _measured(directory: Path, postgres: Database | None, sizes: Sequence[int], rounds: int) -> Readings:
    worlds = [
        World(size, f"{size}" if sizes.index(size) == place else f"{size} again", directory / str(place), postgres)
        for place, size in enumerate(sizes)
    ]
    readings: Readings = {question.name: {} for question in QUESTIONS}
    try:
        for world in worlds:
            _say(f"filling {world.name}")
            world.make()
        _counted(worlds, readings)
        _timed(worlds, readings, rounds)
    finally:
        for world in worlds:
            world.stop()
    return readings


def _counted(worlds: Sequence[World], readings: Readings) -> None:
    """What is read for one request, less what is read meanwhile at rest. What comes first makes connections and plans."""
    clients = [world.start(counted=True) for world in worlds]
    _warm(worlds, clients)
    for question in QUESTIONS:
        for client in clients:
            _prepare(question, client)
    meter = Meter(worlds)
    _say("reads: at rest")
    seconds, found = meter.during(lambda: time.sleep(REST_S))
    rest = [{key: value / seconds for key, value in reads.items()} for reads in found]
    readings[AT_REST] = {world.name: idle for world, idle in zip(worlds, rest, strict=True)}
    for question in QUESTIONS:
        _say(f"reads: {question.name}")
        seconds, found = meter.during(functools.partial(_all, question, worlds, clients, COUNT))
        for world, reads, idle in zip(worlds, found, rest, strict=True):
            one = {key: (value - idle[key] * seconds) / COUNT for key, value in reads.items()}
            readings[question.name][world.name] = one
    for world, client in zip(worlds, clients, strict=True):
        client.close()
        world.stop()


class Meter:
    """Reads what was read, each time since the last. What the worlds did before it was made is left out."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self._worlds = worlds
        #: The time that a server takes to tell what it counted.
        self._wait_s = COUNTED_AFTER_S if worlds[0].postgres is not None else 0.0
        self._last: list[dict[str, int]] = []
        self._at_s = 0.0
        self._read()

    def during(self, work: Callable[[], None]) -> tuple[float, list[dict[str, int]]]:
        """Do `work`; -> (seconds, what each world read in them)."""
        before, began_s = self._last, self._at_s
        work()
        self._read()
        found = [{key: now[key] - was[key] for key in was} for was, now in zip(before, self._last, strict=True)]
        return self._at_s - began_s, found

    def _read(self) -> None:
        time.sleep(self._wait_s)
        self._last, self._at_s = [world.reads() for world in self._worlds], time.monotonic()


def _timed(worlds: Sequence[World], readings: Readings, rounds: int) -> None:
    """CPU milliseconds of one request, in rounds in each of which every store has its turn."""
    clients = [world.start() for world in worlds]
    _warm(worlds, clients)
    for number in range(rounds):
        _say(f"CPU: round {number + 1} of {rounds}")
        for question in QUESTIONS:
            for world, client in list(zip(worlds, clients, strict=True))[:: 1 - number % 2 * 2]:  # forth and back
                _prepare(question, client)
                before = world.cpu_ns()
                _burst(question, world, client, BURST)
                spent = [_spent(was, now) for was, now in zip(before, world.cpu_ns(), strict=True)]
                one = readings[question.name][world.name]
                for key, value in zip(CPU, spent, strict=False):
                    one.setdefault(key, []).append(value)
    for client in clients:
        client.close()


def _spent(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    return sum(value - before.get(pid, 0) for pid, value in after.items()) / BURST / 1e6


def _warm(worlds: Sequence[World], clients: Sequence[Client]) -> None:
    """Everything once, for connections and plans."""
    for question in QUESTIONS:
        for client in clients:
            _prepare(question, client)
        _all(question, worlds, clients, BURST)


def _all(question: Question, worlds: Sequence[World], clients: Sequence[Client], count: int) -> None:
    for world, client in zip(worlds, clients, strict=True):
        _burst(question, world, client, count)


def _burst(question: Question, world: World, client: Client, count: int) -> None:
    client.close()  # it may have been idle for longer than a server waits; the first request connects
    first = world.asked.get(question.name, 0)
    for number in range(first, first + count):
        question.ask(client, number)
    world.asked[question.name] = first + count


def _prepare(question: Question, client: Client) -> None:
    client.close()
    question.prepare(client)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
