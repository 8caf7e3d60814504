"""What a change or a firing does to a schedule's row, purely: one meaning for both stores."""

from __future__ import annotations

import msgspec

from talon.domain.errors import Conflict
from talon.domain.inbox import Receipt
from talon.domain.schedules import Firing, Stand, decode_plan
from talon.manifest.occurrences import first_after
from talon.store.resources import ResourceRow
from talon.store.schedules import Dropped, Fires, FiringRow, ScheduleRow


def changed_row(old: ScheduleRow | None, fires: Fires, resource: ResourceRow, now: int) -> ScheduleRow:
    """The row after a change of its resource at `now`.

    While its timing stays, so does the occurrence that it stands at, also one that is due and not fired yet; and what failed is
    tried at once. With another timing it begins anew; but what was due before the change is not lost. A paused one stands at none,
    and begins anew when it is enabled: what passes while it is paused is not missed.
    """
    plan = decode_plan(fires.plan)
    place = (resource.uid, resource.namespace, resource.name, resource.generation)
    new = ScheduleRow(*place, fires.enabled, fires.plan, now, None, None, None, 0, fires.tzdata)
    if old is not None:
        new = msgspec.structs.replace(new, done_ms=old.done_ms, fired=old.fired, recorded=old.recorded)
    if not fires.enabled:
        return new
    ahead = fires.ahead_ms
    if old is None or not old.enabled:
        return standing(new, first_after(plan.timing, resource.uid, now, now), now, ahead)
    stands = None if old.occurrence_ms is None or old.due_ms is None else Stand(old.occurrence_ms, old.due_ms)
    if decode_plan(old.plan).timing == plan.timing:
        kept = msgspec.structs.replace(old, generation=new.generation, plan=new.plan, failures=0, error="")
        return standing(kept, stands, now, ahead)
    if stands is not None and stands.due_ms <= now:
        return standing(new, stands, now, ahead)
    return standing(new, first_after(plan.timing, resource.uid, now, now), now, ahead)


def dropped(old: ScheduleRow | None, new: ScheduleRow | None, now: int) -> Dropped | None:
    """The occurrence that somebody was told of and that a change takes away, if it does; `new` None: the schedule is deleted.

    Told was who made a scheduler look later than it is due. (One that is just in hand looks the same: then nobody may know of it.)
    """
    if old is None or old.occurrence_ms is None or old.due_ms is None or not now < old.due_ms < (old.look_ms or 0):
        return None
    if new is not None and (new.since_ms, new.occurrence_ms) == (old.since_ms, old.occurrence_ms):
        return None
    return Dropped(old.uid, old.since_ms, old.occurrence_ms)


def stands_at(row: ScheduleRow | None, firing: Firing) -> bool:
    """Whether `firing` may move `row` on."""
    if row is None:
        return False
    return firing.manual or (row.generation, row.occurrence_ms) == (firing.generation, firing.at_ms)


def superseded(firing: Firing) -> Conflict:
    """The answer to a firing that comes second, or after a change of its schedule."""
    return Conflict(
        "firing_superseded",
        f"schedule {firing.name!r} in namespace {firing.namespace!r} has moved on: that occurrence was dealt with, or the schedule "
        "was changed or deleted; look at its history",
    )


def advanced(row: ScheduleRow, firing: Firing, given: Receipt | None, now: int) -> tuple[ScheduleRow, list[FiringRow]]:
    """The row after `firing`, and what is recorded of it. `given` is the receipt of its message; one without a turn says that
    the session was busy and the occurrence skipped. None: it has no message."""
    records: list[FiringRow] = []
    recorded = row.recorded
    if firing.missed is not None:
        recorded, missed = recorded + 1, firing.missed
        lost = FiringRow(
            row.uid,
            recorded,
            "missed",
            missed.first_ms,
            missed.last_ms,
            missed.count,
            missed.first_ms,
            now,
            False,
            "",
            "",
            0,
            "",
            "",
        )
        why = f"{missed.why}; the last attempt failed: {row.error}" if row.error else missed.why
        records.append(msgspec.structs.replace(lost, why=why))
    if firing.occurrence_ms is not None and given is not None:
        recorded += 1
        records.append(_fired(row, firing, given, recorded, now))
    fired = row.fired + sum(record.outcome == "fired" for record in records)
    if firing.manual:
        return msgspec.structs.replace(row, fired=fired, recorded=recorded), records
    done = firing.occurrence_ms if firing.occurrence_ms is not None else firing.missed.last_ms if firing.missed else row.done_ms
    after = msgspec.structs.replace(row, done_ms=done, fired=fired, recorded=recorded, failures=0, error="")
    return standing(after, firing.next, now, firing.ahead_ms), records


def _fired(row: ScheduleRow, firing: Firing, given: Receipt, number: int, now: int) -> FiringRow:
    occurrence_ms = firing.occurrence_ms or 0
    return FiringRow(
        uid=row.uid,
        number=number,
        outcome="fired" if given.turn_id else "skipped",
        occurrence_ms=occurrence_ms,
        last_ms=occurrence_ms,
        count=1,
        due_ms=firing.due_ms,
        at_ms=now,
        manual=firing.manual,
        agent=firing.agent,
        session=firing.session,
        sid=given.sid,
        turn_id=given.turn_id,
        why="" if given.turn_id else "the session was still at work, and overlap is skip",
    )


def standing(row: ScheduleRow, stand: Stand | None, now: int, ahead_ms: int) -> ScheduleRow:
    """The row at another occurrence, looked at when that is due, or `ahead_ms` before."""
    if stand is None:
        return msgspec.structs.replace(row, occurrence_ms=None, due_ms=None, look_ms=None)
    look_ms = stand.due_ms if not ahead_ms else min(stand.due_ms, max(now, stand.due_ms - ahead_ms))
    return msgspec.structs.replace(row, occurrence_ms=stand.occurrence_ms, due_ms=stand.due_ms, look_ms=look_ms)
