"""The journal's entries: their types, one payload class each, and how they are written as bytes.

An entry is `noun.verb` plus a payload. Payloads are msgspec JSON bytes: never `jsonb`, one NUL would kill a batch.
`v` is the payload's version and `min_reader` the oldest reader that can fold it. Unknown fields of a newer `v` are skipped on
reading, so a field may be added without raising `min_reader`.
"""

from talon.domain.entries.entry import CONTEXT_TYPES, MESSAGE_TYPES, PAYLOADS, READER, TYPE_NUMBERS, Entry, NewEntry, new_entry
from talon.domain.entries.messages import InputSteered, MemoryCompressed, MessageCompleted, MessageReceived
from talon.domain.entries.model_calls import ModelFailed, ModelFinished, ModelStarted, StreamReset
from talon.domain.entries.payload import Money, Opaque, Payload, Usage, total
from talon.domain.entries.tool_calls import (
    ApprovalRequested,
    ApprovalResolved,
    SubagentFinished,
    SubagentStarted,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolOutput,
    ToolRequested,
    ToolStarted,
    ToolUncertain,
)
from talon.domain.entries.turns import (
    END_REASONS,
    TURN_ENDS,
    Behind,
    PlanPending,
    PlanResolved,
    StepFinished,
    TurnCancelled,
    TurnCancelRequested,
    TurnCompleted,
    TurnDenied,
    TurnFailed,
    TurnQueued,
    TurnResumed,
    TurnStarted,
    TurnWaiting,
)

__all__ = [
    "CONTEXT_TYPES",
    "END_REASONS",
    "MESSAGE_TYPES",
    "PAYLOADS",
    "READER",
    "TURN_ENDS",
    "TYPE_NUMBERS",
    "ApprovalRequested",
    "ApprovalResolved",
    "Behind",
    "Entry",
    "InputSteered",
    "MemoryCompressed",
    "MessageCompleted",
    "MessageReceived",
    "ModelFailed",
    "ModelFinished",
    "ModelStarted",
    "Money",
    "NewEntry",
    "Opaque",
    "Payload",
    "PlanPending",
    "PlanResolved",
    "StepFinished",
    "StreamReset",
    "SubagentFinished",
    "SubagentStarted",
    "ToolDenied",
    "ToolFailed",
    "ToolFinished",
    "ToolOutput",
    "ToolRequested",
    "ToolStarted",
    "ToolUncertain",
    "TurnCancelRequested",
    "TurnCancelled",
    "TurnCompleted",
    "TurnDenied",
    "TurnFailed",
    "TurnQueued",
    "TurnResumed",
    "TurnStarted",
    "TurnWaiting",
    "Usage",
    "new_entry",
    "total",
]
