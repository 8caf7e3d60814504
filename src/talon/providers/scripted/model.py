"""A script's parts as they stand in its file (`Rule`, `Answer`, `Fault`, …), and the `Reply` that they make for one request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from talon.domain.entries import Usage
from talon.providers.protocol import ToolCall

_Millis = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong. `after`: pieces of the answer that come before it (cut, stall, half_json)."""

    kind: Literal["status", "empty", "garbage", "half_json", "cut", "stall"]
    status: Annotated[int, msgspec.Meta(ge=300, le=599)] = 500
    retry_after_s: float | None = None
    message: str = "scripted fault"
    after: _Count = 0


class CallSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call to make."""

    tool: str
    arguments: dict[str, Any] | str = msgspec.field(default_factory=dict[str, Any])


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer; the pace falls back to the script's `defaults`."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallSpec, ...] = ()
    delay_ms: _Millis | None = None
    chunk_chars: _Positive | None = None
    chunk_delay_ms: _Millis | None = None
    stop_reason: Literal["", "stop", "tool_calls", "length"] = ""
    usage: Usage | None = None
    fault: Fault | None = None


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions; those that are given must all hold."""

    user: str | None = None
    user_matches: str | None = None
    system: str | None = None
    model: str | None = None
    step: _Positive | None = None
    results: _Count | None = None
    result: str | None = None
    result_matches: str | None = None


class Rule(Answer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer with its conditions."""

    name: str = ""
    when: When = When()
    times: _Positive | None = None


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pace of every answer that does not state its own."""

    delay_ms: _Millis = 0
    chunk_chars: _Positive = 20
    chunk_delay_ms: _Millis = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer for one request: every place filled in, every default applied. `rule` says where it came from."""

    rule: str
    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    delay_ms: int
    chunk_chars: int
    chunk_delay_ms: int
    stop_reason: Literal["stop", "tool_calls", "length"]
    usage: Usage | None
    fault: Fault | None
