"""When schedules fire: their occurrences, what is due, and what was missed. Pure: the same times for the same tz database.

At clock changes a cron expression keeps to Debian's cron. With a fixed minute and hour (`30 2 * * *`) it fires at the local time
that it names: where that time is left out, at the first moment after the gap; where it comes twice, the first time only. With `*`
in front of the minute or the hour it fires by elapsed time: what is left out is not made up for, what comes twice fires twice.
`every` counts elapsed time and knows no zone.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Any

import msgspec
from cronsim import CronSim

from talon.domain.schedules import Missed, SchedulePlan, Stand, Timing
from talon.manifest.fields import duration_ms
from talon.manifest.schedule import ScheduleSpec, cron_fields, moment

#: What starts no later than this after it was due is on time, whatever `catchUp` says: a scheduler that died is replaced by then.
ON_TIME_MS = 60_000
#: Due occurrences that are looked at in one step; a longer row of missed ones takes several.
STEP_MAX = 2_000
#: No clock is changed twice within this.
_CHANGES_APART = timedelta(hours=12)
#: The last moment that is computed: the end of the year 9998.
_END_MS = 253_370_764_799_000


def plan_of(spec: ScheduleSpec) -> SchedulePlan:
    """A schedule's manifest as it is carried out."""
    timing = Timing(
        kind=spec.kind,
        timezone=spec.timezone,
        cron=cron_fields(spec.cron) if spec.cron else "",
        at=spec.at or "",
        every_ms=duration_ms(spec.every) if spec.every else 0,
        jitter_ms=duration_ms(spec.jitter) if spec.jitter else 0,
        until=spec.until or "",
    )
    return SchedulePlan(
        timing=timing,
        agent=spec.target.agent,
        session=spec.target.session_id or "",
        message=spec.input_message,
        overlap=spec.overlap,
        catch_up=spec.catch_up,
        catch_up_max=spec.catch_up_max or 10,
        deadline_ms=None if spec.starting_deadline is None else duration_ms(spec.starting_deadline),
        history_limit=spec.history_limit,
    )


def same_times(spec: ScheduleSpec, before: Mapping[str, Any] | None) -> bool:
    """Whether a schedule that was enabled with the spec `before` keeps its times with this one."""
    if not before or not before.get("enabled", True):
        return False
    return plan_of(ScheduleSpec.model_validate(before)).timing == plan_of(spec).timing


def never_fires(spec: ScheduleSpec, now_ms: int) -> tuple[str, str]:
    """Of a schedule that has no time after `now_ms`: which field keeps it from firing, and what to do."""
    kept = "give it a later time, or keep it with enabled: false"
    if spec.kind == "at" or spec.until is None:
        return spec.kind, f"never fires: that is over; {kept}"
    if to_ms(moment(spec.until, spec.timezone)) <= now_ms:
        return "until", f"never fires: that is over; {kept}"
    first = preview(msgspec.structs.replace(plan_of(spec).timing, until=""), now_ms, now_ms, 1)
    return "until", f"never fires: the first time would be {local(first[0], spec.timezone)}, after this; {kept}"


def occurrences(timing: Timing, after_ms: int, since_ms: int) -> Iterator[int]:
    """The occurrences later than `after_ms`, in order, strictly growing. `every` counts from `since_ms`."""
    until_ms = to_ms(moment(timing.until, timing.timezone)) if timing.until else _END_MS
    for occurrence_ms in _all(timing, after_ms, since_ms):
        if occurrence_ms > until_ms:
            return
        if occurrence_ms > after_ms:
            yield occurrence_ms


