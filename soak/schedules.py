"""Schedulers killed and stopped at random: each occurrence is fired once, none is lost, and none later than a take-over.

    PYTHONPATH=tests python -m soak.schedules --store pg --seconds 240

On PostgreSQL a gateway, three `talon scheduler` and two `talon worker`, and the database itself is restarted and killed; on SQLite
`talon up`, which is all of them. Everything is seen from outside, by the API: the history of every schedule against the messages
that its session got, and what became of their turns.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from soak.node import Node
from soak.run import machine
from soak.ticking import HOLD_S, SWEEP_S, Record, Seen, Tick, World
from support.postgres import PostgresServer, running_server
from support.program import tell

#: What a busy machine may need beside the hold and the look of who takes over.
SLACK_S = 5.0
#: No occurrence is fired later than this, but for the time in which nobody could: no scheduler ran, or the database was away.
TAKEOVER_S = HOLD_S + SWEEP_S + SLACK_S
#: So many processes are hit at a time, each after a pause of about so long, and so many of them are stopped instead of killed. The
#: one process of SQLite has to get on between two hits: a turn that is killed five times without progress fails as it should.
AT_ONCE, PAUSE_S, ALONE_PAUSE_S, STOPS = 2, 0.5, 3.0, 0.25
#: How long the turns that were woken may take to their end, once nothing is hurt any more.
TURNS_S = 180.0


@dataclass
class Hurt(Seen):
    """What came of being hurt. Lags are of all occurrences, in no order: `late_ms` without the outages."""

    stops: int = 0
    restarts: int = 0
    lags_ms: list[int] = field(default_factory=list[int])
    late_ms: list[int] = field(default_factory=list[int])
    outages: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    @contextmanager
    def outage(self) -> Generator[None]:
        """Nobody can fire anything in the block."""
        began = time.time()
        try:
            yield
        finally:
            self.outages.append((began, time.time()))

    def out_ms(self, since_ms: int, until_ms: int) -> int:
        """How much of that time was an outage."""
        shared = (min(until_ms, end * 1000) - max(since_ms, began * 1000) for began, end in self.outages)
        return round(sum(max(0.0, one) for one in shared))

    def document(self) -> dict[str, Any]:
        """For a report."""
        lags = sorted(self.lags_ms) or [0]
        told = {f"lag_p{p}_ms": lags[min(len(lags) - 1, len(lags) * p // 100)] for p in (50, 99)}
        return {
            "fired": self.fired,
            "sigkills": self.kills,
            "sigstops": self.stops,
            "database_restarts": self.restarts,
            "outage_s": round(sum(end - began for began, end in self.outages), 1),
            **told,
            "lag_max_ms": lags[-1],
            "lag_max_without_outages_ms": max(self.late_ms, default=0),
            "takeover_ms": round(1000 * TAKEOVER_S),
            "violations": self.violations,
        }


def ticks(count: int, seconds: float) -> list[Tick]:
    """So many that fire every one, two or three seconds, and a quarter as many that fire within every minute by cron, if all of
    them will. Nothing may be missed, however long a busy machine takes to start a process."""
    policy, cron = {"catchUp": "all", "catchUpMax": 1000}, {"kind": "cron", "cron": "* * * * *", "jitter": "55s"}
    often = [Tick(f"every-{n}", {"kind": "every", "every": f"{n % 3 + 1}s"}, 1000 * (n % 3 + 1), policy) for n in range(count)]
    minutes = [Tick(f"cron-{n}", cron, 60_000, policy) for n in range(count // 4)]
    return often + (minutes if seconds >= 120 else [])


async def run(
    directory: Path,
    database_url: str,
    *,
    seconds: float,
    schedules: int,
    rng: random.Random,
    workers: int = 0,
    troubles: Sequence[Callable[[], None]] = (),
) -> Hurt:
    """Fire for so long while schedulers and workers are killed and stopped, then look at everything; at most 1000 occurrences a
    schedule. `troubles` are what is done to the database, one after the other, at even distances."""
    seen, all_ticks = Hurt(), ticks(schedules, seconds)
    async with World(directory, database_url, workers) as world:
        await world.apply(all_ticks)
        await _hurt(world, seen, rng, seconds, troubles)
        await world.ahead(all_ticks, TAKEOVER_S)
        await world.apply(all_ticks, enabled=False)
        for tick in all_ticks:
            await _look(world, tick, seen)
    return seen


async def _hurt(world: World, seen: Hurt, rng: random.Random, seconds: float, troubles: Sequence[Callable[[], None]]) -> None:
    """Hit one process after the other, two at a time where there are several: one of three schedulers at least is left. Nobody is
    hit while the database is."""
    began, whole = time.monotonic(), list(world.hurting)
    at_once, pause_s = (1, ALONE_PAUSE_S) if world.embedded else (AT_ONCE, PAUSE_S)
    hands = asyncio.Semaphore(at_once)

    async def hit_nodes() -> None:
        while time.monotonic() < began + seconds:
            await asyncio.sleep(pause_s * (0.5 + rng.random()))
            async with hands:
                node = whole.pop(rng.randrange(len(whole)))
                with seen.outage() if world.embedded else nullcontext():
                    await _hit(node, seen, rng)
                whole.append(node)

    async def hit_database() -> None:
        for nth, trouble in enumerate(troubles):
            await asyncio.sleep(max(0.0, began + seconds * (nth + 1) / (len(troubles) + 1) - time.monotonic()))
            async with AsyncExitStack() as stack:
                for _ in range(at_once):
                    await stack.enter_async_context(hands)
                with seen.outage():
                    await asyncio.to_thread(trouble)
            seen.restarts += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(hit_database())
        for _ in range(at_once):
            group.create_task(hit_nodes())


async def _hit(node: Node, seen: Hurt, rng: random.Random) -> None:
    """Kill it and start it again, or stop it for up to half as long again as what it took is left to it."""
    if rng.random() < STOPS:
        seen.stops += 1
        node.pause()
        await asyncio.sleep(HOLD_S * (0.5 + rng.random()))
        node.go_on()
    else:
        seen.kills += 1
        await node.kill()
        await node.start()


async def _look(world: World, tick: Tick, seen: Hurt) -> None:
    """The history of a schedule has no gap and nothing twice, is what its session was told, and nothing in it is late."""
    records, unended = await _ended(world, tick)
    told = await world.told(tick)
    status = await world.status(tick)
    late = [one.lag_ms - seen.out_ms(one.decided_ms - one.lag_ms, one.decided_ms) for one in records]
    seen.fired += len(records)
    seen.lags_ms += [one.lag_ms for one in records]
    seen.late_ms += late
    seen.judge(
        tick,
        (len(told) != len(set(told)), "an occurrence was told twice"),
        (sorted(told) != sorted(one.local for one in records), "history and messages differ"),
        (any(one.outcome in ("missed", "skipped") for one in records), "an occurrence was not fired"),
        (any(later.at_ms - earlier.at_ms != tick.period_ms for earlier, later in pairwise(records)), "its history has a gap"),
        (status["fired"] != len(records) < 1000, "the count is another"),
        (not records, "it never fired"),
        (unended, f"turns did not complete: {unended[:5]}"),
        (max(late, default=0) > 1000 * TAKEOVER_S, f"an occurrence was fired {max(late, default=0)} ms late"),
    )


async def _ended(world: World, tick: Tick) -> tuple[list[Record], list[str]]:
    """-> (the records, once their turns have ended, oldest first; those whose turns did not complete)."""
    deadline = time.monotonic() + TURNS_S
    while True:
        records = await world.history(tick)
        under_way = [one for one in records if one.outcome in ("queued", "running", "waiting")]
        if not under_way or time.monotonic() > deadline:
            return records, [f"{one.local} {one.outcome}" for one in records if one.outcome != "completed"]
        await asyncio.sleep(0.5)


def _troubles(server: PostgresServer) -> list[Callable[[], None]]:
    def kill() -> None:
        server.kill()
        server.start()

    return [server.restart, kill, server.restart]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; -> 0 if nothing was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "pg"), default="pg")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--schedules", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    seed = options.seed or secrets.randbits(32)
    directory = Path(tempfile.mkdtemp(prefix="talon-schedules-"))
    bound = machine()
    fire = partial(run, directory, seconds=options.seconds, schedules=options.schedules, rng=random.Random(seed), workers=2)
    try:
        with ExitStack() as stack:
            server = stack.enter_context(running_server()) if options.store == "pg" else None
            url, troubles = (server.create_database(), _troubles(server)) if server else ("", [])
            seen = asyncio.run(fire(url, troubles=troubles))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    means = "3 schedulers, 2 workers, a gateway" if options.store == "pg" else "talon up"
    told = {"store": options.store, "processes": means, "seed": seed, "seconds": options.seconds, **bound, **seen.document()}
    tell({"passed": not seen.violations, **told}, options.out)
    return 1 if seen.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
