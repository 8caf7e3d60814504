"""The journal's entries: their types, one payload class each, and how they are written as bytes.

An entry is `noun.verb` plus a payload. Payloads are msgspec JSON bytes: never `jsonb`, one NUL would kill a batch.
`v` is the payload's version and `min_reader` the oldest reader that can fold it. Unknown fields of a newer `v` are skipped on
reading, so a field may be added without raising `min_reader`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from talon.domain.content import Content, images_of

#: What this program can fold. An entry with a higher `min_reader` keeps a session from being claimed by it.
#: 2 knows messages of parts, and answers that go on where they broke.
READER = 2


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one or more model calls. `estimated` marks counts that no provider confirmed (a killed call).

    `cached_tokens` (read from the vendor's prompt cache) and `cache_write_tokens` (written to it) are part of `input_tokens`,
    `reasoning_tokens` are part of `output_tokens`, whatever the vendor's own way of adding them up.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum; estimated if either is."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Money(msgspec.Struct, frozen=True):
    """An exact amount of a currency; as JSON the amount is a decimal string."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.currency}"


def total(costs: Iterable[Money | None]) -> tuple[Money, ...]:
    """The sum of each currency, in the order of their first amounts; what nobody knows the price of is not in it."""
    sums: dict[str, Decimal] = {}
    for cost in costs:
        if cost is not None:
            sums[cost.currency] = sums.get(cost.currency, Decimal(0)) + cost.amount
    return tuple(Money(amount, currency) for currency, amount in sums.items())


class Opaque(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a vendor wants back with an answer that called tools: signed or encrypted reasoning, unread, in its order.

    Good for `provider` and `model` (as it was asked for) alone. Each item is the vendor's own JSON text, or a place: `text N`
    stands for the next N characters of the answer's text, `call N` for its tool call number N from 0.
    """

    provider: str
    model: str
    items: tuple[str, ...] = ()


def always(value: Any) -> Any:
    """A default that is written out all the same: what clients read is in every entry, the rest only where it says something."""
    return msgspec.field(default_factory=lambda: value)


class Payload(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of all payloads; `type` is the entry's type."""

    type: ClassVar[str] = ""

    @property
    def min_reader(self) -> int:
        """The oldest reader that can fold it."""
        return 1

    @property
    def images(self) -> tuple[str, ...]:
        """Digests of the images' blobs that it speaks of."""
        return ()


class MessageReceived(Payload, frozen=True, kw_only=True):
    """A message from outside. `role` is `user` except in imported history; `imported` ones started no turn. `content` is as it was
    sent, a text or parts; of an image the entry has the digest of its blob."""

    type = "message.received"
    content: Content
    role: str = always("user")
    strategy: str = always("enqueue")
    source: str = "http"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    imported: bool = False

    @property
    def min_reader(self) -> int:
        return 1 if isinstance(self.content, str) else 2

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(image.blob for image in images_of(self.content)))


