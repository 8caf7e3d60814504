"""When schedules fire: around clock changes, with jitter, and what becomes of what is late."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest
from apscheduler.triggers.cron import CronTrigger
from croniter import croniter

from talon.domain.schedules import SchedulePlan, Stand, Timing
from talon.manifest.occurrences import (
    ON_TIME_MS,
    STEP_MAX,
    Step,
    fire_time,
    first_after,
    occurrences,
    session_of,
    stands,
    step,
    to_ms,
)

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
#: Zones with every kind of change: by an hour, by half an hour (Lord Howe), by two hours (Troll), at midnight, by day of the week,
#: backwards in winter (Dublin), with odd offsets, changed by law, and those that never change.
# fmt: off
ZONES = (
    "America/Los_Angeles", "America/New_York", "America/St_Johns", "America/Havana", "America/Santiago", "America/Sao_Paulo",
    "America/Nuuk", "America/Asuncion", "Europe/Berlin", "Europe/London", "Europe/Dublin", "Europe/Lisbon", "Europe/Chisinau",
    "Africa/Casablanca", "Africa/Cairo", "Asia/Beirut", "Asia/Jerusalem", "Asia/Gaza", "Asia/Kathmandu", "Asia/Kolkata",
    "Asia/Tehran", "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Easter", "Pacific/Apia",
    "Antarctica/Troll", "Atlantic/Azores",
)
# fmt: on
FIXED = ("30 2 * * *", "0 0 * * *", "15 1,2,3 * * *", "45 23 * * *", "0,30 2 * * *")
RUNNING = ("*/15 * * * *", "20 * * * *", "*/30 */2 * * *")


def changes(zone: str, year: int) -> list[datetime]:
    """The moments of a year at which the zone's offset changes, to the minute."""
    found: list[datetime] = []
    info, at = zoneinfo.ZoneInfo(zone), datetime(year, 1, 1, tzinfo=UTC)
    while at.year == year:
        later = at + timedelta(hours=12)
        if at.astimezone(info).utcoffset() != later.astimezone(info).utcoffset():
            low, high = at, later
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                middle = middle.replace(second=0, microsecond=0)
                same = middle.astimezone(info).utcoffset() == at.astimezone(info).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        at = later
    return found


def matches(expression: str, local: datetime) -> bool:
    """Whether a local minute is one that the expression names: of the few forms that are used here."""
    for field, value in zip(expression.split()[:2], (local.minute, local.hour), strict=True):
        fits = value % int(field[2:]) == 0 if field.startswith("*/") else field == "*" or value in map(int, field.split(","))
        if not fits:
            return False
    return True


def by_the_rule(expression: str, zone: str, first: datetime, last: datetime) -> list[int]:
    """The written rule, minute by minute, by nothing but the zone's offsets."""
    info = zoneinfo.ZoneInfo(zone)
    found: set[int] = set()
    if expression.startswith("*") or expression.split()[1].startswith("*"):
        at = first
        while at <= last:
            if matches(expression, at.astimezone(info)):
                found.add(to_ms(at))
            at += timedelta(minutes=1)
        return sorted(found)
    local, end = first.astimezone(info).replace(tzinfo=None) - timedelta(days=1), last + timedelta(days=1)
    while local <= end.replace(tzinfo=None):
        if matches(expression, local):
            shown = local
            while (moment := shown.replace(tzinfo=info)).astimezone(UTC).astimezone(info).replace(tzinfo=None) != shown:
                shown += timedelta(minutes=1)
            found.add(to_ms(moment))
        local += timedelta(minutes=1)
    return sorted(ms for ms in found if to_ms(first) <= ms <= to_ms(last))


def ours(expression: str, zone: str, first: datetime, last: datetime) -> list[int]:
    found: list[int] = []
    for ms in occurrences(Timing("cron", zone, cron=expression), to_ms(first) - 1, 0):
        if ms > to_ms(last):
            return found
        found.append(ms)
    return found


def with_croniter(expression: str, zone: str, first: datetime, last: datetime) -> set[int]:
    each: Any = croniter(expression, (first - timedelta(minutes=1)).astimezone(zoneinfo.ZoneInfo(zone)), ret_type=datetime)
    found: set[int] = set()
    while (at := to_ms(each.get_next())) <= to_ms(last):
        found.add(at)
    return {ms for ms in found if ms >= to_ms(first)}


def with_apscheduler(expression: str, zone: str, first: datetime, last: datetime) -> set[int]:
    trigger: Any = CronTrigger.from_crontab(expression, timezone=zoneinfo.ZoneInfo(zone))  # pyright: ignore[reportUnknownMemberType]
    found, at = set[int](), first - timedelta(minutes=1)
    following: datetime | None
    while (following := trigger.get_next_fire_time(None, at)) is not None and to_ms(following) <= to_ms(last):
        found.add(to_ms(following))
        at = max(following.astimezone(UTC), at) + timedelta(seconds=1)
    return {ms for ms in found if ms >= to_ms(first)}


