"""Schedules as they may be written: when, in which zone, whom to wake, and what happens when one is late.

Cron expressions have five fields (minute, hour, day of month, month, day of week), with names, `L`, `#` and the words `@hourly`,
`@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`; where both days are given either one fires (Vixie cron).
Zones are those of the IANA database.
"""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, WithJsonSchema

from talon.manifest.document import Complaint
from talon.manifest.fields import Duration, Given, Name, Part, duration_ms, wrong

CRON_MAX: Final = 256
ZONE_MAX: Final = 64
INPUT_MAX: Final = 64 * 1024
CATCH_UP_MAX: Final = 1000
HISTORY_MAX: Final = 1000
JITTER_MAX_MS: Final = 24 * 3_600_000
EVERY_MIN_MS: Final = 1000
_WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = ("minute (0-59)", "hour (0-23)", "day of month (1-31, L)", "month (1-12, JAN-DEC)", "day of week (0-7, SUN-SAT)")
#: How many values each field has: a longer step never comes to a second one.
_SPANS: Final = (60, 24, 31, 12, 7)
_NAMES: Final = ("minutes", "hours", "days of a month", "months", "days of a week")
_RANGE: Final = re.compile(r"([0-9]{1,2}|[A-Z]{3})-([0-9]{1,2}|[A-Z]{3})(?:/[0-9]{1,3})?", re.ASCII)
_ITEM: Final = re.compile(
    r"(\*|[0-9]{1,2}|[A-Z]{1,3})(-([0-9]{1,2}|[A-Z]{3}))?(/[0-9]{1,3})?|[0-7]L|([0-7]|[A-Z]{3})#[1-5]", re.ASCII
)
_TIME: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,3})?)?(Z|[+-][0-9]{2}:[0-9]{2})?")
#: What people write for a zone and what names no place: `PST`, `UTC+2`, `+01:00`.
_SHORT: Final = re.compile(r"[A-Z]{2,5}|(UTC|GMT)?[+-][0-9:]{1,5}", re.ASCII)
_NO_PLACE: Final = "; an abbreviation or an offset does not say when clocks change: name a place, or Etc/GMT-2 for UTC+2"
#: Entries of the zone database that name no place: what they mean differs from machine to machine.
_NO_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})


def cron_fields(text: str) -> str:
    """A cron expression as five fields in upper case, `@daily` and its like written out."""
    return _WORDS.get(text.strip().lower(), " ".join(text.upper().split()))


def _cron(text: str) -> str:
    if text.strip().startswith("@"):
        if text.strip().lower() not in _WORDS:
            hint = "; for that write kind: every" if text.strip().lower().startswith("@every") else ""
            raise wrong("cron", "is no cron expression: of the words there are {words}{hint}", words=", ".join(_WORDS), hint=hint)
        return text
    fields = cron_fields(text).split(" ")
    if len(fields) != len(_FIELDS):
        raise wrong(
            "cron",
            "is no cron expression: it has {count} fields and needs 5: {names}{hint}",
            count=len(fields) if fields != [""] else 0,
            names=", ".join(_FIELDS),
            hint="; seconds are not among them" if len(fields) == len(_FIELDS) + 1 else "",
        )
    for at, field in enumerate(fields):
        if why := next(filter(None, (_wrong_item(item, at) for item in field.split(","))), "") or _wrong_alone(field, at):
            raise wrong("cron", "is no cron expression: {why}", why=why)
    if not _reads(" ".join(fields)) or next(_cron_times(" ".join(fields)), None) is None:
        raise wrong("cron", "never fires: day {day} does not come in month {month}", day=fields[2], month=fields[3])
    return text


def _wrong_item(item: str, at: int) -> str:
    """Why an item of a list is none in that field, and what to write instead; "" if it is one."""
    found = _RANGE.fullmatch(item)
    if found and all(not _wrong_alone(end, at) for end in found.groups()) and _wrong_alone(item.partition("/")[0], at):
        return f"{item!r} goes backwards: a range ends at its greater number; write two with a comma, as 22-23,0-2 for 22-2"
    if item and not _ITEM.fullmatch(item):
        return f"{item[:40]!r} is no {_FIELDS[at]}"
    return _wrong_alone(item, at) if item else ""  # an empty one is told with its neighbours


def _wrong_alone(field: str, at: int) -> str:
    return "" if _reads(" ".join("*" if i != at else field for i in range(5))) else f"{field[:40]!r} is no {_FIELDS[at]}"