def _all(timing: Timing, after_ms: int, since_ms: int) -> Iterator[int]:
    if timing.kind == "at":
        yield to_ms(moment(timing.at, timing.timezone))
    elif timing.kind == "every":
        occurrence_ms = since_ms + max(1, (after_ms - since_ms) // timing.every_ms + 1) * timing.every_ms
        while occurrence_ms <= _END_MS:
            yield occurrence_ms
            occurrence_ms += timing.every_ms
    elif after_ms < _END_MS:
        start = datetime.fromtimestamp(after_ms // 1000, UTC)
        minute, hour = timing.cron.split()[:2]
        if timing.timezone == "UTC":
            found = CronSim(timing.cron, start)
        elif minute.startswith("*") or hour.startswith("*"):
            found = _by_elapsed_time(timing.cron, zoneinfo.ZoneInfo(timing.timezone), start)
        else:
            # Where the clock is put back, the first results may be those of the hour that is over: `occurrences` drops them.
            found = CronSim(timing.cron, start.astimezone(zoneinfo.ZoneInfo(timing.timezone)))
        for local in found:
            if local.year > 9998:
                return
            yield to_ms(local)


def _by_elapsed_time(cron: str, zone: zoneinfo.ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Every moment at which the zone's clock shows what `cron` names: between two changes of the clock it is one of a fixed offset.

    (cronsim does this too, and goes wrong where a clock changes by less than an hour.)
    """
    known = after
    offset = _offset(zone, after)
    while True:
        change: datetime | None = None
        for shown in CronSim(cron, (after + offset).replace(tzinfo=None)):
            moment = shown.replace(tzinfo=UTC) - offset
            change = _change(zone, known, moment)
            if change is not None:
                break
            yield moment
            known = moment
        if change is None:
            return
        known, after, offset = change, change - timedelta(seconds=1), _offset(zone, change)


def _change(zone: zoneinfo.ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first moment after `after` and not after `until` that has another offset; None if there is none."""
    offset, at = _offset(zone, after), after
    while at < until:
        later = min(at + _CHANGES_APART, until)
        if _offset(zone, later) != offset:
            while later - at > timedelta(seconds=1):
                middle = (at + (later - at) / 2).replace(microsecond=0)
                at, later = (middle, later) if _offset(zone, middle) == offset else (at, middle)
            return later
        at = later
    return None


def _offset(zone: zoneinfo.ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def stands(timing: Timing, uid: str, after_ms: int, since_ms: int) -> Iterator[Stand]:
    """The occurrences after `after_ms` with the moments at which they are due.

    The delay of an occurrence is drawn from `uid` and itself, so that it is the same wherever and whenever it is asked for; it is
    less than the jitter and than the time to the next occurrence, so occurrences are due in their order.
    """
    found = occurrences(timing, after_ms, since_ms)
    current = next(found, None)
    while current is not None:
        following = next(found, None) if timing.jitter_ms else None
        yield Stand(current, current + _delay_ms(timing, uid, current, following))
        current = following if timing.jitter_ms else next(found, None)


def first_after(timing: Timing, uid: str, after_ms: int, since_ms: int) -> Stand | None:
    """The next of them; None if it never fires again."""
    return next(stands(timing, uid, after_ms, since_ms), None)


def _delay_ms(timing: Timing, uid: str, occurrence_ms: int, following_ms: int | None) -> int:
    most = timing.jitter_ms if following_ms is None else min(timing.jitter_ms, following_ms - occurrence_ms)
    if most <= 0:
        return 0
    drawn = hashlib.sha256(f"{uid}/{occurrence_ms}".encode()).digest()
    return int.from_bytes(drawn[:8]) % most


class FireTime(msgspec.Struct, frozen=True):
    """When a schedule fires: in UTC, and as the clock of its zone shows it."""

    at: str
    local: str


class Step(msgspec.Struct, frozen=True):
    """What to do about a schedule whose occurrence is due: record `missed`, fire `fire`, go on to `next`."""

    missed: Missed | None
    fire: Stand | None
    next: Stand | None


def step(plan: SchedulePlan, uid: str, at: Stand, since_ms: int, now_ms: int) -> Step:
    """Decide about a schedule that stands at `at`, which is due, and was last changed at `since_ms`.

    What is no more than `ON_TIME_MS` late fires, one by one. Of older ones, `catchUp` none fires none, one the newest if nothing
    later is due, all the newest `catch_up_max`. Whatever is later than its deadline is missed. What is missed is one record.
    """
    coming = stands(plan.timing, uid, max(at.occurrence_ms, since_ms), since_ms)
    due, following = [at], next(coming, None)
    while following is not None and following.due_ms <= now_ms and len(due) < STEP_MAX:
        due.append(following)
        following = next(coming, None)
    cut = following is not None and following.due_ms <= now_ms
    fire = next((index for index, one in enumerate(due) if _fires(plan, one, now_ms, cut, behind=len(due) - index - 1)), None)
    # More is due than was looked at: the newest of these may still be wanted, or not, and are looked at again.
    over = (1 if plan.catch_up == "one" else plan.catch_up_max if plan.catch_up == "all" else 0) if cut and fire is None else 0
    passed = due[:fire] if fire is not None else due[: len(due) - over]
    missed = (
        Missed(len(passed), passed[0].occurrence_ms, passed[-1].occurrence_ms, _why(plan, passed[-1], now_ms)) if passed else None
    )
    if fire is not None:
        return Step(missed, due[fire], due[fire + 1] if fire + 1 < len(due) else following)
    return Step(missed, None, due[len(passed)] if over else following)


def _fires(plan: SchedulePlan, one: Stand, now_ms: int, cut: bool, behind: int) -> bool:
    """`behind` later ones are due too, and more if `cut`."""
    late_ms = now_ms - one.due_ms
    if plan.deadline_ms is not None and late_ms > plan.deadline_ms:
        return False
    if late_ms <= ON_TIME_MS:
        return True
    return not cut and behind < {"none": 0, "one": 1, "all": plan.catch_up_max}[plan.catch_up]


def _why(plan: SchedulePlan, last: Stand, now_ms: int) -> str:
    if plan.deadline_ms is not None and now_ms - last.due_ms > plan.deadline_ms:
        return "later than its startingDeadline"
    most = f" with a catchUpMax of {plan.catch_up_max}" if plan.catch_up == "all" else ""
    return f"nothing could fire it in time, and catchUp is {plan.catch_up}{most}"


def preview(timing: Timing, now_ms: int, since_ms: int, count: int) -> list[int]:
    """The next `count` occurrences, fewer if it ends; none in a zone that this process's database does not have."""
    try:
        return list(islice(occurrences(timing, now_ms, since_ms), count))
    except zoneinfo.ZoneInfoNotFoundError:
        return []


def session_of(plan: SchedulePlan, name: str, occurrence_ms: int) -> str:
    """The session that an occurrence wakes; a new one is called after schedule and occurrence: `NAME-20261124t140000z`."""
    if plan.session:
        return plan.session
    stamp = datetime.fromtimestamp(occurrence_ms / 1000, UTC)
    text = stamp.strftime("%Y%m%dt%H%M%S") + (f"-{occurrence_ms % 1000:03}" if occurrence_ms % 1000 else "") + "z"
    return f"{name[: 62 - len(text)].rstrip('-')}-{text}"


def local(ms: int, timezone: str) -> str:
    """A moment as RFC 3339 in a zone; in UTC where this process's database has no such zone."""
    try:
        zone: tzinfo = zoneinfo.ZoneInfo(timezone)
    except zoneinfo.ZoneInfoNotFoundError:
        zone = UTC
    return datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="milliseconds" if ms % 1000 else "seconds")


def fire_time(ms: int, timezone: str) -> FireTime:
    """A moment as it is told."""
    at = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return FireTime(at.removesuffix("+00:00") + "Z", local(ms, timezone))


def to_ms(at: datetime) -> int:
    """Unix milliseconds of a time with a zone."""
    return round(at.timestamp() * 1000)
