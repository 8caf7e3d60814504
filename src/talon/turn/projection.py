"""What the turn's row shows of a state: written beside the entries, readable without folding them."""

from __future__ import annotations

import msgspec

from talon.domain.content import text_of
from talon.domain.entries import TurnCancelled, TurnCompleted, TurnDenied, TurnFailed
from talon.domain.session import LoopState, TurnState
from talon.store.model import TurnChange
from talon.turn.machine import State
from talon.turn.machine.state import UserItem

GOAL_CHARS_MAX = 160


def turn_change(before: State, after: State, *, progress: bool, iterations_max: int) -> TurnChange:
    """The row's values after an append that leads from `before` to `after`."""
    state, reason = _state(after)
    return TurnChange(
        turn_id=after.turn_id,
        state=state,
        revision=after.revision if after.revision != before.revision else None,
        reason=reason,
        waiting_for=after.waiting if after.waiting != before.waiting else None,
        loop=msgspec.json.encode(loop_state(after, iterations_max)),
        input_tokens=after.usage.input_tokens,
        output_tokens=after.usage.output_tokens,
        progress=progress,
    )


def _state(after: State) -> tuple[TurnState, str | None]:
    match after.ended:
        case None:
            return ("waiting" if after.waiting else "running"), None
        case TurnCompleted(reason=reason):
            return "completed", reason
        case TurnFailed(reason=reason):
            return "failed", reason
        case TurnCancelled(reason=reason):
            return "cancelled", reason
        case TurnDenied(reason=reason):
            return "denied", reason
        case _:
            raise AssertionError(f"{after.ended.type} ends no turn")


def loop_state(state: State, iterations_max: int) -> LoopState:
    """Where the loop stands (`seeds/003`): names of calls as sub-tasks."""
    first = state.transcript[0] if state.transcript else None
    goal = text_of(first.content) if isinstance(first, UserItem) else ""
    return LoopState(
        phase=_phase(state),
        iteration=state.iteration,
        max_iterations=iterations_max,
        goal=goal[:GOAL_CHARS_MAX],
        pending=tuple(call.name for call in state.open_calls),
        completed=tuple(call.name for call in state.calls if call.status == "closed"),
        total_tokens_used=state.usage.input_tokens + state.usage.output_tokens,
        total_cost=float(state.costs[0].amount) if state.costs else 0.0,
    )


def _phase(state: State) -> str:
    if state.ended is not None or state.answered:
        return "done"
    if state.model is not None:
        return "deciding"
    if state.open_calls:
        return "executing"
    if state.calls:
        return "evaluating"
    return "planning"
