"""The scheduler: takes schedules that are due, fires them, and moves them on.

    take due rows (held for a while) ──> decide ──> deliver message and move on, in one commit ──> again
                                            └─────> record what was missed, and move on

Any number of them share the work, and none has to be told of the others: a row that one holds is the others' again after the hold,
and whoever then comes second is refused. Nothing is kept but in the store: one that dies at any instruction leaves an occurrence
either fired and moved on, or neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from talon.dispatch.schedules.wakeups import Agent, Wakeups
from talon.domain.bell import Bell
from talon.domain.errors import Conflict, TalonError, Unavailable
from talon.domain.schedules import Firing, SchedulePlan, Stand, decode_plan
from talon.manifest.effective import Effective
from talon.manifest.occurrences import first_after, session_of, step
from talon.store.protocols import Store
from talon.store.schedules import ScheduleRow

#: Rows that are taken at once.
BATCH_MAX = 1_000
#: Between two attempts to fire what could not be fired, doubled each time up to the second.
RETRY_FIRST_MS, RETRY_MOST_MS = 1_000, 60_000
#: How many rows are decided before others get a turn on the event loop.
_BREATH = 50
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """`hold_s`: how long rows that were taken are left to their taker; `sweep_s`: between two looks that nothing announced;
    `tzdata`: the version of the zones that this process computes with."""

    tzdata: str
    hold_s: float = 10.0
    sweep_s: float = 1.0


class Scheduler:
    """One scheduler of a process. `run` until `stop`; `hear` is given every bell of the process."""

    def __init__(self, store: Store, wakeups: Wakeups, settings: SchedulerSettings) -> None:
        self._store, self._wakeups, self._settings = store, wakeups, settings
        self._wake = asyncio.Event()
        self._stopping = False
        self._zones_checked = False

    def hear(self, bell: Bell) -> None:
        """Look now: a resource was written, which may be a schedule."""
        if bell.namespaces or bell.everything:
            self._wake.set()

    def stop(self) -> None:
        """Take nothing more; `run` ends when what it has taken is dealt with."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Fire what is due until `stop`. Survives a database that goes away."""
        while not self._stopping:
            self._wake.clear()
            pause_s = self._settings.sweep_s
            try:
                if not self._zones_checked:
                    await self._renew()
                    self._zones_checked = True
                due = await self._store.take_due(BATCH_MAX, int(self._settings.hold_s * 1000))
                if due.rows:
                    await self._deal_with(due.rows, due.now_ms)
                    continue
                if due.next_in_ms is not None:
                    pause_s = min(pause_s, due.next_in_ms / 1000)
            except Unavailable as error:
                log.warning("the database cannot be reached, trying again: %s", error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    # --- firing --------------------------------------------------------------------------------------------------------------

    async def _deal_with(self, rows: Sequence[ScheduleRow], now_ms: int) -> None:
        """Fire, or record as missed, what is due of `rows`. Raises `Unavailable` if some of it could not be written."""
        work: list[tuple[ScheduleRow, SchedulePlan, Firing]] = []
        for nth, row in enumerate(rows):
            if nth % _BREATH == 0:
                await asyncio.sleep(0)
            try:
                plan = decode_plan(row.plan)
                work.append((row, plan, _firing(row, plan, now_ms)))
            except Exception as error:
                log.exception("schedule %s/%s cannot be computed", row.namespace, row.name)
                await self._put_off(row, f"its next time cannot be computed: {error}")
        passed = [firing for _, _, firing in work if firing.occurrence_ms is None]
        if passed:
            await self._store.pass_over(passed)
        fired = [one for one in work if one[2].occurrence_ms is not None]
        agents = await self._wakeups.agents({(firing.namespace, firing.agent) for _, _, firing in fired})
        done = await asyncio.gather(*(self._fire(*one, agents) for one in fired), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def _fire(self, row: ScheduleRow, plan: SchedulePlan, firing: Firing, agents: dict[Agent, tuple[int, Effective]]) -> None:
        """Send one; what goes wrong is told by its row, and tried again."""
        try:
            await self._wakeups.send(plan, firing, agents.get((firing.namespace, firing.agent)))
        except Conflict as error:
            if error.code == "firing_superseded":
                log.debug("schedule %s/%s has moved on", row.namespace, row.name)
            else:
                await self._put_off(row, f"{error.detail} [{error.code}]")
        except TalonError as error:
            if isinstance(error, Unavailable) and error.http_status == Unavailable.http_status:
                raise  # it is the database's matter, not this schedule's; the hold ends by itself
            await self._put_off(row, f"{error.detail} [{error.code}]")
        except Exception as error:
            log.exception("schedule %s/%s cannot be fired", row.namespace, row.name)
            await self._put_off(row, f"{type(error).__name__}: {error}")

    async def _put_off(self, row: ScheduleRow, error: str) -> None:
        wait_ms = min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** min(row.failures, 16))
        log.warning("schedule %s/%s: %s; next try in %.0f s", row.namespace, row.name, error, wait_ms / 1000)
        await self._store.put_off(row.uid, row.occurrence_ms or 0, wait_ms, error)

    # --- zones ---------------------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Compute anew what was computed with older zones, unless it is due already."""
        version, renewed = self._settings.tzdata, 0
        place = ("", "")
        while rows := await self._store.list_outdated(version, place, BATCH_MAX):
            for row in rows:
                await asyncio.sleep(0)
                try:
                    renewed += await self._store.stand_anew(row, _anew(row), version)
                except ValueError as error:
                    await self._put_off(row, f"its next time cannot be computed with the zones of {version}: {error}")
            place = (rows[-1].tzdata, rows[-1].uid)
        log.info("schedules fire by the time zones of %s; %d were computed anew", version or "an unknown version", renewed)


def _firing(row: ScheduleRow, plan: SchedulePlan, now_ms: int) -> Firing:
    """What becomes of a row that is due."""
    if row.occurrence_ms is None or row.due_ms is None:
        raise AssertionError("a row that stands at nothing is never due")
    done = step(plan, row.uid, Stand(row.occurrence_ms, row.due_ms), row.since_ms, now_ms)
    fire = done.fire
    return Firing(
        uid=row.uid,
        namespace=row.namespace,
        name=row.name,
        generation=row.generation,
        at_ms=row.occurrence_ms,
        occurrence_ms=None if fire is None else fire.occurrence_ms,
        due_ms=row.due_ms if fire is None else fire.due_ms,
        next=done.next,
        missed=done.missed,
        agent=plan.agent,
        session="" if fire is None else session_of(plan, row.name, fire.occurrence_ms),
        overlap=plan.overlap,
        history_limit=plan.history_limit,
    )


def _anew(row: ScheduleRow) -> Stand | None:
    return first_after(decode_plan(row.plan).timing, row.uid, max(row.done_ms, row.since_ms), row.since_ms)
