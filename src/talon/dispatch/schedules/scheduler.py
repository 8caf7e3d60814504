"""The scheduler: takes schedules that are due, fires them, and moves them on.

    take due rows (held for a while) ──> decide ──> deliver message and move on, in one commit ──> again
                                            └─────> record what was missed, and move on

Any number of them share the work, and none has to be told of the others: a row that one holds is the others' again after the hold,
and whoever then comes second is refused. Nothing is kept but in the store: one that dies at any instruction leaves an occurrence
either fired and moved on, or neither.

Where somebody else keeps the time too (an `Ahead`), rows come before they are due: he is told, and they come again if he is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from talon.dispatch.rounds import Rounds
from talon.dispatch.schedules.firing import Firer
from talon.dispatch.schedules.wakeups import Wakeups
from talon.domain.bell import Bell
from talon.domain.errors import Unavailable
from talon.domain.schedules import Stand, decode_plan
from talon.manifest.occurrences import first_after
from talon.store.protocols import Store
from talon.store.schedules import Due, Look, ScheduleRow

#: Rows that are taken at once.
BATCH_MAX = 1_000
log = logging.getLogger(__name__)


class Ahead(Protocol):
    """Somebody else who keeps the time."""

    def offer(self, rows: Sequence[ScheduleRow], now_ms: int) -> None:
        """Tell him of occurrences that come; the rows are this scheduler's for a while. Does not wait and does not raise; what it
        cannot take comes again."""
        ...


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """`hold_s`: how long rows that were taken are left to their taker; `sweep_s`: between two looks that nothing announced;
    `tzdata`: the version of the zones that this process computes with; `ahead_ms`: see `Firer`."""

    tzdata: str
    hold_s: float = 10.0
    sweep_s: float = 1.0
    ahead_ms: int = 0


class Scheduler:
    """One scheduler of a process. `run` until `stop`; `hear` is given every bell of the process. Its `firer` others may use too."""

    def __init__(self, store: Store, wakeups: Wakeups, settings: SchedulerSettings, ahead: Ahead | None = None) -> None:
        self._store, self._settings, self._ahead = store, settings, ahead
        self.firer = Firer(store, wakeups, settings.ahead_ms)
        self._rounds = Rounds()
        self._zones_checked = False

    def hear(self, bell: Bell) -> None:
        """Look now: a resource was written, which may be a schedule."""
        if bell.namespaces or bell.everything:
            self.look()

    def look(self) -> None:
        """Look now: a schedule has moved on."""
        self._rounds.wake()

    def stop(self) -> None:
        """Take nothing more; `run` ends when what it has taken is dealt with."""
        self._rounds.stop()

    async def run(self) -> None:
        """Fire what is due until `stop`. Survives a database that goes away."""
        while self._rounds.begin():
            pause_s = self._settings.sweep_s
            try:
                if not self._zones_checked:
                    await self._renew()
                    self._zones_checked = True
                due = await self._store.take_due(BATCH_MAX, int(self._settings.hold_s * 1000))
                if due.rows:
                    await self._look_at(due)
                    continue
                if due.next_in_ms is not None:
                    pause_s = min(pause_s, due.next_in_ms / 1000)
            except Unavailable as error:
                log.warning("the database cannot be reached, trying again: %s", error.detail)
            await self._rounds.rest(pause_s)

    async def _look_at(self, due: Due) -> None:
        """Fire what is due; tell of the rest, or leave it until it is."""
        early = [row for row in due.rows if row.due_ms is not None and row.due_ms > due.now_ms]
        if early and self._ahead is not None:
            self._ahead.offer(early, due.now_ms)
        elif early:
            await self._store.look_later([Look(row.uid, row.since_ms, row.occurrence_ms or 0, row.due_ms or 0) for row in early])
        if len(early) < len(due.rows):
            await self.firer.deal_with([row for row in due.rows if row.due_ms is None or row.due_ms <= due.now_ms], due.now_ms)

    # --- zones ---------------------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Compute anew what was computed with older zones, unless it is due already."""
        version, renewed = self._settings.tzdata, 0
        place = ("", "")
        while rows := await self._store.list_outdated(version, place, BATCH_MAX):
            for row in rows:
                await asyncio.sleep(0)
                try:
                    renewed += await self._store.stand_anew(row, _anew(row), version, self.firer.ahead_ms)
                except (ValueError, LookupError) as error:  # of a zone that there is no more
                    await self.firer.put_off(row, f"its next time cannot be computed with the zones of {version}: {error}")
            place = (rows[-1].tzdata, rows[-1].uid)
        log.info("schedules fire by the time zones of %s; %d were computed anew", version or "an unknown version", renewed)


def _anew(row: ScheduleRow) -> Stand | None:
    return first_after(decode_plan(row.plan).timing, row.uid, max(row.done_ms, row.since_ms), row.since_ms)
