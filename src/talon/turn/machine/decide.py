"""`decide`: State -> Command. The order of the questions is the policy of a turn; read it from top to bottom."""

from __future__ import annotations

import msgspec

from talon.domain import entries as e
from talon.turn.machine.bounds import Bounds
from talon.turn.machine.commands import Begin, Command, Finish, Listen, ResetStream, RunTools, Wait
from talon.turn.machine.ending import fail, finish
from talon.turn.machine.failover import next_model_call
from talon.turn.machine.state import Call, State


def decide(state: State, bounds: Bounds, now_ms: int) -> Command | None:
    """What to do next; None when the turn has ended. `now_ms` is only used for the wall time limit and to
    ask whether an old key may still be trusted, and who may be asked again."""
    # The store's clock may have been set back since its last entry; within a turn time only goes on, or a rest would last an hour.
    now_ms = max(now_ms, state.last_at_ms)
    if state.ended is not None:
        return None
    if state.cancel is not None:
        return _cancel(state, state.cancel)
    if bounds.attempts > bounds.attempts_max:
        return fail(state, "attempts_exhausted", f"{bounds.attempts_max} attempts in a row made no progress")
    if not state.began:
        return Begin()
    if state.answered:
        return finish(state, e.TurnCompleted(iterations=state.iteration, tool_calls=len(state.calls), usage=state.usage))
    if state.model is not None and state.model.orphaned:
        return ResetStream(state.model.text_seq, may_keep=bool(bounds.continuing))
    active_s = state.active_s(now_ms)
    if bounds.wall_time_max_s and active_s >= bounds.wall_time_max_s:
        return fail(state, "wall_time_exceeded", f"the turn ran for {active_s:.0f} s, its limit is {bounds.wall_time_max_s:.0f} s")
    if state.model is not None:
        return Listen(state.model.seq)
    if state.open_calls:
        return _tools(state, bounds, now_ms)
    return _next_iteration(state, bounds, now_ms)


def _cancel(state: State, asked: e.TurnCancelRequested) -> Finish:
    end = e.TurnCancelled(reason=asked.reason, by=asked.by, rollback=asked.rollback, usage=state.usage)
    command = finish(state, end)
    # Nothing runs after its session is deleted.
    return msgspec.structs.replace(command, requeue=()) if asked.reason == "deleted" else command


def _tools(state: State, bounds: Bounds, now_ms: int) -> Command:
    run: list[int] = []
    probe: list[int] = []
    uncertain: list[int] = []
    # Between two effects nothing runs: a call that is still `started` has lost its receipt like an orphaned one.
    for call in state.with_status("requested", "retry", "started", "orphaned"):
        if call.status in ("requested", "retry") or _repeatable(call, bounds, now_ms):
            run.append(call.call)
        elif call.effect == "reconcilable":
            probe.append(call.call)
        else:
            uncertain.append(call.call)
    settle = [call.call for call in state.with_status("uncertain") if call.human is not None]
    fresh = [number for number in run if state.call(number).status == "requested"]
    if bounds.tool_calls_max and fresh and max(fresh) > bounds.tool_calls_max:
        return fail(
            state, "tool_calls_exceeded", f"the turn asked for {len(state.calls)} tool calls, its limit is {bounds.tool_calls_max}"
        )
    if run or probe or uncertain or settle:
        return RunTools(tuple(run), tuple(probe), tuple(uncertain), tuple(settle))
    waiting = state.with_status("uncertain")
    return Wait("approval", tuple(call.approval for call in waiting), detail=", ".join(call.name for call in waiting))


def _repeatable(call: Call, bounds: Bounds, now_ms: int) -> bool:
    """Whether an orphaned call may run again under its key: a read always, an idempotent one while its keys are honoured."""
    trusted_ms = bounds.key_ttl_s.get(call.name, 0.0) * 1000
    return call.effect == "read" or (call.effect == "idempotent" and now_ms - call.first_started_ms <= trusted_ms)


def _next_iteration(state: State, bounds: Bounds, now_ms: int) -> Command:
    if state.iteration >= bounds.model_calls_max:
        return fail(
            state, "model_calls_exceeded", f"the turn made {state.iteration} model calls, its limit is {bounds.model_calls_max}"
        )
    used = state.usage.input_tokens + state.usage.output_tokens
    if bounds.tokens_max and used >= bounds.tokens_max:
        return fail(state, "tokens_exceeded", f"the turn used {used} tokens, its limit is {bounds.tokens_max}")
    return next_model_call(state, bounds, now_ms)
