"""Firing: what is due becomes a message, or a record of what was missed, and the schedule moves on with it, in one commit.

Whoever finds that something is due may come here, at the same time as others: the store lets one of them through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from talon.dispatch.schedules.wakeups import Agent, Wakeups
from talon.domain.errors import Conflict, TalonError, Unavailable
from talon.domain.schedules import Firing, SchedulePlan, Stand, decode_plan
from talon.manifest.effective import Effective
from talon.manifest.occurrences import session_of, step
from talon.store.protocols import Store
from talon.store.schedules import ScheduleRow

#: Between two attempts to fire what could not be fired, doubled each time up to the second.
RETRY_FIRST_MS, RETRY_MOST_MS = 1_000, 60_000
#: How many rows are decided before others get a turn on the event loop.
_BREATH = 50
log = logging.getLogger(__name__)


class Firer:
    """Fires schedules that are due. `ahead_ms`: so long before an occurrence is due somebody else is to be told of it."""

    def __init__(self, store: Store, wakeups: Wakeups, ahead_ms: int = 0) -> None:
        self._store, self._wakeups, self.ahead_ms = store, wakeups, ahead_ms

    async def deal_with(self, rows: Sequence[ScheduleRow], now_ms: int) -> None:
        """Fire, or record as missed, what is due of `rows`. Raises `Unavailable` if some of it could not be written."""
        work: list[tuple[ScheduleRow, SchedulePlan, Firing]] = []
        for nth, row in enumerate(rows):
            if nth % _BREATH == 0:
                await asyncio.sleep(0)
            try:
                plan = decode_plan(row.plan)
                work.append((row, plan, self._firing(row, plan, now_ms)))
            except Exception as error:
                log.exception("schedule %s/%s cannot be computed", row.namespace, row.name)
                await self.put_off(row, f"its next time cannot be computed: {error}")
        passed = [firing for _, _, firing in work if firing.occurrence_ms is None]
        if passed:
            await self._store.pass_over(passed)
        fired = [one for one in work if one[2].occurrence_ms is not None]
        agents = await self._wakeups.agents({(firing.namespace, firing.agent) for _, _, firing in fired})
        done = await asyncio.gather(*(self._fire(*one, agents) for one in fired), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def put_off(self, row: ScheduleRow, error: str) -> None:
        """Say why it could not be fired; it is tried again after a while, longer each time."""
        wait_ms = min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** min(row.failures, 16))
        log.warning("schedule %s/%s: %s; next try in %.0f s", row.namespace, row.name, error, wait_ms / 1000)
        await self._store.put_off(row.uid, row.occurrence_ms or 0, wait_ms, error)

    async def _fire(self, row: ScheduleRow, plan: SchedulePlan, firing: Firing, agents: dict[Agent, tuple[int, Effective]]) -> None:
        """Send one; what goes wrong is told by its row, and tried again."""
        try:
            await self._wakeups.send(plan, firing, agents.get((firing.namespace, firing.agent)))
        except Conflict as error:
            if error.code == "firing_superseded":
                log.debug("schedule %s/%s has moved on", row.namespace, row.name)
            else:
                await self.put_off(row, f"{error.detail} [{error.code}]")
        except TalonError as error:
            if isinstance(error, Unavailable) and error.http_status == Unavailable.http_status:
                raise  # it is the database's matter, not this schedule's; the hold ends by itself
            await self.put_off(row, f"{error.detail} [{error.code}]")
        except Exception as error:
            log.exception("schedule %s/%s cannot be fired", row.namespace, row.name)
            await self.put_off(row, f"{type(error).__name__}: {error}")

    def _firing(self, row: ScheduleRow, plan: SchedulePlan, now_ms: int) -> Firing:
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
            ahead_ms=self.ahead_ms,
        )
