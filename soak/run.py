"""One soak from its seed to its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import random
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from soak.chaos import Chaos
from soak.client import Client
from soak.fleet import Fleet, running
from soak.growth import Growth
from soak.machine import DISK_MB, JumpingClock, SmallDisk, jumping_clock, small_disk
from soak.node import ROOT
from soak.proxy import LossyProxy
from soak.report import Report
from soak.workload import Load, Workload
from support.postgres import PostgresServer, running_server

LEASE_S = 5.0
#: Without faults at the end, for memory and file descriptors: a share of the time, within bounds.
CALM_SHARE, CALM_MIN_S, CALM_MAX_S = 0.15, 20.0, 300.0
IN_STEP_MIN = SUCCESS_MIN = 0.9
#: A negative control is left alone with what hangs because of it after so long.
HANG_S = 15.0


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    store: str
    minutes: float
    seed: int
    negative: str = ""
    lanes: int = 16
    keep: bool = False

    @property
    def calm_s(self) -> float:
        """How long the calm at the end is; a negative control has none."""
        return 0.0 if self.negative else min(CALM_MAX_S, max(CALM_MIN_S, 60 * self.minutes * CALM_SHARE))


@dataclass
class World:
    """What Talon stands on."""

    disk: SmallDisk | None
    clock: JumpingClock | None
    postgres: PostgresServer | None = None
    proxy: LossyProxy | None = None

    def told(self) -> dict[str, str]:
        """What could be hurt here, in words."""
        no_disk = "not done: it needs root and the right to mount a tmpfs" if self.postgres is None else "not done on PostgreSQL"
        return {
            "full disk": f"the data directory on a tmpfs of {DISK_MB} MB, filled up" if self.disk else no_disk,
            "clock": "wall clock of Talon's processes off by up to an hour either way (libfaketime; the monotonic clock is real)"
            if self.clock
            else "not done: libfaketime is not installed",
            "lost answers": "a TCP proxy swallows answers to committed writes" if self.proxy else "does not apply to SQLite",
        }


async def soak(options: Options) -> dict[str, Any]:
    """-> the result; `passed` says whether every promise was kept."""
    report = Report()
    rng = random.Random(options.seed)
    report.say(f"soak on {options.store}, {options.minutes:g} min, SEED={options.seed} {options.negative}")
    directory = Path(tempfile.mkdtemp(prefix="talon-soak-", dir="/tmp"))
    report.say(f"logs in {directory}")
    async with _world(options, directory) as (world, fleet):
        growth = await _run(options, world, fleet, report, rng)
        result = _result(options, world, fleet, report, growth)
    if result["passed"] and not options.keep:
        await asyncio.to_thread(_remove, directory)
    return result


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def _world(options: Options, directory: Path) -> AsyncGenerator[tuple[World, Fleet]]:
    launcher: Sequence[str] = ("-m", "soak.negative", options.negative) if options.negative else ("-m", "talon")
    clock = jumping_clock(directory) if not options.negative else None
    env: Mapping[str, str] = clock.env if clock else {}
    async with contextlib.AsyncExitStack() as stack:
        if options.store == "sqlite":
            disk = stack.enter_context(small_disk(directory / "data"))
            fleet = await stack.enter_async_context(
                running(directory, data_dir=directory / "data", launcher=launcher, env=env, lease_s=LEASE_S)
            )
            yield World(disk, clock), fleet
            return
        server = stack.enter_context(running_server(fsync=True))
        name = server.create_database(migrated=True).partition("?")[0].rpartition("/")[2]
        proxy = LossyProxy(str(server.directory / ".s.PGSQL.5432"))
        await stack.enter_async_context(proxy.listening())
        url = f"postgresql://talon@127.0.0.1:{proxy.port}/{name}"
        fleet = await stack.enter_async_context(
            running(directory, database_url=url, workers=3, gateways=2, launcher=launcher, env=env, lease_s=LEASE_S)
        )
        yield World(None, clock, server, proxy), fleet


async def _run(options: Options, world: World, fleet: Fleet, report: Report, rng: random.Random) -> dict[str, Any]:
    """Load and faults for the time asked for, then the calm, then everything comes to rest; -> what memory did."""
    # What is broken on purpose is looked for early.
    load = Load(options.lanes, operations=6, stuck_s=30.0) if options.negative else Load(options.lanes)
    async with (
        Client(fleet.urls, rng, report) as client,
        Client(lambda: [fleet.counter.url], rng, report) as counter,
    ):
        workload = Workload(client, counter, report, rng, load)
        chaos = Chaos(fleet, workload, report, rng, LEASE_S, world.postgres, world.proxy, world.disk, world.clock, options.negative)
        telling = asyncio.create_task(_tell(fleet, report))
        working, hurting = asyncio.create_task(workload.run()), asyncio.create_task(chaos.run())
        growth = Growth(fleet, report)
        try:
            await _until(report, 60 * options.minutes - options.calm_s, working, hurting)
            chaos.stop.set()
            await hurting
            if options.calm_s and not report.broken.is_set():
                report.say("calm: the load goes on, nothing is hurt")
                sampling = asyncio.create_task(growth.run())
                await _until(report, options.calm_s, working)
                sampling.cancel()
            workload.stop.set()
            report.say("coming to rest")
            await asyncio.wait({working}, timeout=HANG_S if report.broken.is_set() else 3 * load.stuck_s)
            if not working.done() and not report.broken.is_set():
                report.violation("stuck", "the sessions do not come to rest")
        finally:
            for task in (working, hurting, telling):
                task.cancel()
            await asyncio.wait({working, hurting, telling})
        for task in (working, hurting):
            if not task.cancelled() and (error := task.exception()):
                raise error
    return growth.judge()


async def _until(report: Report, seconds: float, *tasks: asyncio.Task[None]) -> None:
    """Wait so long, or until a promise is broken or a task ends."""
    broken = asyncio.create_task(report.broken.wait())
    await asyncio.wait({broken, *tasks}, timeout=max(1.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    broken.cancel()


async def _tell(fleet: Fleet, report: Report) -> None:
    while True:
        await asyncio.sleep(10)
        killed = fleet.killed()
        report.say(
            f"{report.turns} turns, {len(killed)} workers killed ({report.in_step(killed):.0%} in a step), faults "
            f"{dict(report.faults)}, {report.success:.1%} of {report.good.total() + report.bad.total()} operations good"
        )


def _result(options: Options, world: World, fleet: Fleet, report: Report, growth: dict[str, Any]) -> dict[str, Any]:
    killed = fleet.killed()
    in_step = report.in_step(killed)
    missed: list[str] = []
    if killed and in_step < IN_STEP_MIN and not report.violations:
        missed.append(f"only {in_step:.1%} of the kills fell inside a step")
    if report.success < SUCCESS_MIN and not report.violations:
        missed.append(f"only {report.success:.1%} of the operations succeeded")
    return {
        "passed": not report.violations and not missed,
        "missed": missed,
        "store": options.store,
        "negative": options.negative,
        "seed": options.seed,
        "minutes": options.minutes,
        "seconds": round(time.monotonic() - report.began_s, 1),
        **machine(),
        "sigkills": report.faults["kill worker"] + report.faults["kill gateway"],
        "workers_killed": len(killed),
        "share_of_kills_in_a_step": round(in_step, 4),
        "turns_verified": report.turns,
        **report.document(),
        "answers_lost": world.proxy.lost if world.proxy else 0,
        "growth": growth,
        "means": world.told(),
    }


def machine() -> dict[str, Any]:
    """Commit, date and machine: what a result is bound to."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    told = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), platform.processor())
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed_since": bool(git("status", "--porcelain", "--", "src")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
