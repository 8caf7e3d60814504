"""The runtime rows of schedules: where each stands, what it did, and what is due now.

A row is made, changed and removed by the change of its resource, in the same transaction, whoever makes that change. It moves on
only by a `talon.domain.schedules.Firing`: one that is delivered with the message that it stands for (`Journal.deliver`), or one
that only records what was missed (`pass_over`). Both compare the occurrence that the row stands at: whoever comes second does
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from talon.domain.schedules import Firing, Stand

#: What comes back from beyond this far ahead was put there by a clock that has been set back since.
LOOK_MAX_MS = 120_000
#: How long after it is due a row may be left to somebody else who was told of it.
LATE_MAX_MS = 60_000
#: Characters of an error that are kept.
ERROR_MAX = 1_000
Outcome = Literal["fired", "skipped", "missed"]


class ScheduleRow(msgspec.Struct, frozen=True):
    """Where a schedule stands. `plan` is a `talon.domain.schedules.SchedulePlan` as bytes, that of `generation`.

    `enabled` is False while it is paused. `since_ms` is when it was last given its timing, or enabled: nothing before that is due.
    `occurrence_ms` and `due_ms` are None where it does not fire again (paused, over). `look_ms` is when a scheduler looks at it:
    when it is due; before that to tell somebody else of it, up to `LATE_MAX_MS` later when that was done; later while one has it
    in hand or after a failure. `done_ms` is the last occurrence that was dealt with (0:
    none), `tzdata` the version of the zones that the occurrence was computed with. `fired` counts what was fired, `recorded` all
    records. `failures` counts the attempts in a row that failed, `error` says why the last one did.
    """

    uid: str
    namespace: str
    name: str
    generation: int
    enabled: bool
    plan: bytes
    since_ms: int
    occurrence_ms: int | None
    due_ms: int | None
    look_ms: int | None
    done_ms: int
    tzdata: str
    fired: int = 0
    recorded: int = 0
    failures: int = 0
    error: str = ""


class FiringRow(msgspec.Struct, frozen=True):
    """What became of one occurrence, or of `count` that were missed in a row (from `occurrence_ms` to `last_ms`).

    `due_ms` and `at_ms` are when it was due and when that was decided. `agent`, `session`, `sid` and `turn_id` say whom it woke, if
    it did; `why` what kept it from it. `manual`: by hand. `turn_state` and `turn_reason` are those of its turn when this is read.
    """

    uid: str
    number: int
    outcome: Outcome
    occurrence_ms: int
    last_ms: int
    count: int
    due_ms: int
    at_ms: int
    manual: bool
    agent: str
    session: str
    sid: int
    turn_id: str
    why: str
    turn_state: str = ""
    turn_reason: str = ""


class Fires(msgspec.Struct, frozen=True):
    """What the change of a Schedule says to its row. `ahead_ms`: so long before it is due somebody else is to be told of it."""

    plan: bytes
    enabled: bool
    tzdata: str
    ahead_ms: int = 0


class Look(msgspec.Struct, frozen=True):
    """When to look again at a row, if it still stands at that occurrence, of the timing that it was given at `since_ms`."""

    uid: str
    since_ms: int
    occurrence_ms: int
    look_ms: int


class Dropped(msgspec.Struct, frozen=True):
    """An occurrence that somebody else was told of, and at which its schedule stands no more, because that was changed."""

    uid: str
    since_ms: int
    occurrence_ms: int


class Due(msgspec.Struct, frozen=True):
    """Rows that are the caller's for a while, those due first in front; the store's time; and how long until more is due, at the
    soonest (None: nothing is; 0: there is more)."""

    now_ms: int
    rows: tuple[ScheduleRow, ...]
    next_in_ms: int | None


class Schedules(Protocol):
    """Runtime rows of schedules. What a call costs grows with what is due, not with what there is."""

    async def take_due(self, limit: int, hold_ms: int) -> Due:
        """Up to `limit` rows that are to be looked at, nobody else's for the next `hold_ms`: of two who ask at once none gets the
        other's. Those that are not due yet are there for somebody else to be told of them."""
        ...

    async def schedule_now(self, uid: str) -> tuple[int, ScheduleRow | None]:
        """The store's time, and where a schedule stands, whoever has it in hand; None if there is no such schedule."""
        ...

    async def look_later(self, looks: Sequence[Look]) -> list[bool]:
        """Look at these again when they say; -> of each, whether it still stands there. Otherwise nothing is written."""
        ...

    async def take_dropped(self, limit: int) -> list[Dropped]:
        """Up to `limit` occurrences that were dropped, which are forgotten with that."""
        ...

    async def pass_over(self, firings: Sequence[Firing]) -> list[bool]:
        """Record what was missed and move on, of each that still stands where it says; -> whether it did."""
        ...

    async def put_off(self, uid: str, occurrence_ms: int, wait_ms: int, error: str) -> None:
        """Firing it failed: nobody looks at it for `wait_ms`, and `error` is shown. Nothing if it has moved on."""
        ...

    async def get_schedules(self, uids: Sequence[str]) -> list[ScheduleRow]:
        """Those that exist, in no order: one query for all."""
        ...

    async def list_firings(self, uid: str, cursor: str, limit: int) -> tuple[list[FiringRow], str]:
        """What became of a schedule's occurrences, newest first. Paged by an opaque cursor as all lists are."""
        ...

    async def list_outdated(self, tzdata: str, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        """Rows with an occurrence that was computed with zones older than `tzdata`, by (tzdata, uid), those after `after`."""
        ...

    async def stand_anew(self, row: ScheduleRow, stand: Stand | None, tzdata: str, ahead_ms: int = 0) -> bool:
        """Put another occurrence in the place of the one that `row` stands at, unless it has moved on; -> whether it was."""
        ...
