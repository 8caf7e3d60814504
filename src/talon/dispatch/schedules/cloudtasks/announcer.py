"""Telling the queue of occurrences that come, and taking back those that do not come any more.

The queue is a doorbell (K7): nothing depends on it. What it was told of, the database leaves to its call, and looks again
`late_ms` after that was due. What it could not be told of, the database fires when it is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from talon.dispatch.rounds import Rounds
from talon.dispatch.schedules.cloudtasks.occurrence import Occurrence, encode, task_id
from talon.dispatch.schedules.cloudtasks.queue import NewTask, TaskQueue, Unreached
from talon.domain.errors import Unavailable
from talon.domain.ids import Clock
from talon.store.protocols import Store
from talon.store.schedules import Look, ScheduleRow

#: Cloud Tasks takes nothing that is more than 30 days ahead, by its own clock; later ones are told of later.
AHEAD_MS = 30 * 86_400_000 - 3_600_000
#: Requests at once, and occurrences that wait for theirs; more come again after the schedulers' hold.
AT_ONCE, PENDING_MAX = 32, 10_000
#: How long a queue that cannot be reached is left alone, doubled each time up to the second.
REST_FIRST_S, REST_MOST_S = 5.0, 300.0
log = logging.getLogger(__name__)


class Announcer:
    """An `Ahead` that tells `queue`. `authorize` makes the header that a task shows, "" where the queue does that itself.
    `sweep_s`: between two looks for what was dropped. `run` until `stop`."""

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        clock: Clock,
        authorize: Callable[[Occurrence, int], str],
        late_ms: int,
        sweep_s: float = 1.0,
    ) -> None:
        self._store, self._queue, self._clock, self._authorize = store, queue, clock, authorize
        self._late_ms, self._sweep_s = late_ms, sweep_s
        self._pending: dict[str, tuple[ScheduleRow, int]] = {}
        self._rounds = Rounds()
        self._failures, self._rests_until_s, self._why = 0, 0.0, ""

    def offer(self, rows: Sequence[ScheduleRow], now_ms: int) -> None:
        """See `Ahead.offer`."""
        for row in rows[: max(0, PENDING_MAX - len(self._pending))]:
            self._pending[row.uid] = (row, now_ms)
        self._rounds.wake()

    def stop(self) -> None:
        """Tell of nothing more; what was offered comes again elsewhere."""
        self._rounds.stop()

    async def run(self) -> None:
        """Tell what is offered until `stop`. Survives a database and a queue that go away."""
        while self._rounds.begin():
            try:
                while self._pending and not self._rounds.stopped:
                    await self._tell([self._pending.pop(uid) for uid in list(self._pending)[:AT_ONCE]])
                while not self._resting() and not self._rounds.stopped and await self._take_back():
                    pass
            except Unavailable as error:  # what was offered comes again
                log.warning("the database cannot be reached, trying again: %s", error.detail)
            await self._rounds.rest(self._sweep_s)

    def _resting(self) -> bool:
        return self._clock.monotonic_s() < self._rests_until_s

    async def _tell(self, some: Sequence[tuple[ScheduleRow, int]]) -> None:
        """Tell of some occurrences; the rows come again when they have to."""
        told = [False] * len(some) if self._resting() else await asyncio.gather(*(self._create(row) for row, _ in some))
        if not self._resting():
            self._judge(told)
        rest_ms = max(0, round((self._rests_until_s - self._clock.monotonic_s()) * 1000)) or round(REST_FIRST_S * 1000)
        looks = [
            Look(
                row.uid,
                row.since_ms,
                row.occurrence_ms or 0,
                (row.due_ms or 0) + self._late_ms if done else min(row.due_ms or 0, now_ms + rest_ms),
            )
            for (row, now_ms), done in zip(some, told, strict=True)
        ]
        stand = await self._store.look_later(looks)
        gone = [_occurrence(row) for (row, _), done, stands in zip(some, told, stand, strict=True) if done and not stands]
        await asyncio.gather(*map(self._delete, gone))

    async def _create(self, row: ScheduleRow) -> bool:
        one = _occurrence(row)
        due_ms = row.due_ms or 0
        try:
            await self._queue.create(NewTask(task_id(one), due_ms, encode(one), self._authorize(one, due_ms)))
        except Unreached as error:
            log.debug("schedule %s/%s: %s", row.namespace, row.name, error)
            self._why = str(error)
            return False
        return True

    def _judge(self, told: Sequence[bool]) -> None:
        """Leave a queue alone that took nothing."""
        if any(told):
            if self._failures:
                log.info("Cloud Tasks can be told of occurrences again")
            self._failures = 0
            return
        rest_s = min(REST_MOST_S, REST_FIRST_S * 2 ** min(self._failures, 16))
        self._failures += 1
        self._rests_until_s = self._clock.monotonic_s() + rest_s
        log.warning(
            "Cloud Tasks cannot be told of occurrences (%s); the database fires them; trying again in %.0f s", self._why, rest_s
        )

    async def _take_back(self) -> bool:
        """Delete the tasks of occurrences that were dropped; -> whether there may be more."""
        dropped = await self._store.take_dropped(AT_ONCE)
        await asyncio.gather(*(self._delete(Occurrence(one.uid, one.since_ms, one.occurrence_ms)) for one in dropped))
        return len(dropped) == AT_ONCE

    async def _delete(self, one: Occurrence) -> None:
        """What cannot be deleted calls in vain."""
        with contextlib.suppress(Unreached):
            await self._queue.delete(task_id(one))


def _occurrence(row: ScheduleRow) -> Occurrence:
    return Occurrence(row.uid, row.since_ms, row.occurrence_ms or 0)
