"""How a turn ends, whatever the reason."""

from __future__ import annotations

from talon.domain import entries as e
from talon.turn.machine.commands import Finish
from talon.turn.machine.state import State


def fail(state: State, reason: str, detail: str) -> Finish:
    """End the turn as failed."""
    return finish(state, e.TurnFailed(reason=reason, detail=detail, usage=state.usage))


def finish(state: State, end: e.Payload) -> Finish:
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
