"""`decide`: State -> Command. The order of the questions is the policy of a turn; read it from top to bottom."""

from __future__ import annotations

import msgspec

from talon.domain import entries as e
from talon.turn.machine.commands import Begin, CallModel, Command, Finish, Listen, ResetStream, RunTools, Wait
from talon.turn.machine.state import Call, State

#: A model is asked this many times, over all profiles in turn, before the turn fails.
MODEL_ROUNDS_MAX = 4
BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 30_000


class Bounds(msgspec.Struct, frozen=True):
    """What bounds this turn: the definition's limits, its profiles, the trust in keys, and the claims without progress so far."""

    profiles: tuple[str, ...]
    model_calls_max: int
    tool_calls_max: int
    wall_time_max_s: float
    tokens_max: int
    key_ttl_s: dict[str, float] = {}
    attempts: int = 1
    attempts_max: int = 5


def decide(state: State, bounds: Bounds, now_ms: int) -> Command | None:
    """What to do next; None when the turn has ended. `now_ms` is only used for the wall time limit and to
    ask whether an old key may still be trusted."""
    if state.ended is not None:
        return None
    if state.cancel is not None:
        return _cancel(state, state.cancel)
    if bounds.attempts > bounds.attempts_max:
        return _fail(state, "attempts_exhausted", f"{bounds.attempts_max} attempts in a row made no progress")
    if not state.began:
        return Begin()
    if state.answered:
        return _finish(state, e.TurnCompleted(iterations=state.iteration, tool_calls=len(state.calls), usage=state.usage))
    if state.model is not None and state.model.orphaned:
        return ResetStream(state.model.seq)
    active_s = state.active_s(now_ms)
    if bounds.wall_time_max_s and active_s >= bounds.wall_time_max_s:
        return _fail(state, "wall_time_exceeded", f"the turn ran for {active_s:.0f} s, its limit is {bounds.wall_time_max_s:.0f} s")
    if state.model is not None:
        return Listen(state.model.seq)
    if state.open_calls:
        return _tools(state, bounds, now_ms)
    return _next_model_call(state, bounds)


def _cancel(state: State, asked: e.TurnCancelRequested) -> Finish:
    end = e.TurnCancelled(reason=asked.reason, by=asked.by, rollback=asked.rollback, usage=state.usage)
    finish = _finish(state, end)
    # Nothing runs after its session is deleted.
    return msgspec.structs.replace(finish, requeue=()) if asked.reason == "deleted" else finish


def _fail(state: State, reason: str, detail: str) -> Finish:
    return _finish(state, e.TurnFailed(reason=reason, detail=detail, usage=state.usage))


def _finish(state: State, end: e.Payload) -> Finish:
    """End the turn. What may have happened outside and was not acknowledged is said to be uncertain (K5); what was steered to
    it and never seen becomes turns of their own (design/api.md)."""
    doubtful = tuple(c.call for c in state.with_status("started", "orphaned") if c.effect not in ("read", "idempotent"))
    told = {call.call for call in state.with_status("uncertain")} | set(doubtful)
    return Finish(
        end,
        requeue=tuple(seq for seq, _ in state.offered),
        uncertain=doubtful,
        abandon=tuple(call.call for call in state.open_calls if call.call not in told),
    )


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
        return _fail(
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


def _next_model_call(state: State, bounds: Bounds) -> Command:
    if state.iteration >= bounds.model_calls_max:
        return _fail(
            state, "model_calls_exceeded", f"the turn made {state.iteration} model calls, its limit is {bounds.model_calls_max}"
        )
    used = state.usage.input_tokens + state.usage.output_tokens
    if bounds.tokens_max and used >= bounds.tokens_max:
        return _fail(state, "tokens_exceeded", f"the turn used {used} tokens, its limit is {bounds.tokens_max}")
    joined = tuple(seq for seq, _ in state.offered)
    if not state.failures:
        return CallModel(state.iteration + 1, 1, 0, joined)
    return _after_failure(state, bounds, joined)


def _after_failure(state: State, bounds: Bounds, joined: tuple[int, ...]) -> Command:
    """The next profile that has not failed for good; after each round over all of them a back-off, as a row (K6)."""
    last = state.failures[-1]
    dead = {failure.profile for failure in state.failures if not failure.retryable}
    alive = [index for index, name in enumerate(bounds.profiles) if name not in dead]
    tried = {name: sum(1 for f in state.failures if f.profile == name) for name in bounds.profiles}
    if not alive and not state.iteration and all(failure.error == "unresolved" for failure in state.failures):
        return _finish(state, e.TurnDenied(reason="unresolved_reference", detail=last.detail))  # nobody was asked
    if not alive:
        return _fail(state, "model_failed", f"{last.error}: {last.detail}")
    fewest = min(tried[bounds.profiles[index]] for index in alive)
    if fewest >= MODEL_ROUNDS_MAX:
        return _fail(state, "model_failed", f"{last.error} after {len(state.failures)} attempts: {last.detail}")
    index = next(i for i in alive if tried[bounds.profiles[i]] == fewest)
    round_is_over = fewest > 0 and all(tried[bounds.profiles[i]] == fewest for i in alive)
    if round_is_over and not state.rested:
        # The profile that is next says itself how long it wants to be left alone.
        wanted_s = next(f.retry_after_s or 0.0 for f in reversed(state.failures) if f.profile == bounds.profiles[index])
        delay_ms = max(min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (fewest - 1)), int(wanted_s * 1000))
        return Wait("backoff", delay_ms=delay_ms, detail=f"{last.error}: {last.detail}")
    return CallModel(state.iteration + 1, len(state.failures) + 1, index, joined)
