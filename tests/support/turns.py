"""Journals of turns in a few words, for tests of the machine and of the context."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from talon.domain import entries as e
from talon.turn.machine import Bounds, State, apply, fold

TURN = "t1"
START_MS = 1_760_000_000_000
BOUNDS = Bounds(
    profiles=("main", "spare"),
    model_calls_max=10,
    tool_calls_max=50,
    wall_time_max_s=3600.0,
    tokens_max=0,
    key_ttl_s={"pay": 86_400.0, "look": 86_400.0},
)


class Story:
    """A session's journal as it is written: each `add` is one entry, a second after the one before."""

    def __init__(self, turn_id: str = TURN, step_ms: int = 1_000) -> None:
        self.entries: list[e.Entry] = []
        self.turn_id, self.step_ms = turn_id, step_ms
        self.at_ms = START_MS

    @property
    def seq(self) -> int:
        """The last seq."""
        return len(self.entries)

    def add(self, *payloads: e.Payload, turn_id: str | None = None, after_ms: int | None = None) -> Story:
        """Append entries of `turn_id` (the story's own by default), the first of them `after_ms` after the last one."""
        for number, payload in enumerate(payloads):
            self.at_ms += self.step_ms if after_ms is None or number else after_ms
            new = e.new_entry(payload, self.turn_id if turn_id is None else turn_id)
            self.entries.append(e.Entry(self.seq + 1, new.type, new.payload, new.turn_id, self.at_ms))
        return self

    def state(self) -> State:
        """What the turn knows of itself now."""
        return fold(self.entries, self.turn_id)


def queued(content: str = "hello") -> list[e.Payload]:
    return [e.MessageReceived(content=content), e.TurnQueued(message_seq=1)]


def started(**more: Any) -> list[e.Payload]:
    """Up to a turn that is planning."""
    return [*queued(), e.TurnStarted(agent="a", revision=3, definition="d1", worker="w", fence=1, **more)]


def model(iteration: int = 1, profile: str = "main", attempt: int = 1) -> e.ModelStarted:
    return e.ModelStarted(iteration=iteration, provider="p", model="m", profile=profile, attempt=attempt)


def answer(*tools: str, first: int = 1, arguments: str = "{}", tokens: int = 10) -> list[e.Payload]:
    """A model's answer that asks for `tools`, numbered from `first`."""
    usage = e.Usage(tokens, tokens)
    calls = [
        e.ToolRequested(call=number, call_id=f"c{number}", name=name, arguments=arguments)
        for number, name in enumerate(tools, first)
    ]
    return [e.ModelFinished(stop_reason="tool_calls", content="thinking", calls=len(calls), usage=usage), *calls]


def final(text: str = "done", model_seq: int = 0) -> list[e.Payload]:
    """The answer that needs no tool."""
    return [e.ModelFinished(stop_reason="stop", usage=e.Usage(10, 10)), e.MessageCompleted(content=text, model_seq=model_seq)]


def intent(call: int = 1, effect: str = "read", attempt: int = 1) -> e.ToolStarted:
    return e.ToolStarted(call=call, key=f"k{call}", attempt=attempt, effect=effect)


def failed(
    error: str = "server", retryable: bool = True, retry_after_s: float | None = None, usage: e.Usage | None = None
) -> e.ModelFailed:
    return e.ModelFailed(
        error=error, detail="it said no", retryable=retryable, retry_after_s=retry_after_s, usage=usage or e.Usage()
    )


def resumed(why: str = "takeover") -> e.TurnResumed:
    return e.TurnResumed(why=why, attempt=2, worker="w2", fence=2)


def story(*payloads: e.Payload | Iterable[e.Payload], **more: Any) -> Story:
    """A journal of one turn from payloads and lists of them."""
    made = Story(**more)
    for one in payloads:
        made.add(*((one,) if isinstance(one, e.Payload) else one))
    return made


def extended(state: State, *payloads: e.Payload) -> State:
    """`state` after more entries."""
    for payload in payloads:
        state = apply(state, payload, state.last_seq + 1, state.last_at_ms + 1_000)
    return state
