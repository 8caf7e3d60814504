"""Schedules as they run: what comes next, what became of what was, and firing one by hand; whatever the transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from talon.dispatch.schedules.wakeups import Wakeups
from talon.domain.errors import Defect
from talon.domain.inbox import Key
from talon.domain.schedules import Firing, SchedulePlan, decode_plan
from talon.gateway.api.asked import Asked
from talon.gateway.api.collections import SCHEDULES, require
from talon.gateway.api.writing import Writing
from talon.gateway.deps import GatewayDeps
from talon.gateway.times import rfc3339, rfc3339_or_none
from talon.manifest import kinds
from talon.manifest.occurrences import FireTime, fire_time, local, plan_of, preview, session_of
from talon.manifest.parse import parse
from talon.manifest.resolve import load
from talon.store.protocols import Store
from talon.store.resources import ResourceRow
from talon.store.schedules import FiringRow, ScheduleRow

#: How many of the next times are told where nobody says how many, and at most.
NEXT_DEFAULT, NEXT_MAX = 5, 100
#: What became of an occurrence, and then of its turn.
Outcome = Literal["skipped", "missed", "queued", "running", "waiting", "completed", "failed", "cancelled", "denied", "fired"]


class ScheduleStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Where a schedule stands, in the casing of manifests, of which it is a part: its next occurrence and when that is due (later
    by its jitter), null if it does not fire again; how often it has fired; how many attempts in a row failed, and why the last
    one did."""

    next_at: str | None
    next_local: str | None
    due_at: str | None
    fired: int
    failures: int
    error: str


class Occurrence(msgspec.Struct, frozen=True):
    """What became of an occurrence. `outcome` is that of its turn (`queued`, `running`, … `completed`), or `skipped`, `missed`;
    `fired` where the turn is not known any more. `lag_ms` is how much later than due it was fired. A `count` above 1 stands for
    that many missed in a row, up to `last_at`. `manual`: fired by hand."""

    at: str
    local: str
    outcome: Outcome
    reason: str
    decided_at: str
    lag_ms: int
    count: int
    last_at: str
    manual: bool
    agent: str
    session_id: str
    turn_id: str


class Fired(msgspec.Struct, frozen=True):
    """What a firing by hand came to: `fired` with its turn, or `skipped` because the session is at work and `overlap` says so."""

    outcome: Literal["fired", "skipped"]
    agent: str
    session_id: str
    turn_id: str
    seq: int


def _status(row: ScheduleRow) -> ScheduleStatus:
    at = row.occurrence_ms
    zone = decode_plan(row.plan).timing.timezone
    return ScheduleStatus(
        rfc3339_or_none(at),
        None if at is None else local(at, zone),
        rfc3339_or_none(row.due_ms),
        row.fired,
        row.failures,
        row.error,
    )


async def statuses(store: Store, rows: Sequence[ResourceRow]) -> dict[str, ScheduleStatus]:
    """uid -> status, of those rows that are schedules: one query for all."""
    uids = [row.uid for row in rows if row.kind == "Schedule"]
    return {row.uid: _status(row) for row in await store.get_schedules(uids)} if uids else {}


async def next_times(deps: GatewayDeps, namespace: str, name: str, count: int) -> list[FireTime]:
    """The next `count` occurrences of a schedule, fewer if it ends; none while it is paused."""
    row = await require(deps.store, SCHEDULES, namespace, name)
    found = next(iter(await deps.store.get_schedules([row.uid])), None)
    if found is None or found.occurrence_ms is None:
        return []
    timing = decode_plan(found.plan).timing
    times = [found.occurrence_ms, *preview(timing, max(found.occurrence_ms, found.since_ms), found.since_ms, count - 1)]
    return [fire_time(ms, timing.timezone) for ms in times]


async def list_history(deps: GatewayDeps, namespace: str, name: str, cursor: str, limit: int) -> tuple[list[Occurrence], str]:
    """What became of a schedule's occurrences, newest first."""
    row = await require(deps.store, SCHEDULES, namespace, name)
    zone = _plan(row).timing.timezone
    rows, after = await deps.store.list_firings(row.uid, cursor, limit)
    return [_occurrence(one, zone) for one in rows], after


async def set_enabled(deps: GatewayDeps, namespace: str, name: str, *, enabled: bool) -> ResourceRow:
    """Pause or resume it: a change of its manifest, as any other."""
    (patch,) = parse(msgspec.json.encode({"spec": {"enabled": enabled}}), "json")
    return await Writing(deps, SCHEDULES).patch(lambda: require(deps.store, SCHEDULES, namespace, name), patch, lambda _: None)


async def trigger(deps: GatewayDeps, asked: Asked, namespace: str, name: str) -> tuple[Fired, bool]:
    """Fire it now, whatever its times, also while it is paused; its next occurrence stays. -> (what it came to, whether the key was
    used before). Raises as a message to that session, and `Conflict("firing_superseded")` if it was deleted meanwhile."""
    row = await require(deps.store, SCHEDULES, namespace, name)
    plan, now_ms = _plan(row), deps.clock.now_ms()
    firing = Firing(
        uid=row.uid,
        namespace=row.namespace,
        name=row.name,
        generation=row.generation,
        at_ms=None,
        occurrence_ms=now_ms,
        due_ms=now_ms,
        next=None,
        agent=plan.agent,
        session=session_of(plan, row.name, now_ms),
        overlap=plan.overlap,
        history_limit=plan.history_limit,
        manual=True,
    )
    wakeups = Wakeups(deps.store, deps.writer.deliver, deps.ids, deps.settings.queue_max)
    found = (await wakeups.agents([(namespace, plan.agent)])).get((namespace, plan.agent))
    key = asked.key_of(("trigger", row.uid)) or Key("schedule", f"{row.uid}/{deps.ids.uuid7()}", "")
    receipt = await wakeups.send(plan, firing, found, key)
    session = await deps.store.get_session_by_sid(receipt.sid)
    if session is None:
        raise Defect("defect", "a receipt names a session that does not exist")
    fired = Fired("fired" if receipt.turn_id else "skipped", session.agent, session.id, receipt.turn_id, receipt.seq)
    return fired, receipt.replayed


def _plan(row: ResourceRow) -> SchedulePlan:
    model = load(row.body)
    if not isinstance(model, kinds.ScheduleDoc):
        raise Defect("defect", f"the manifest of schedule {row.name!r} is none of a schedule")
    return plan_of(model.spec)


def _occurrence(row: FiringRow, zone: str) -> Occurrence:
    outcome = row.outcome if row.outcome != "fired" else row.turn_state or "fired"
    return Occurrence(
        at=rfc3339(row.occurrence_ms),
        local=local(row.occurrence_ms, zone),
        outcome=msgspec.convert(outcome, Outcome),
        reason=row.why or row.turn_reason,
        decided_at=rfc3339(row.at_ms),
        lag_ms=max(0, row.at_ms - row.due_ms),
        count=row.count,
        last_at=rfc3339(row.last_ms),
        manual=row.manual,
        agent=row.agent,
        session_id=row.session,
        turn_id=row.turn_id,
    )
