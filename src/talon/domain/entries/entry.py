"""An entry as the journal has it: its type, its payload's bytes, and back."""

from __future__ import annotations

import msgspec

from talon.domain.entries import messages, model_calls, tool_calls, turns
from talon.domain.entries.payload import Payload

#: What this program can fold. An entry with a higher `min_reader` keeps a session from being claimed by it.
#: 2 knows messages of parts, and answers that go on where they broke.
READER = 2
#: Every type of entry, and how a stored journal names it: a number is given once and for ever. A type with None is written by its
#: name, and stays so until every program that may share the database knows its number.
_NUMBERS: dict[type[Payload], int | None] = {
    messages.MessageReceived: 1,
    messages.MessageCompleted: 2,
    turns.TurnQueued: 3,
    turns.TurnStarted: 4,
    turns.TurnWaiting: 5,
    turns.TurnResumed: 6,
    turns.TurnCancelRequested: 7,
    turns.TurnCompleted: 8,
    turns.TurnFailed: 9,
    turns.TurnCancelled: 10,
    turns.TurnDenied: 11,
    turns.StepFinished: 12,
    model_calls.ModelStarted: 13,
    model_calls.ModelFinished: 14,
    model_calls.ModelFailed: 15,
    model_calls.StreamReset: 16,
    tool_calls.ToolRequested: 17,
    tool_calls.ToolDenied: 18,
    tool_calls.ToolStarted: 19,
    tool_calls.ToolOutput: 20,
    tool_calls.ToolFinished: 21,
    tool_calls.ToolFailed: 22,
    tool_calls.ToolUncertain: 23,
    tool_calls.ApprovalRequested: 24,
    tool_calls.ApprovalResolved: 25,
    turns.PlanPending: 26,
    turns.PlanResolved: 27,
    tool_calls.SubagentStarted: 28,
    tool_calls.SubagentFinished: 29,
    messages.MemoryCompressed: 30,
    messages.InputSteered: 31,
}
PAYLOADS: dict[str, type[Payload]] = {cls.type: cls for cls in _NUMBERS}
TYPE_NUMBERS: dict[str, int] = {cls.type: number for cls, number in _NUMBERS.items() if number is not None}
#: The entries that a context is built from.
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


class _Decoders(dict[str, msgspec.json.Decoder[Payload]]):
    """One for each type, made when it is first wanted: all at once would be most of this package's time to import."""

    def __missing__(self, type: str) -> msgspec.json.Decoder[Payload]:
        decoder = self[type] = msgspec.json.Decoder(PAYLOADS[type])
        return decoder


_DECODERS = _Decoders()
_ENCODER = msgspec.json.Encoder()


def new_entry(payload: Payload, turn_id: str = "", traceparent: str = "") -> NewEntry:
    """Encode `payload` as an entry for turn `turn_id` (empty: of the session, of no turn)."""
    data = _ENCODER.encode(payload)
    return NewEntry(payload.type, data, turn_id, traceparent, min_reader=payload.min_reader, images=payload.images)
