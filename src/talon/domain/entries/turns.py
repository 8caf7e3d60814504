"""A turn from its place in the queue to its end, with the reasons that an end can have."""

from __future__ import annotations

import msgspec

from talon.domain.entries.payload import Money, Payload, Usage, always


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

    `reason`: cancelled | interrupted | rolled_back | deleted. `by`: the principal, as in the access log (`local` where
    nobody is asked), or `message` where a message took the turn's place.
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


class PlanPending(Payload, frozen=True, kw_only=True):
    """A plan waits for review before the first model call."""

    type = "plan.pending"
    plan: str


class PlanResolved(Payload, frozen=True, kw_only=True):
    """A plan was approved, rejected or modified."""

    type = "plan.resolved"
    plan: str
    outcome: str


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
    """The end: cancelled. `by` as in `turn.cancel_requested`. With `rollback` the turn's messages leave the context."""

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
