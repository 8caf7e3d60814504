"""A process whose zone database lacks the zone of a schedule: it says so, and does everything else."""

from __future__ import annotations

import asyncio
import zoneinfo
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from talon.cli.system import SystemClock, SystemIds
from talon.dispatch.schedules.scheduler import Scheduler, SchedulerSettings
from talon.dispatch.schedules.wakeups import Wakeups
from talon.domain.inbox import Operation
from talon.domain.schedules import SchedulePlan, Timing, encode_plan
from talon.manifest.occurrences import local, preview
from talon.manifest.resolve import load
from talon.store.conformance import support as s
from talon.store.resources import Changes, PutResource
from talon.store.schedules import Fires
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database

GONE = "US/Pacific"  # some systems have the old names in a package of their own
MANIFEST = {
    "apiVersion": "talon.dev/v1alpha1",
    "kind": "Schedule",
    "metadata": {"name": "one", "namespace": s.NAMESPACE},
    "spec": {
        "kind": "cron",
        "cron": "0 9 * * *",
        "timezone": GONE,
        "target": {"agent": s.AGENT, "sessionId": "s1"},
        "inputMessage": "go",
    },
}


def without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = zoneinfo.ZoneInfo

    def found(key: str) -> zoneinfo.ZoneInfo:
        if key == GONE:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return real(key)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", found)
    monkeypatch.setattr("talon.manifest.schedule.zones", lambda: frozenset({"UTC"}))


async def nobody(_: Operation) -> NoReturn:
    raise AssertionError("nothing is due")


async def test_a_scheduler_with_newer_zones_that_lack_one_tells_of_that_schedule_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(Database(tmp_path / "talon.db", SystemClock()))
    await store.migrate()
    await s.ensure_agent(store)
    for name, zone in (("one", GONE), ("two", "Europe/Berlin")):
        plan = SchedulePlan(Timing("cron", zone, cron="0 9 * * *"), s.AGENT, "s1", "go")
        fires = Fires(encode_plan(plan), True, "2020a")
        await store.change(Changes((PutResource(s.NAMESPACE, "Schedule", name, s.fresh_id(), 0, b"{}", fires=fires),)))
    without_it(monkeypatch)
    scheduler = Scheduler(store, Wakeups(store, nobody, SystemIds(), 100), SchedulerSettings("2025b", sweep_s=0.01))
    running = asyncio.create_task(scheduler.run())
    names = [(s.NAMESPACE, "Schedule", name) for name in ("one", "two")]
    uids = {row.name: row.uid for row in await store.get_resources(names)}
    async with asyncio.timeout(10):
        while True:
            rows = {row.name: row for row in await store.get_schedules(list(uids.values()))}
            if rows["one"].error and rows["two"].tzdata == "2025b":
                break
            await asyncio.sleep(0.01)
    assert f"with the zones of 2025b: 'No time zone found with key {GONE}'" in rows["one"].error
    assert rows["one"].occurrence_ms is not None  # as it was computed before
    scheduler.stop()
    await asyncio.wait_for(running, 10)
    await store.close()


def test_a_stored_schedule_in_such_a_zone_is_read_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    without_it(monkeypatch)
    assert load(msgspec.json.encode(MANIFEST)).kind == "Schedule"
    assert local(0, GONE) == "1970-01-01T00:00:00+00:00"
    assert preview(Timing("cron", GONE, cron="0 9 * * *"), 0, 0, 5) == []
