"""A clock that jumps by an hour and by a day to either side: no occurrence is fired twice, none is lost.

    PYTHONPATH=tests python -m soak.jumps --store pg

The processes of `soak.schedules` under libfaketime, on PostgreSQL also the database, whose clock decides there. After each jump
ahead, whoever makes up for what was jumped over is killed in the middle of it. What is behind the farthest moment that the clock
ever showed fires no more; everything else is fired, or is in the history as missed, and each occurrence is in it once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from soak.machine import JumpingClock, jumping_clock
from soak.run import machine
from soak.ticking import Record, Seen, Tick, World
from support.postgres import running_server
from support.program import tell

HOUR, DAY = 3_600, 86_400
#: By how many seconds the clock is off, one after the other; in the end it is ahead of everything before.
OFFSETS = (HOUR, 0, -HOUR, DAY, 0, -DAY, DAY + HOUR)
#: How long to look whether anything fires after the clock went back: the offset is read once a second.
BACK_S = 4.0
#: How long making up for a day may take.
AHEAD_S = 120.0


@dataclass
class Jumped(Seen):
    """What came of the jumps."""

    missed: int = 0
    jumps: int = 0

    def document(self) -> dict[str, Any]:
        """For a report."""
        return {
            "fired": self.fired,
            "missed_as_catchUp_says": self.missed,
            "jumps": self.jumps,
            "sigkills": self.kills,
            "violations": self.violations,
        }


def ticks(now: datetime) -> list[Tick]:
    """One of each kind and policy; what has `catchUp: all` must not miss anything."""
    everything = {"catchUp": "all", "catchUpMax": 1000}
    once = (now + timedelta(minutes=30)).replace(microsecond=0)
    return [
        Tick("second", {"kind": "every", "every": "1s"}, 1_000),
        Tick("none", {"kind": "every", "every": "1s"}, 1_000, {"catchUp": "none"}),
        Tick("minutes", {"kind": "every", "every": "10m"}, 600_000, everything),
        Tick("cron", {"kind": "cron", "cron": "*/15 * * * *", "timezone": "Asia/Kathmandu", "jitter": "5m"}, 900_000, everything),
        Tick("once", {"kind": "at", "at": once.isoformat()}, 0, everything),
    ]


async def run(
    directory: Path,
    database_url: str,
    clock: JumpingClock,
    *,
    rng: random.Random,
    workers: int = 0,
    offsets: Sequence[int] = OFFSETS,
) -> Jumped:
    """Jump, and look."""
    seen, farthest = Jumped(), 0
    all_ticks = ticks(datetime.now(UTC))
    async with World(directory, database_url, workers, clock.env) as world:
        await world.apply(all_ticks)
        await _ahead(world, all_ticks, 0, seen)
        for off in offsets:
            seen.jumps += 1
            clock.set(off)
            if off > farthest:
                farthest = off
                await _caught_up(world, all_ticks, off, rng, seen)
            else:
                await _nothing_fires(world, all_ticks, off, seen)
        await world.apply(all_ticks, enabled=False)
        for tick in all_ticks:
            await _look(world, tick, seen)
    return seen


async def _caught_up(world: World, all_ticks: Sequence[Tick], off: int, rng: random.Random, seen: Jumped) -> None:
    """Everything up to now is dealt with, though who does so is killed."""
    await asyncio.sleep(1 + rng.random() * 1.5)
    node = rng.choice([one for one in world.hurting if one.name.startswith(("up", "scheduler"))])
    seen.kills += 1
    await node.kill()
    await node.start(AHEAD_S)  # it is at work on all of that at once
    await _ahead(world, all_ticks, off, seen)


async def _ahead(world: World, all_ticks: Sequence[Tick], off: int, seen: Seen) -> None:
    """All have fired that are to fire by now."""
    behind = await world.ahead(all_ticks, AHEAD_S, off)
    if behind:
        seen.violations.append(f"with the clock {off:+d} s off these stay behind: {', '.join(behind)}")


async def _nothing_fires(world: World, all_ticks: Sequence[Tick], off: int, seen: Seen) -> None:
    """The clock shows what it has shown before: all of that was dealt with."""
    await asyncio.sleep(BACK_S / 2)
    before = [(await world.status(tick))["fired"] for tick in all_ticks]
    await asyncio.sleep(BACK_S / 2)
    after = [(await world.status(tick))["fired"] for tick in all_ticks]
    for tick, was, now in zip(all_ticks, before, after, strict=True):
        if was != now:
            seen.violations.append(f"{tick.name}: {now - was} fired though the clock is {off:+d} s off and has been ahead of that")


async def _look(world: World, tick: Tick, seen: Jumped) -> None:
    """Each occurrence from the first to the last is in the history once, and what was fired is what the session was told."""
    records = await world.history(tick)
    fired, missed = ([one for one in records if (one.outcome == "missed") is is_] for is_ in (False, True))
    told = await world.told(tick)
    status = await world.status(tick)
    seen.fired += len(fired)
    seen.missed += sum(one.count for one in missed)
    seen.judge(
        tick,
        (len(told) != len(set(told)), "an occurrence was told twice"),
        (sorted(told) != sorted(one.local for one in fired), "history and messages differ"),
        (status["fired"] != len(fired), f"{status['fired']} are counted, {len(fired)} recorded"),
        (_gap(records, tick.period_ms), f"between {_gap(records, tick.period_ms)} an occurrence is lost or there twice"),
        (tick.policy.get("catchUp") == "all" and bool(missed), "something was missed"),
        (not fired or (tick.period_ms == 0 and len(fired) > 1), f"it fired {len(fired)} times"),
    )


def _gap(records: Sequence[Record], period_ms: int) -> str:
    """The first two records, oldest first, that do not follow each other; "" if all do."""
    for one in records:
        if one.last_ms - one.at_ms != (one.count - 1) * period_ms:
            return f"{one.count} of {one.local}"
    for earlier, later in pairwise(records):
        if later.at_ms - earlier.last_ms != period_ms:
            return f"{earlier.local} and {later.local}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; -> 0 if nothing was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "pg"), default="pg")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    seed = options.seed or secrets.randbits(32)
    directory = Path(tempfile.mkdtemp(prefix="talon-jumps-"))
    directory.chmod(0o755)  # PostgreSQL runs as somebody else, and reads the clock's file
    clock, bound = jumping_clock(directory), machine()
    if clock is None:
        print("skipped: libfaketime is not installed (Debian: apt-get install libfaketime)", file=sys.stderr)
        return 0
    jump = partial(run, directory, clock=clock, rng=random.Random(seed), workers=2)
    try:
        with ExitStack() as stack:
            url = _database(stack, clock.env) if options.store == "pg" else ""
            seen = asyncio.run(jump(database_url=url))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    told = {"store": options.store, "seed": seed, "offsets_s": OFFSETS, **bound, **seen.document()}
    tell({"passed": not seen.violations, **told}, options.out)
    return 1 if seen.violations else 0


def _database(stack: ExitStack, env: Mapping[str, str]) -> str:
    """A server whose clock jumps too; -> a database on it."""
    with patch.dict(os.environ, env):  # its processes begin with these
        return stack.enter_context(running_server()).create_database()


if __name__ == "__main__":
    raise SystemExit(main())
