"""`fold`: entries of one turn -> its State. One small function per entry type; the table at the end says which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from talon.domain import entries as e
from talon.domain.content import Content
from talon.turn.machine.state import AssistantItem, Call, Failure, Kept, ModelCall, State, UserItem


def fold(entries: Iterable[e.Entry], turn_id: str) -> State:
    """The state of `turn_id` after `entries` (of the session, ascending; those of other turns are skipped)."""
    state = State(turn_id=turn_id)
    for entry in entries:
        if entry.turn_id == turn_id:
            state = apply(state, entry.decode(), entry.seq, entry.at_ms)
    return state


def apply(state: State, payload: e.Payload, seq: int, at_ms: int) -> State:
    """`state` after one more entry of its turn. An entry type that means nothing to a turn leaves all but its place."""
    at_ms = max(at_ms, state.last_at_ms)
    active_ms, since_ms = state.active_ms, state.active_since_ms
    if since_ms and payload.type not in _NO_SIGN_OF_LIFE:
        active_ms, since_ms = active_ms + at_ms - since_ms, at_ms
    state = replace(state, last_seq=seq, last_at_ms=at_ms, active_ms=active_ms, active_since_ms=since_ms)
    step = _STEPS.get(payload.type)
    return state if step is None else step(state, payload, seq)


#: A turn's active time is counted from one entry of its worker to the next, so that it ends with the last one before a crash.
#: These come from others, or begin a new stretch.
_NO_SIGN_OF_LIFE = frozenset(
    {"message.received", "turn.queued", "input.steered", "turn.cancel_requested", "approval.resolved", "turn.resumed"}
)


def _message_received(state: State, p: e.MessageReceived, seq: int) -> State:
    if not state.began:
        return replace(state, transcript=(*state.transcript, UserItem(p.content)), received=(*state.received, (seq, p.content)))
    return replace(state, received=(*state.received, (seq, p.content)))


def _input_steered(state: State, p: e.InputSteered, seq: int) -> State:
    content: Content = dict(state.received).get(p.message_seq, "")
    left = tuple(item for item in state.offered if item[0] != p.message_seq)
    if p.state == "offered":
        # Steered before the turn began: it is simply part of the first context.
        return state if not state.began else replace(state, offered=(*left, (p.message_seq, content)))
    if p.state == "joined":
        return replace(state, offered=left, transcript=(*state.transcript, UserItem(content)), answered=False)
    return replace(state, offered=left)


def _started(state: State, p: e.TurnStarted, seq: int) -> State:
    return replace(state, began=True, revision=p.revision, definition=p.definition, active_since_ms=state.last_at_ms, waiting="")


def _resumed(state: State, p: e.TurnResumed, seq: int) -> State:
    model = replace(state.model, orphaned=True) if state.model else None
    calls = tuple(replace(call, status="orphaned") if call.status == "started" else call for call in state.calls)
    rested = state.rested or state.waiting == "backoff"
    return replace(state, model=model, calls=calls, waiting="", rested=rested, active_since_ms=state.last_at_ms)


def _waiting(state: State, p: e.TurnWaiting, seq: int) -> State:
    return replace(state, waiting=p.kind, active_since_ms=0)


def _cancel_requested(state: State, p: e.TurnCancelRequested, seq: int) -> State:
    return replace(state, cancel=p if state.cancel is None or p.rollback else state.cancel)


def _model_started(state: State, p: e.ModelStarted, seq: int) -> State:
    call = ModelCall(seq, p.iteration, p.profile, continues=p.continues, offset=p.offset)
    return replace(state, model=call, kept=None, answered=False)


def _model_finished(state: State, p: e.ModelFinished, seq: int) -> State:
    first = len(state.calls) + 1
    item = AssistantItem(p.content, tuple(range(first, first + p.calls)), p.opaque)
    # A final answer's text is in `message.completed`; only what a later model call must see goes into the transcript.
    transcript = (*state.transcript, item) if p.calls else state.transcript
    return replace(
        state,
        model=None,
        iteration=state.iteration + 1,
        failures=(),
        rested=False,
        transcript=transcript,
        usage=state.usage.plus(p.usage),
        costs=e.total((*state.costs, p.cost)),
    )


def _model_failed(state: State, p: e.ModelFailed, seq: int) -> State:
    call = state.model or ModelCall(0, 0, "")
    kept = Kept(call.text_seq, p.kept, call.profile, p.kept > call.offset and p.error in _AT_ONCE) if p.kept else None
    usage, costs = state.usage.plus(p.usage), e.total((*state.costs, p.cost))
    state = replace(state, model=None, kept=kept, usage=usage, costs=costs)
    if p.error == "worker_lost":
        return state  # no failure of the model's
    failure = Failure(call.profile, p.error, p.detail, p.retryable, p.retry_after_s, state.last_at_ms, bool(call.continues))
    return replace(state, failures=(*state.failures, failure), retries=state.retries + 1, rested=False)


#: After these a model that had begun to answer is asked to go on at once: it was the connection or the worker, not the model.
_AT_ONCE = frozenset({"connection", "timeout", "worker_lost"})


def _stream_reset(state: State, p: e.StreamReset, seq: int) -> State:
    return replace(state, model=None, kept=None, usage=state.usage.plus(p.usage), costs=e.total((*state.costs, p.cost)))


def _tool_requested(state: State, p: e.ToolRequested, seq: int) -> State:
    call = Call(p.call, p.call_id, p.name, p.arguments, p.effect, seq, state.iteration, opaque=p.opaque)
    return replace(state, calls=(*state.calls, call))


def _call(state: State, number: int, **changes: Any) -> State:
    calls = list(state.calls)
    calls[number - 1] = replace(state.call(number), **changes)
    return replace(state, calls=tuple(calls))


def _tool_denied(state: State, p: e.ToolDenied, seq: int) -> State:
    return _call(state, p.call, status="closed", result=p.message, ok=False)


def _tool_started(state: State, p: e.ToolStarted, seq: int) -> State:
    first = state.call(p.call).first_started_ms or state.last_at_ms
    return _call(state, p.call, status="started", attempt=p.attempt, key=p.key, effect=p.effect, first_started_ms=first, human=None)


def _tool_finished(state: State, p: e.ToolFinished, seq: int) -> State:
    return _call(state, p.call, status="closed", result=p.output, ok=True, human=None)


def _tool_failed(state: State, p: e.ToolFailed, seq: int) -> State:
    return _call(state, p.call, status="closed", result=p.message, ok=False, human=None)


def _tool_uncertain(state: State, p: e.ToolUncertain, seq: int) -> State:
    return _call(state, p.call, status="uncertain", approval=p.approval)


def _approval_resolved(state: State, p: e.ApprovalResolved, seq: int) -> State:
    if not 0 < p.call <= len(state.calls) or state.call(p.call).status != "uncertain" or state.call(p.call).approval != p.approval:
        return state
    if p.outcome == "retry":
        return _call(state, p.call, status="retry")
    return _call(state, p.call, human=(p.outcome, p.result))


def _message_completed(state: State, p: e.MessageCompleted, seq: int) -> State:
    # A steered message may still join: then the answer was not the last word.
    return replace(state, answered=True, transcript=(*state.transcript, AssistantItem(p.content, ())))


def _ended(state: State, p: e.Payload, seq: int) -> State:
    return replace(state, ended=p, active_since_ms=0, waiting="")


_STEPS: dict[str, Callable[[State, Any, int], State]] = {
    "message.received": _message_received,
    "input.steered": _input_steered,
    "turn.started": _started,
    "turn.resumed": _resumed,
    "turn.waiting": _waiting,
    "turn.cancel_requested": _cancel_requested,
    "model.started": _model_started,
    "model.finished": _model_finished,
    "model.failed": _model_failed,
    "stream.reset": _stream_reset,
    "tool.requested": _tool_requested,
    "tool.denied": _tool_denied,
    "tool.started": _tool_started,
    "tool.finished": _tool_finished,
    "tool.failed": _tool_failed,
    "tool.uncertain": _tool_uncertain,
    "approval.resolved": _approval_resolved,
    "message.completed": _message_completed,
    "turn.completed": _ended,
    "turn.failed": _ended,
    "turn.cancelled": _ended,
    "turn.denied": _ended,
}
