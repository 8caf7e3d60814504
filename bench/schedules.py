"""Many schedules due in the same second, and many that are not: how late the last one fires, and what idle ones cost.

    PYTHONPATH=tests python -m bench.schedules [--store sqlite|pg] [--due 50000] [--idle 100000] [--out FILE]

What idle ones cost is counted (`bench.idle`), among 10 and among so many. Then one scheduler with its journal writer in this
process, on a real database: lags are those of the history, from when an occurrence was due to the commit that fired it, by the
database's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from bench.idle import PostgresCounter, SqliteCounter
from soak.run import machine
from support.postgres import PostgresServer, running_server
from support.program import tell
from talon.cli.system import SystemClock, SystemIds
from talon.dispatch.schedules.scheduler import Scheduler, SchedulerSettings
from talon.dispatch.schedules.wakeups import Wakeups
from talon.dispatch.schedules.zones import tzdata_version
from talon.domain.inbox import Operation, Receipt
from talon.domain.schedules import SchedulePlan, Timing, encode_plan
from talon.manifest.effective import Effective, Profile, encode
from talon.store import postgres, sqlite
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource
from talon.store.schedules import Due, Fires
from talon.store.writer import JournalWriter

IDS = SystemIds()
NEVER = "2900-01-01T00:00:00Z"
_AT_ONCE = 1_000


async def fill(store: Store, count: int, prefix: str, *, at: str) -> list[str]:
    """So many schedules that fire once at a time, each with a session of its own; -> their uids."""
    uids: list[str] = []
    for start in range(0, count, _AT_ONCE):
        puts: list[PutResource] = []
        for number in range(start, min(count, start + _AT_ONCE)):
            uids.append(IDS.uuid7())
            plan = SchedulePlan(Timing("at", at=at), "woken", f"{prefix}-{number}", "wake up")
            body = json.dumps({"kind": "Schedule", "metadata": {"name": f"{prefix}-{number}"}}).encode()
            fires = Fires(encode_plan(plan), enabled=True, tzdata=tzdata_version())
            puts.append(PutResource("bench", "Schedule", f"{prefix}-{number}", uids[-1], 0, body, fires=fires))
        await store.change(Changes(tuple(puts)))
    return uids


async def prepare(store: Store) -> None:
    """The namespace, and an agent that can be woken."""
    effective = encode(Effective("bench", "woken", "hi", (Profile("a", "fake", "x"),)))
    puts = (
        PutResource("", "Namespace", "bench", IDS.uuid7(), 0, b"{}"),
        PutResource("bench", "Agent", "woken", IDS.uuid7(), 0, b"{}", effective=effective, digest="d", cause="created"),
    )
    await store.change(Changes(puts))


async def burst(store: Store, due: int) -> dict[str, Any]:
    """As many at once: how long that takes, and how late they are."""
    seconds = max(20.0, due / 500)  # they must all be there before they are due
    at = datetime.fromtimestamp(int(time.time() + seconds), UTC)
    uids = await fill(store, due, "due", at=at.isoformat())
    if datetime.now(UTC) >= at:
        raise SystemExit("the machine is too slow to write them before they are due")
    writer = JournalWriter(store, lambda _: None)
    await writer.start()
    scheduler = Scheduler(store, Wakeups(store, writer.deliver, IDS, 100), SchedulerSettings(tzdata_version()))
    task = asyncio.create_task(scheduler.run())
    await asyncio.sleep(at.timestamp() - time.time())
    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(600):
        for start in range(0, due, 500):
            while not all(  # noqa: ASYNC110  another task fires them
                row.fired for row in await store.get_schedules(uids[start : start + 500])
            ):
                await asyncio.sleep(0.25)
    took = time.perf_counter() - began
    scheduler.stop()
    await task
    await writer.close()
    lags = sorted([row.at_ms - row.due_ms for uid in uids for row in (await store.list_firings(uid, "", 2))[0]])
    if len(lags) != due:
        raise SystemExit(f"{len(lags)} records of {due} schedules")
    told = {"due": due, "took_s": round(took, 2), "cpu_s": round(time.process_time() - cpu, 2), "per_s": round(due / took)}
    return told | {"lag_p50_ms": lags[len(lags) // 2], "lag_p99_ms": lags[len(lags) * 99 // 100], "lag_max_ms": lags[-1]}


async def looks_per_s(store: Store, seconds: float = 5.0) -> float:
    """How often a scheduler looks that has nothing to do."""
    looks, plain = 0, store.take_due

    async def counted(limit: int, hold_ms: int) -> Due:
        nonlocal looks
        looks += 1
        return await plain(limit, hold_ms)

    async def nothing(_: Operation) -> Receipt:
        raise AssertionError("nothing is due")

    with patch.object(store, "take_due", counted):
        scheduler = Scheduler(store, Wakeups(store, nothing, IDS, 100), SchedulerSettings(tzdata_version()))
        task = asyncio.create_task(scheduler.run())
        await asyncio.sleep(seconds)
        scheduler.stop()
        await task
    return looks / seconds


async def on_sqlite(path: Path, due: int, idle: Sequence[int]) -> dict[str, Any]:
    """Among ever more idle ones, then as many as are due at once."""
    counter, told = SqliteCounter(), dict[str, Any]()
    with counter.watching():
        store = await sqlite.open_store(path, SystemClock(), IDS)
    try:
        await store.migrate()
        await prepare(store)
        have = 0
        for count in idle:
            await fill(store, count - have, f"idle-{have}", at=NEVER)
            have = count
            told[f"a look among {count} idle"] = await counter.work(store)
        told["looks_per_s"] = await looks_per_s(store)
        return told | await burst(store, due)
    finally:
        await store.close()


async def on_postgres(server: PostgresServer, directory: Path, due: int, idle: Sequence[int]) -> dict[str, Any]:
    """As `on_sqlite`; while work is counted nobody else is connected."""
    url = server.create_database()
    counter, told, have = PostgresCounter(server, url, IDS), dict[str, Any](), 0
    for count in idle:
        async with _store(url) as store:
            if not have:
                await prepare(store)
            await fill(store, count - have, f"idle-{have}", at=NEVER)
        have = count
        told[f"a look among {count} idle"] = await counter.work()
        told[f"talon up among {count} idle, per second"] = await counter.product(directory)
    async with _store(url) as store:
        told["looks_per_s"] = await looks_per_s(store)
        return told | await burst(store, due)


@asynccontextmanager
async def _store(url: str) -> AsyncGenerator[Store]:
    store = await postgres.open_store(url, IDS)
    try:
        yield store
    finally:
        await store.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the measures as JSON; -> 0 if each fired once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "pg"), default="pg")
    parser.add_argument("--due", type=int, default=50_000)
    parser.add_argument("--idle", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    bound, idle = machine(), (10, options.idle)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="talon-bench-")))
        if options.store == "pg":
            told = asyncio.run(on_postgres(stack.enter_context(running_server(fsync=True)), directory, options.due, idle))
        else:
            told = asyncio.run(on_sqlite(directory / "talon.db", options.due, idle))
    tell({"store": options.store, **bound, **told}, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
