"""What a turn knows of itself, from its entries alone."""

from __future__ import annotations

from typing import Literal

import msgspec

from talon.domain.content import Content, images_of
from talon.domain.entries import Money, Opaque, Payload, TurnCancelRequested, Usage

#: requested  the model asked, nothing was done          started    intent is durable, this worker runs it
#: orphaned   started by a worker that is gone            uncertain  nobody knows; an approval is open
#: retry      a human said: do it again                   closed     the model can be told a result
CallStatus = Literal["requested", "started", "orphaned", "uncertain", "retry", "closed"]


class Call(msgspec.Struct, frozen=True):
    """One tool call of the turn. `result` is what the model is told, once `closed`; `ok` whether it went well.

    `first_started_ms` (store's time) bounds how long an idempotent call's key may be trusted.
    """

    call: int
    call_id: str
    name: str
    arguments: str
    effect: str
    requested_seq: int
    iteration: int
    status: CallStatus = "requested"
    attempt: int = 0
    key: str = ""
    first_started_ms: int = 0
    approval: str = ""
    result: str = ""
    ok: bool = True
    human: tuple[str, str] | None = None  # (outcome, result) of an approval that no receipt has followed yet
    opaque: str = ""


class ModelCall(msgspec.Struct, frozen=True):
    """The model call in flight. `seq` is that of its `model.started`; `continues` that of the call whose answer it goes on with,
    from `offset` characters on."""

    seq: int
    iteration: int
    profile: str
    orphaned: bool = False
    continues: int = 0
    offset: int = 0

    @property
    def text_seq(self) -> int:
        """What its fragments are named by."""
        return self.continues or self.seq


class Kept(msgspec.Struct, frozen=True):
    """A broken answer that stands: `chars` of it, named by `seq`. `profile` broke it off last; `grew`: not before it had added to
    it, and in a way that lets it be asked again at once."""

    seq: int
    chars: int
    profile: str
    grew: bool


class Failure(msgspec.Struct, frozen=True):
    """A failed model call of this iteration. `at_ms` is the store's time of it; `continued`: it was to go on with an answer."""

    profile: str
    error: str
    detail: str
    retryable: bool
    retry_after_s: float | None
    at_ms: int = 0
    continued: bool = False


class UserItem(msgspec.Struct, frozen=True):
    """A message that the model sees at this place."""

    content: Content


class AssistantItem(msgspec.Struct, frozen=True):
    """An answer of the model with the numbers of the calls that it asked for, and what its vendor wants back with them."""

    content: str
    calls: tuple[int, ...]
    opaque: Opaque | None = None


Item = UserItem | AssistantItem


class State(msgspec.Struct, frozen=True):
    """A turn, folded. Everything is empty before its first entry.

    `transcript` is the turn's own part of the context. `offered` are steering messages that the model has not seen yet:
    (seq, content). `iteration` counts answered model calls. `rested` says that a back-off was waited for since the last failure,
    `retries` counts the failed calls of the whole turn.
    `active_ms` is the time in which a worker had the turn, counted up to `active_since_ms` (0: no worker has it now).
    """

    turn_id: str = ""
    began: bool = False
    revision: int = 0
    definition: str = ""
    transcript: tuple[Item, ...] = ()
    offered: tuple[tuple[int, Content], ...] = ()
    received: tuple[tuple[int, Content], ...] = ()
    iteration: int = 0
    model: ModelCall | None = None
    kept: Kept | None = None
    failures: tuple[Failure, ...] = ()
    retries: int = 0
    rested: bool = False
    calls: tuple[Call, ...] = ()
    answered: bool = False
    usage: Usage = Usage()
    costs: tuple[Money, ...] = ()
    cancel: TurnCancelRequested | None = None
    waiting: str = ""
    active_ms: int = 0
    active_since_ms: int = 0
    last_at_ms: int = 0
    last_seq: int = 0
    ended: Payload | None = None

    def call(self, number: int) -> Call:
        """The call of that number. Raises `KeyError` for a number that was never requested."""
        if not 0 < number <= len(self.calls):
            raise KeyError(f"turn {self.turn_id} has no call {number}")
        return self.calls[number - 1]

    def with_status(self, *statuses: CallStatus) -> tuple[Call, ...]:
        """The calls in one of these states, in the order of the model's asking."""
        return tuple(call for call in self.calls if call.status in statuses)

    @property
    def open_calls(self) -> tuple[Call, ...]:
        """The calls that the model still waits for."""
        return tuple(call for call in self.calls if call.status != "closed")

    @property
    def has_images(self) -> bool:
        """Whether a message of the turn, or one that is about to join it, has an image: only models that see may answer."""
        told = (item.content for item in self.transcript if isinstance(item, UserItem))
        return any(images_of(content) for content in (*told, *(content for _, content in self.offered)))

    def active_s(self, now_ms: int) -> float:
        """Seconds in which the turn was not waiting, until `now_ms`."""
        running = max(now_ms, self.last_at_ms) - self.active_since_ms if self.active_since_ms else 0
        return (self.active_ms + max(0, running)) / 1000