def disputed(zone: str, change: datetime) -> tuple[int, int]:
    """The stretch in which local times are left out, come twice, or are made up for: on both sides of the change."""
    info = zoneinfo.ZoneInfo(zone)
    before, after = ((change + timedelta(minutes=one)).astimezone(info).utcoffset() for one in (-1, 1))
    assert before is not None
    assert after is not None
    shift_ms = abs(round((after - before).total_seconds() * 1000))
    return to_ms(change) - shift_ms, to_ms(change) + shift_ms


@pytest.mark.parametrize("zone", ZONES)
def test_around_clock_changes_it_fires_by_the_rule_and_where_two_others_agree_as_they_do(zone: str) -> None:
    windows, agreed, compared = changes(zone, 2025) + changes(zone, 2026), 0, 0
    for change in windows or [datetime(2026, 3, 29, 1, tzinfo=UTC)]:
        first, last = change - timedelta(hours=30), change + timedelta(hours=30)
        start, end = disputed(zone, change) if windows else (0, 0)
        for expression in (*FIXED, *RUNNING):
            found = ours(expression, zone, first, last)
            assert found == by_the_rule(expression, zone, first, last), (expression, change)
            others = with_croniter(expression, zone, first, last), with_apscheduler(expression, zone, first, last)
            undisputed = [{ms for ms in each if not start <= ms < end} for each in (set(found), *others)]
            if undisputed[1] == undisputed[2]:
                assert undisputed[0] == undisputed[1], (expression, change)
                agreed += 1
            compared += 1
    assert agreed >= compared / 2  # else this would compare with nobody


def test_the_zones_change_in_every_way() -> None:
    shifts: set[int] = set()
    for zone in ZONES:
        info = zoneinfo.ZoneInfo(zone)
        for change in changes(zone, 2025):
            offsets = [(change + timedelta(minutes=one)).astimezone(info).utcoffset() for one in (-2, 2)]
            assert offsets[0] is not None
            assert offsets[1] is not None
            shifts.add(round((offsets[1] - offsets[0]).total_seconds() / 60))
    assert {60, -60, 30, -30, 120, -120} <= shifts
    assert len(ZONES) >= 20