class Behind(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a queued turn stands behind: the turn, its state, and what a waiting one waits for."""

    turn_id: str
    state: str
    waiting_for: str = ""
    turns: int = 1


class TurnQueued(Payload, frozen=True, kw_only=True):
    """A turn was accepted. `behind` is absent when nothing is in its way; `requeued_from` names the turn whose end made a
    steering message a turn of its own."""

    type = "turn.queued"
    strategy: str = always("enqueue")
    message_seq: int = 0
    behind: Behind | None = None
    requeued_from: str = ""


class TurnStarted(Payload, frozen=True, kw_only=True):
    """A worker began. `definition` (a digest: prompt, models, tool schemas of `revision`) pins the turn to its end (K12)."""

    type = "turn.started"
    agent: str
    revision: int
    definition: str = ""
    worker: str = ""
    fence: int = 0


class TurnWaiting(Payload, frozen=True, kw_only=True):
    """The turn is a row now, not a task (K6). `kind`: approval | backoff | quota. `until_ms` is Unix time, for the last
    two: another attempt after a failure, and a place in the queue of a provider's quota."""

    type = "turn.waiting"
    kind: str
    approvals: tuple[str, ...] = ()
    until_ms: int | None = None
    detail: str = ""


class TurnResumed(Payload, frozen=True, kw_only=True):
    """A worker went on. `attempt` counts claims without progress in the journal.

    `why`: takeover (the last worker died, lost its lease, or gave the turn back when it drained) | woken (what it waited for came).
    """

    type = "turn.resumed"
    why: str
    attempt: int = always(1)
    worker: str = ""
    fence: int = 0


class TurnCancelRequested(Payload, frozen=True, kw_only=True):
    """Somebody wants the running turn to end; its worker writes the end.

    `reason`: cancelled | interrupted | rolled_back | deleted.
    """

    type = "turn.cancel_requested"
    reason: str = "cancelled"
    by: str = ""
    rollback: bool = False


class StepFinished(Payload, frozen=True, kw_only=True):
    """A pipeline or loop step that decided something."""

    type = "step.finished"
    step: str
    decision: str
    duration_ms: int = 0
    detail: str = ""


class ModelStarted(Payload, frozen=True, kw_only=True):
    """A model call is about to be made. Its `seq` names the fragments that stream from it; where it goes on with a broken answer,
    `continues` does, the call which began that: its text goes on at `offset` characters."""

    type = "model.started"
    iteration: int
    provider: str
    model: str
    profile: str = ""
    attempt: int = always(1)
    continues: int = 0
    offset: int = 0

    @property
    def min_reader(self) -> int:
        return 2 if self.continues else 1


class ModelFinished(Payload, frozen=True, kw_only=True):
    """A model answered. `content` is empty when the text is the turn's answer: then `message.completed` holds it, once.
    The `calls` tool calls of the answer are the `tool.requested` entries that follow in the same commit. `opaque` is what the
    vendor wants back with them. No `cost`: the model's price is not known. `cost_source` is `reported` where the vendor said what
    it costs; else it is reckoned by the worker's catalogue."""

    type = "model.finished"
    stop_reason: str
    content: str = ""
    reasoning: str = ""
    calls: int = 0
    usage: Usage = Usage()
    model: str = ""
    duration_ms: int = 0
    opaque: Opaque | None = None
    cost: Money | None = None
    cost_source: str = ""


class ModelFailed(Payload, frozen=True, kw_only=True):
    """A model call failed. `error` is a class: timeout | connection | rate_limit | overloaded | server | authentication |
    bad_request | context_overflow | content_filter | refusal | malformed | empty | unresolved | cancelled | worker_lost.
    `cost_source` as in `model.finished`.

    `kept`: so many characters of its answer stand, and the next call goes on from there, unless a `stream.reset` says otherwise.
    `worker_lost` is only said with it: the worker that listened is gone."""

    type = "model.failed"
    error: str
    detail: str = ""
    status: int | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    usage: Usage = Usage()
    cost: Money | None = None
    cost_source: str = ""
    kept: int = 0

    @property
    def min_reader(self) -> int:
        return 2 if self.kept else 1


class StreamReset(Payload, frozen=True, kw_only=True):
    """Clients drop the text that they have of the model call `model_seq`; it will be asked again (K4)."""

    type = "stream.reset"
    model_seq: int
    reason: str = ""
    usage: Usage = Usage()
    cost: Money | None = None


class ToolRequested(Payload, frozen=True, kw_only=True):
    """The model asked for a tool. `call` counts the calls of a turn from 1; the entry's `seq` derives the idempotency key (K5).
    `call_id` is the vendor's (never a key of ours), `arguments` the JSON text as the model wrote it, `opaque` what the vendor wants
    back with this very call."""

    type = "tool.requested"
    call: int
    call_id: str
    name: str
    arguments: str
    effect: str = always("unsafe")
    opaque: str = ""


class ToolDenied(Payload, frozen=True, kw_only=True):
    """The call was not made: unknown tool, wrong arguments, not allowed, repeated. The model is told `message`."""

    type = "tool.denied"
    call: int
    reason: str
    message: str


class ToolStarted(Payload, frozen=True, kw_only=True):
    """Intent, durable before the tool runs. `key` is the idempotency key which the tool receives."""

    type = "tool.started"
    call: int
    key: str
    attempt: int = always(1)
    effect: str = always("unsafe")
    code: str = ""


class ToolOutput(Payload, frozen=True, kw_only=True):
    """Part of a running tool's output, for watchers; not what the model sees."""

    type = "tool.output"
    call: int
    text: str


class ToolFinished(Payload, frozen=True, kw_only=True):
    """Receipt. `source`: run | probe (the tool's own probe said so) | human (an approver said so)."""

    type = "tool.finished"
    call: int
    output: str
    truncated: bool = False
    duration_ms: int = 0
    source: str = always("run")


class ToolFailed(Payload, frozen=True, kw_only=True):
    """Receipt of a failure; the model is told `message`. `error`: exception | timeout | cancelled | missing | human."""

    type = "tool.failed"
    call: int
    error: str
    message: str
    duration_ms: int = 0


class ToolUncertain(Payload, frozen=True, kw_only=True):
    """An unsafe call whose receipt was lost: nobody knows whether it happened, so nobody repeats it (K5)."""

    type = "tool.uncertain"
    call: int
    key: str
    approval: str
    reason: str = ""


class ApprovalRequested(Payload, frozen=True, kw_only=True):
    """A human must decide. `kind`: uncertain (outcome retry | done | failed). `arguments_sha256` binds the decision."""

    type = "approval.requested"
    approval: str
    kind: str
    call: int
    name: str
    arguments: str
    arguments_sha256: str


class ApprovalResolved(Payload, frozen=True, kw_only=True):
    """A human decided. `outcome`: retry | done | failed | cancelled; `result` is what `done` and `failed` tell the model."""

    type = "approval.resolved"
    approval: str
    call: int
    outcome: str
    result: str = ""
    by: str = ""
    note: str = ""


class PlanPending(Payload, frozen=True, kw_only=True):
    """A plan waits for review before the first model call."""

    type = "plan.pending"
    plan: str


class PlanResolved(Payload, frozen=True, kw_only=True):
    """A plan was approved, rejected or modified."""

    type = "plan.resolved"
    plan: str
    outcome: str


class SubagentStarted(Payload, frozen=True, kw_only=True):
    """A child session was started for this turn."""

    type = "subagent.started"
    call: int
    agent: str
    session: str


class SubagentFinished(Payload, frozen=True, kw_only=True):
    """A child session ended its turn."""

    type = "subagent.finished"
    call: int
    session: str
    outcome: str
    result: str = ""


class MemoryCompressed(Payload, frozen=True, kw_only=True):
    """Older context was summarised; nothing was removed from the journal."""

    type = "memory.compressed"
    summary: str
    through_seq: int
    messages: int = 0


class InputSteered(Payload, frozen=True, kw_only=True):
    """A message for a turn that is under way.

    `state`: offered (inbox) | joined (the model will see it) | requeued (it became `turn`).
    """

    type = "input.steered"
    message_seq: int
    state: str = "offered"
    turn: str = ""


class MessageCompleted(Payload, frozen=True, kw_only=True):
    """The answer of the turn. `model_seq` names the call that gave it; its fragments are dropped with this entry."""

    type = "message.completed"
    content: str
    role: str = always("assistant")
    model_seq: int = 0
    imported: bool = False


class TurnCompleted(Payload, frozen=True, kw_only=True):
    """The end: answered."""

    type = "turn.completed"
    reason: str = always("answered")
    iterations: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    costs: tuple[Money, ...] = ()


class TurnFailed(Payload, frozen=True, kw_only=True):
    """The end: failed. `reason` is a stable code (`attempts_exhausted`, `model_failed`, `model_calls_exceeded`, …)."""

    type = "turn.failed"
    reason: str
    detail: str = ""
    usage: Usage = Usage()
    costs: tuple[Money, ...] = ()


class TurnCancelled(Payload, frozen=True, kw_only=True):
    """The end: cancelled. With `rollback` the turn's messages leave the context."""

    type = "turn.cancelled"
    reason: str = always("cancelled")
    by: str = ""
    rollback: bool = False
    usage: Usage = Usage()
    costs: tuple[Money, ...] = ()


class TurnDenied(Payload, frozen=True, kw_only=True):
    """The end: not allowed to run (`unresolved_reference`, a policy)."""

    type = "turn.denied"
    reason: str
    detail: str = ""
    usage: Usage = Usage()
    costs: tuple[Money, ...] = ()


PAYLOADS: dict[str, type[Payload]] = {cls.type: cls for cls in Payload.__subclasses__()}
#: How a stored journal names types. A number is given once and for ever. A type without one is written by its name, and stays so
#: until every program that may share the database knows its number.
TYPE_NUMBERS: dict[str, int] = {
    "message.received": 1,
    "message.completed": 2,
    "turn.queued": 3,
    "turn.started": 4,
    "turn.waiting": 5,
    "turn.resumed": 6,
    "turn.cancel_requested": 7,
    "turn.completed": 8,
    "turn.failed": 9,
    "turn.cancelled": 10,
    "turn.denied": 11,
    "step.finished": 12,
    "model.started": 13,
    "model.finished": 14,
    "model.failed": 15,
    "stream.reset": 16,
    "tool.requested": 17,
    "tool.denied": 18,
    "tool.started": 19,
    "tool.output": 20,
    "tool.finished": 21,
    "tool.failed": 22,
    "tool.uncertain": 23,
    "approval.requested": 24,
    "approval.resolved": 25,
    "plan.pending": 26,
    "plan.resolved": 27,
    "subagent.started": 28,
    "subagent.finished": 29,
    "memory.compressed": 30,
    "input.steered": 31,
}
TURN_ENDS = frozenset({"turn.completed", "turn.failed", "turn.cancelled", "turn.denied"})
#: Every `reason` of a turn's end, by the type of the end, with its title; `docs/errors/REASON.md` explains it.
END_REASONS: dict[str, dict[str, str]] = {
    "turn.completed": {"answered": "The turn was answered"},
    "turn.failed": {
        "attempts_exhausted": "The turn was tried too often",
        "model_calls_exceeded": "The turn's limit of model calls",
        "model_failed": "No model gave an answer",
        "model_retries_exceeded": "The turn's budget of retries",
        "tokens_exceeded": "The turn's limit of tokens",
        "tool_calls_exceeded": "The turn's limit of tool calls",
        "wall_time_exceeded": "The turn's limit of time",
    },
    "turn.cancelled": {
        "cancelled": "The turn was cancelled",
        "deleted": "The turn's session was deleted",
        "interrupted": "Another message took the turn's place",
        "rolled_back": "Another message took the turn's place, and its messages left the context",
    },
    "turn.denied": {
        "agent_not_found": "No such agent",
        "images_not_taken": "No model of the agent takes images",
        "unresolved_reference": "The agent names something that nobody serves",
    },
}
#: The entries that a context is built from; stores keep a partial index over them (`Entry.context`).
CONTEXT_TYPES = frozenset(
    {
        "message.received",
        "message.completed",
        "model.finished",
        "tool.requested",
        "tool.denied",
        "tool.finished",
        "tool.failed",
        "tool.uncertain",
        "approval.resolved",
        "memory.compressed",
        "input.steered",
        "turn.cancelled",
        "turn.failed",
        "turn.denied",
    }
)
MESSAGE_TYPES = frozenset({"message.received", "message.completed"})


class NewEntry(msgspec.Struct, frozen=True):
    """An entry on its way to the journal: everything but the `seq` and the time, which the store gives."""

    type: str
    payload: bytes
    turn_id: str = ""
    traceparent: str = ""
    v: int = 1
    min_reader: int = 1
    blob: str = ""  # digest of the payload in the blob table; then `payload` is empty
    images: tuple[str, ...] = ()  # digests of the blobs that the payload speaks of

    @property
    def blobs(self) -> tuple[str, ...]:
        """All blobs that live as long as this entry."""
        return (*self.images, self.blob) if self.blob else self.images


class Entry(msgspec.Struct, frozen=True):
    """A committed entry. `at_ms` is Unix time in ms by the store's clock: for people, and for the wall time limit of a turn; the
    order of entries is that of `seq`, whatever the clock did."""

    seq: int
    type: str
    payload: bytes
    turn_id: str
    at_ms: int
    traceparent: str = ""
    v: int = 1
    min_reader: int = 1

    def decode(self) -> Payload:
        """The typed payload. Raises `msgspec.ValidationError` on bytes that are not of this type, `KeyError` on an unknown type."""
        return _DECODERS[self.type].decode(self.payload)


_DECODERS: dict[str, msgspec.json.Decoder[Payload]] = {name: msgspec.json.Decoder(cls) for name, cls in PAYLOADS.items()}
_ENCODER = msgspec.json.Encoder()


def new_entry(payload: Payload, turn_id: str = "", traceparent: str = "") -> NewEntry:
    """Encode `payload` as an entry for turn `turn_id` (empty: of the session, of no turn)."""
    data = _ENCODER.encode(payload)
    return NewEntry(payload.type, data, turn_id, traceparent, min_reader=payload.min_reader, images=payload.images)