def _wrong_steps(cron: str) -> str:
    """Why a step is longer than its field, which is no error for cron and never what was meant; "" if none is."""
    for field, most, name in zip(cron_fields(cron).split(), _SPANS, _NAMES, strict=True):
        for item in field.split(","):
            step = item.partition("/")[2]
            if step and int(step) > most:
                return f"the step of {item!r} leaves the {name}, of which there are {most}; for longer distances write kind: every"
    return ""


def _reads(fields: str) -> bool:
    try:
        CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, ValueError):
        return False
    return True


def _cron_times(fields: str) -> Iterator[datetime]:
    return CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC))


@functools.cache
def zones() -> frozenset[str]:
    """The names of all zones: the system's database, or the one that comes with Talon where there is none."""
    return frozenset(zoneinfo.available_timezones()) - _NO_ZONES


def wrong_zone(text: str) -> str:
    """Why it is no zone, with what may be meant; "" if it is one. Asked when a schedule is applied, not when it is read again: a
    process with another zone database may not have it, and must show it all the same."""
    if text in zones():
        return ""
    folded = {name.casefold(): name for name in zones()}
    near = folded.get(text.casefold().replace(" ", "_")) or next(
        (name for name in sorted(zones()) if name.casefold().endswith("/" + text.casefold().replace(" ", "_"))), ""
    )
    if not near and (close := difflib.get_close_matches(text, zones(), n=1, cutoff=0.8)):
        near = close[0]
    hint = f"; did you mean {near!r}?" if near else _NO_PLACE if _SHORT.fullmatch(text) else ""
    return f"is no zone of the IANA database (America/Los_Angeles, Europe/Berlin, UTC){hint}"


def _time(text: str) -> str:
    match = _TIME.fullmatch(text)
    if match is None:
        raise wrong(
            "time", "is no time: write 2026-12-24T18:00:00Z, or with an offset (+01:00), or without one for the schedule's timezone"
        )
    try:
        moment = datetime.fromisoformat(text)
        moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError) as error:
        raise wrong("time", "is no time: {why}", why=str(error)) from None
    if not 1971 <= moment.year <= 9998:
        raise wrong("time", "is no time: the year must be between 1971 and 9998")
    return text


def moment(text: str, timezone: str) -> datetime:
    """A `Time` as a UTC time; one without an offset is read in `timezone` (the first of two where the clock is put back). Raises
    `ValueError` if the clock of that zone never shows it, because it is put forward over it."""
    read = datetime.fromisoformat(text)
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    local = read.replace(tzinfo=zoneinfo.ZoneInfo(timezone))
    found = local.astimezone(UTC)
    if found.astimezone(local.tzinfo).replace(tzinfo=None) != read:
        raise ValueError(f"the clock in {timezone} never shows this time: it is put forward over it")
    return found


Cron = Annotated[
    str,
    Field(min_length=1, max_length=CRON_MAX),
    AfterValidator(_cron),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": CRON_MAX, "examples": ["0 14 * * 1-5", "*/15 * * * *", "@daily"]}
    ),
]
Zone = Annotated[
    str,
    Field(max_length=ZONE_MAX),
    WithJsonSchema({"type": "string", "maxLength": ZONE_MAX, "examples": ["America/Los_Angeles", "Europe/Berlin", "UTC"]}),
]
Time = Annotated[
    str,
    AfterValidator(_time),
    WithJsonSchema({"type": "string", "pattern": f"^{_TIME.pattern}$", "examples": ["2026-12-24T18:00:00Z"]}),
]


class Target(Part):
    """Whom a schedule wakes: an agent, and which of its sessions."""

    agent: Name = Field(description="The agent, of the same namespace.")
    session_mode: Literal["named", "new"] = Field(
        default="named",
        alias="sessionMode",
        description="`named`: always the session `sessionId`, created if absent. `new`: a new session for each occurrence.",
    )
    session_id: Given[Name] = Field(
        default=None, alias="sessionId", description="The session to wake; for `named`, and only there."
    )


