"""How a turn begins, shared by the runner that claims it and by the commit that accepts it (kernel §4, commits ① and ②). Pure."""

from __future__ import annotations

from talon.domain import entries as e
from talon.domain.inbox import Message
from talon.domain.session import SessionRow
from talon.providers.traffic import Traffic
from talon.turn.definition import Pin
from talon.turn.machine import Bounds, CallModel, State, apply, decide
from talon.turn.model_step import model_started


def bounds_of(pin: Pin | None, attempts: int, attempts_max: int) -> Bounds:
    """What bounds a turn; one that is not pinned yet can only begin or end."""
    if pin is None:
        return Bounds((), 1, 0, 0.0, 0, {}, attempts, attempts_max)
    limits = pin.definition.limits
    return Bounds(
        profiles=tuple(profile.name for profile in pin.definition.profiles),
        model_calls_max=limits.model_calls_max,
        tool_calls_max=limits.tool_calls_max,
        wall_time_max_s=limits.wall_time_max_s,
        tokens_max=limits.tokens_max,
        key_ttl_s={spec.name: spec.key_ttl_s for spec in pin.specs.values()},
        attempts=attempts,
        attempts_max=attempts_max,
        model_retries_max=limits.model_retries_max,
        providers={profile.name: profile.provider for profile in pin.definition.profiles},
        windows=pin.definition.windows,
        blind=pin.definition.blind,
        continuing=pin.definition.continuing,
        on_refusal=pin.definition.on_refusal,
    )


def turn_started(pin: Pin, worker: str, fence: int) -> e.TurnStarted:
    """The first entry of a worker, which pins the turn (K12)."""
    return e.TurnStarted(
        agent=pin.definition.agent, revision=pin.definition.revision, definition=pin.digest, worker=worker, fence=fence
    )


def first_entries(message: Message, session: SessionRow, pin: Pin, worker: str, traffic: Traffic) -> tuple[e.NewEntry, ...] | None:
    """What a worker writes first for `message` on the idle `session` that it claims: started, and the first model call announced.

    None if the machine decides for anything but a model call, or for one that may have to wait: then the turn takes the way over
    the queue.
    """
    started = turn_started(pin, worker, session.fence + 1)
    state = apply(State(turn_id=message.turn_id), e.MessageReceived(content=message.content), session.last_seq + 1, 0)
    command = decide(apply(state, started, session.last_seq + 3, 0), bounds_of(pin, 1, 1), 0)
    if not isinstance(command, CallModel) or traffic.may_be_held(pin.definition.profiles[command.profile]):
        return None
    payloads: tuple[e.Payload, ...] = (started, model_started(command, pin))
    return tuple(e.new_entry(payload, message.turn_id, message.traceparent) for payload in payloads)
