"""A call of Cloud Tasks: whoever it is that calls, it makes Talon look at one schedule; what is due there fires, once.

| what is found | answer | and then |
| --- | --- | --- |
| the schedule stands at that occurrence, which is due | 200 `taken` | it fired, or was missed, or is tried again by the scheduler |
| it does not stand there: fired, changed, paused or deleted | 200 `moved_on` | the task is done with |
| it is not due yet | 425 `early` | Cloud Tasks calls again |
| the database is away | 503 | Cloud Tasks calls again |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from talon.dispatch.schedules.cloudtasks.callers import Callers, check_bound
from talon.dispatch.schedules.cloudtasks.occurrence import decode
from talon.dispatch.schedules.firing import Firer
from talon.store.protocols import Store

#: Where calls come to, below the address under which Cloud Tasks knows the process.
PATH = "/v1/callbacks/schedules"


class Answer(NamedTuple):
    """What a genuine call is told. `wait_s`: until it is worth to call again."""

    status: int
    outcome: Literal["taken", "moved_on", "early"]
    wait_s: float = 0.0


class Callbacks:
    """Answers calls. `moved` is told that a schedule has moved on."""

    def __init__(self, store: Store, firer: Firer, callers: Callers, moved: Callable[[], None]) -> None:
        self._store, self._firer, self._callers, self._moved = store, firer, callers, moved

    async def recognise(self, authorization: str) -> str:
        """Whom the call is of; see `Callers.recognise`."""
        return await self._callers.recognise(authorization)

    async def answer(self, task: str, body: bytes) -> Answer:
        """Deal with a call of which `recognise` said `task`. Raises `Malformed`, `Unauthenticated`, `Unavailable`."""
        one = decode(body)
        check_bound(task, one)
        now_ms, row = await self._store.schedule_now(one.uid)
        if row is None or row.occurrence_ms != one.occurrence_ms or row.due_ms is None:
            return Answer(200, "moved_on")
        if row.due_ms > now_ms:
            return Answer(425, "early", (row.due_ms - now_ms) / 1000)
        await self._firer.deal_with([row], now_ms)
        self._moved()
        return Answer(200, "taken")
