"""What a schedule comes to once it is read: when it is due, whom it wakes, and the record of one occurrence.

An *occurrence* is a time that the schedule names (Unix milliseconds); it is *due* a jitter later. The store keeps one row for each
schedule that stands at the next occurrence; a firing moves it on in the transaction that wakes the session.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Overlap = Literal["queue", "skip", "cancel_running"]
CatchUp = Literal["none", "one", "all"]


class Timing(msgspec.Struct, frozen=True):
    """When a schedule fires, in the words of its manifest: `cron` has five fields, `at` and `until` are times that may be without
    an offset, then they are read in `timezone`. What a kind does not use is empty."""

    kind: Literal["cron", "at", "every"]
    timezone: str = "UTC"
    cron: str = ""
    at: str = ""
    every_ms: int = 0
    jitter_ms: int = 0
    until: str = ""


class SchedulePlan(msgspec.Struct, frozen=True):
    """A schedule as it is carried out. `session` is empty where each occurrence has a session of its own; `deadline_ms` None: an
    occurrence may start however late."""

    timing: Timing
    agent: str
    session: str
    message: str
    overlap: Overlap = "queue"
    catch_up: CatchUp = "one"
    catch_up_max: int = 10
    deadline_ms: int | None = None
    history_limit: int = 100


class Stand(msgspec.Struct, frozen=True):
    """The occurrence that a schedule's row stands at, and when it is due."""

    occurrence_ms: int
    due_ms: int


class Missed(msgspec.Struct, frozen=True):
    """Occurrences in a row that were not fired, and why."""

    count: int
    first_ms: int
    last_ms: int
    why: str


class Firing(msgspec.Struct, frozen=True):
    """What becomes of a schedule's row, if it still stands at occurrence `at_ms` of `generation`: otherwise nothing is written.

    It moves on to `next` (None: it never fires again), after `missed` ones were recorded. `occurrence_ms` is the one that is fired
    by the message that carries this; None: none is, all were missed. `manual`: somebody fired it by hand; the row stays where it
    is, and need not be at any occurrence. `ahead_ms`: so long before `next` is due somebody else is to be told of it.
    """

    uid: str
    namespace: str
    name: str
    generation: int
    at_ms: int | None
    occurrence_ms: int | None
    due_ms: int
    next: Stand | None
    missed: Missed | None = None
    agent: str = ""
    session: str = ""
    overlap: Overlap = "queue"
    history_limit: int = 100
    manual: bool = False
    ahead_ms: int = 0


class Owner(msgspec.Struct, frozen=True):
    """A session that asks for a wakeup of its own. `key` is the same in every attempt of one request."""

    key: str
    namespace: str
    agent: str
    session: str


def decode_plan(data: bytes) -> SchedulePlan:
    """The plan that was stored."""
    return _decoder.decode(data)


def encode_plan(plan: SchedulePlan) -> bytes:
    """A plan as it is stored."""
    return msgspec.json.encode(plan)


_decoder = msgspec.json.Decoder(SchedulePlan)