class ScheduleSpec(Part):
    """When to wake which session with which message."""

    kind: Literal["cron", "at", "every"] = Field(
        description="By a cron expression, once at a time, or again and again after a duration."
    )
    cron: Given[Cron] = Field(default=None, description="Five fields, or `@daily` and its like; for kind `cron`, and only there.")
    at: Given[Time] = Field(default=None, description="When to fire once; for kind `at`, and only there.")
    every: Given[Duration] = Field(
        default=None, description="How long from one firing to the next, at least 1s; for kind `every`, and only there."
    )
    timezone: Zone = Field(default="UTC", description="The IANA zone in which `cron`, and times without an offset, are read.")
    starting_deadline: Given[Duration] = Field(
        default=None,
        alias="startingDeadline",
        description="How late an occurrence may still start; later it is missed. Absent: any time.",
    )
    jitter: Given[Duration] = Field(
        default=None,
        description="Each occurrence is delayed by a part of this, always the same for the same occurrence; at most 24h.",
    )
    enabled: bool = Field(default=True, description="`false` pauses it.")
    target: Target = Field(description="Whom it wakes.")
    input_message: Annotated[str, Field(min_length=1, max_length=INPUT_MAX)] = Field(
        alias="inputMessage", description="What the agent is told; may have `{{ feature }}` places and `{{ scheduled_at }}`."
    )
    overlap: Literal["queue", "skip", "cancel_running"] = Field(
        default="queue", description="What happens when the named session is still at work; only `queue` with sessionMode new."
    )
    catch_up: Literal["none", "one", "all"] = Field(
        default="one", alias="catchUp", description="Which of the occurrences fire that were missed while nothing could fire."
    )
    catch_up_max: Given[Annotated[int, Field(ge=1, le=CATCH_UP_MAX)]] = Field(
        default=None, alias="catchUpMax", description="With catchUp `all`: at most this many, the newest; absent: 10."
    )
    until: Given[Time] = Field(default=None, description="It fires no more after this time.")
    history_limit: Annotated[int, Field(ge=0, le=HISTORY_MAX)] = Field(
        default=100, alias="historyLimit", description="How many past occurrences are kept."
    )


def wrong_schedule(spec: ScheduleSpec) -> list[Complaint]:
    """Contradictions between the fields of a schedule, and what can never fire. Paths are those of `spec`."""
    found: list[Complaint] = []
    for kind in ("cron", "at", "every"):
        value: Any = getattr(spec, kind)
        if kind == spec.kind and value is None:
            found.append(((kind,), f"is missing: a schedule of kind {kind} needs it", None))
        elif kind != spec.kind and value is not None:
            found.append(((kind,), f"is for kind {kind}, and this schedule is of kind {spec.kind}; keep one of them", value))
    if spec.target.session_mode == "named" and spec.target.session_id is None:
        found.append((("target", "sessionId"), "is missing: name the session, or write sessionMode: new", None))
    elif spec.target.session_mode == "new" and spec.target.session_id is not None:
        found.append((("target", "sessionId"), "is for sessionMode named; with new each occurrence has a session of its own", None))
    if spec.target.session_mode == "new" and spec.overlap != "queue":
        found.append(
            (("overlap",), "is for sessionMode named; with new the sessions of occurrences run side by side", spec.overlap)
        )
    if spec.catch_up_max is not None and spec.catch_up != "all":
        found.append((("catchUpMax",), f"is for catchUp all, and this is {spec.catch_up}", spec.catch_up_max))
    if spec.cron is not None and (why := _wrong_steps(spec.cron)):
        found.append((("cron",), why, spec.cron))
    if spec.every is not None and duration_ms(spec.every) < EVERY_MIN_MS:
        found.append((("every",), "must be at least 1s", spec.every))
    if spec.jitter is not None:
        longest = min(JITTER_MAX_MS, duration_ms(spec.every)) if spec.every else JITTER_MAX_MS
        if duration_ms(spec.jitter) > longest:
            found.append((("jitter",), "must be at most 24h, and no longer than every", spec.jitter))
    return found + _wrong_times(spec)


def _wrong_times(spec: ScheduleSpec) -> list[Complaint]:
    if why := wrong_zone(spec.timezone):
        return [(("timezone",), why, spec.timezone)]
    found: list[Complaint] = []
    read: dict[str, datetime] = {}
    for field, text in (("at", spec.at), ("until", spec.until)):
        if text is None:
            continue
        try:
            read[field] = moment(text, spec.timezone)
        except (ValueError, OverflowError) as error:
            found.append(((field,), f"is no time: {error}", text))
    if len(read) == 2 and read["at"] > read["until"]:
        found.append((("until",), "is before at: it would never fire", spec.until))
    return found