def test_what_the_rule_comes_to_in_berlin() -> None:
    def times(cron: str, day: str, count: int) -> list[str]:
        start = to_ms(datetime.fromisoformat(day).replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")))
        found = islice(occurrences(Timing("cron", "Europe/Berlin", cron=cron), start - 1, 0), count)
        return [fire_time(ms, "Europe/Berlin").local for ms in found]

    assert times("30 2 * * *", "2026-03-29", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert times("30 2 * * *", "2026-10-25", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    assert times("*/30 2 * * *", "2026-10-25", 4) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
    ]


@pytest.mark.parametrize("cron", FIXED)
def test_asked_from_anywhere_the_next_occurrence_is_the_same(cron: str) -> None:
    timing = Timing("cron", "Europe/Berlin", cron=cron)
    start = to_ms(datetime(2026, 10, 24, 20, tzinfo=UTC))
    every = [ms for ms in islice(occurrences(timing, start, 0), 20) if ms < start + 2 * DAY_MS]
    assert every == sorted(set(every))
    for after in range(start, start + 2 * DAY_MS - DAY_MS // 2, 7 * MINUTE_MS):
        assert next(occurrences(timing, after, 0)) == next(ms for ms in islice(occurrences(timing, start, 0), 99) if ms > after)


def test_every_counts_from_when_it_began_and_until_ends_it() -> None:
    hourly = Timing("every", every_ms=HOUR_MS)
    assert list(islice(occurrences(hourly, 5, 5), 2)) == [5 + HOUR_MS, 5 + 2 * HOUR_MS]
    assert list(islice(occurrences(hourly, 5 + HOUR_MS, 5), 1)) == [5 + 2 * HOUR_MS]
    assert list(islice(occurrences(hourly, 0, 10 * HOUR_MS), 1)) == [11 * HOUR_MS]
    ends = msgspec.structs.replace(hourly, until="2026-01-01T03:00:00Z")
    start = to_ms(datetime(2026, 1, 1, tzinfo=UTC))
    assert list(occurrences(ends, start, start)) == [start + hour * HOUR_MS for hour in (1, 2, 3)]
    once = Timing("at", "Europe/Berlin", at="2026-01-01T03:00")
    assert list(occurrences(once, 0, 0)) == [start + 2 * HOUR_MS]
    assert first_after(once, "u", start + 2 * HOUR_MS, 0) is None


def test_jitter_is_the_same_wherever_it_is_asked_for_and_keeps_the_order() -> None:
    daily = Timing("cron", cron="0 */6 * * *", jitter_ms=DAY_MS)
    found = list(islice(stands(daily, "uid", 0, 0), 200))
    assert found == [next(stands(daily, "uid", one.occurrence_ms - 1, 0)) for one in found]
    assert all(one.occurrence_ms <= one.due_ms < after.occurrence_ms for one, after in pairwise(found))
    delays = {one.due_ms - one.occurrence_ms for one in found}
    assert len(delays) > 190
    assert max(delays) > 5 * HOUR_MS
    others = list(islice(stands(daily, "another", 0, 0), 200))
    assert [one.due_ms for one in others] != [one.due_ms for one in found]


def hourly(catch_up: str = "one", most: int = 10, deadline_ms: int | None = None) -> SchedulePlan:
    plan = SchedulePlan(Timing("every", every_ms=HOUR_MS), "a", "s", "m", catch_up_max=most, deadline_ms=deadline_ms)
    return msgspec.structs.replace(plan, catch_up=catch_up)


def decide(plan: SchedulePlan, now_ms: int, at_ms: int = HOUR_MS) -> Step:
    return step(plan, "uid", Stand(at_ms, at_ms), 0, now_ms)


def told(found: Step) -> tuple[int | None, int, int | None]:
    """-> (the hour that fires, how many were missed, the hour that is next)."""

    def hour(stand: Stand | None) -> int | None:
        return None if stand is None else stand.occurrence_ms // HOUR_MS

    return hour(found.fire), 0 if found.missed is None else found.missed.count, hour(found.next)


@pytest.mark.parametrize("catch_up", ["none", "one", "all"])
def test_what_is_on_time_fires_whatever_is_to_be_caught_up(catch_up: str) -> None:
    assert told(decide(hourly(catch_up), HOUR_MS)) == (1, 0, 2)
    assert told(decide(hourly(catch_up), HOUR_MS + ON_TIME_MS)) == (1, 0, 2)


def test_of_what_was_missed_none_one_or_the_newest_fire() -> None:
    late = 5 * HOUR_MS + HOUR_MS // 2
    assert told(decide(hourly("none"), late)) == (None, 5, 6)
    assert told(decide(hourly("one"), late)) == (5, 4, 6)
    assert told(decide(hourly("all"), late)) == (1, 0, 2)
    assert told(decide(hourly("all", 3), late)) == (3, 2, 4)
    assert told(decide(hourly("all", 3), late, 3 * HOUR_MS)) == (3, 0, 4)
    missed = decide(hourly("one"), late).missed
    assert missed is not None
    assert (missed.first_ms, missed.last_ms) == (HOUR_MS, 4 * HOUR_MS)


def test_the_newest_is_not_made_up_for_where_a_later_one_is_on_time() -> None:
    assert told(decide(hourly("one"), 5 * HOUR_MS + 5)) == (5, 4, 6)
    assert told(decide(hourly("none"), 5 * HOUR_MS + 5)) == (5, 4, 6)


def test_what_is_later_than_its_deadline_is_missed() -> None:
    late = 5 * HOUR_MS + HOUR_MS // 2
    assert told(decide(hourly("all", deadline_ms=HOUR_MS), late)) == (5, 4, 6)
    assert told(decide(hourly("one", deadline_ms=HOUR_MS // 4), late)) == (None, 5, 6)
    found = decide(hourly("one", deadline_ms=10), HOUR_MS + 11)
    assert told(found) == (None, 1, 2)
    assert found.missed is not None
    assert "startingDeadline" in found.missed.why


@pytest.mark.parametrize("catch_up", ["none", "one", "all"])
def test_a_long_row_of_missed_ones_is_gone_through_in_bounded_steps(catch_up: str) -> None:
    plan, late = hourly(catch_up, 3), 10_000 * HOUR_MS + HOUR_MS // 2
    at: Stand | None = Stand(HOUR_MS, HOUR_MS)
    fired: list[int] = []
    missed = steps = 0
    while at is not None and at.due_ms <= late:
        found = step(plan, "uid", at, 0, late)
        fired += [] if found.fire is None else [found.fire.occurrence_ms // HOUR_MS]
        missed += 0 if found.missed is None else found.missed.count
        at, steps = found.next, steps + 1
    assert fired == {"none": [], "one": [10_000], "all": [9_998, 9_999, 10_000]}[catch_up]
    assert missed + len(fired) == 10_000
    assert steps <= 10_000 // (STEP_MAX - 3) + 4


def test_nothing_of_before_a_change_is_due() -> None:
    found = step(hourly("all"), "uid", Stand(HOUR_MS, HOUR_MS), 3 * HOUR_MS + 5, 5 * HOUR_MS + 10)
    assert told(found)[0] == 1
    assert found.next == Stand(4 * HOUR_MS + 5, 4 * HOUR_MS + 5)


def test_a_new_session_is_called_after_schedule_and_occurrence() -> None:
    plan = msgspec.structs.replace(hourly(), session="")
    at = to_ms(datetime(2026, 11, 24, 14, 0, 0, 250_000, tzinfo=UTC))
    assert session_of(plan, "renewal-check", at) == "renewal-check-20261124t140000-250z"
    long = session_of(plan, "a" * 63, at - 250)
    assert long.endswith("a-20261124t140000z")
    assert len(long) <= 63
    assert session_of(hourly(), "renewal-check", at) == "s"
