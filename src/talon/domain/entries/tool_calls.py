"""The calls of tools, what people decide of them, and the child sessions that stand for one."""

from __future__ import annotations

from talon.domain.entries.payload import Payload, always


class ToolRequested(Payload, frozen=True, kw_only=True):
    """The model asked for a tool. `call` counts the calls of a turn from 1; the entry's `seq` derives the idempotency key (K5).
    `call_id` is the vendor's (never a key of ours), `arguments` the JSON text as the model wrote it, `opaque` what the vendor wants
    back with this very call. `effect` is not set: what the tool declares stands in `tool.started`."""

    type = "tool.requested"
    call: int
    call_id: str
    name: str
    arguments: str
    effect: str = "unsafe"
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
