"""The one Protocol behind which every model stands, in Talon's own types.

A call is a stream of `ChatEvent`s that ends with exactly one `Finished`; anything else that happens is a `ProviderError`.
There is no silent end: a stream that stops without `Finished` is `ProviderError("connection")`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

import msgspec

from talon.domain.entries import Usage

ErrorClass = Literal[
    "timeout",
    "connection",
    "rate_limit",
    "overloaded",
    "server",
    "authentication",
    "bad_request",
    "context_overflow",
    "content_filter",
    "malformed",
    "empty",
    "unresolved",
]
#: Another attempt, or another model, may do better.
RETRYABLE: frozenset[str] = frozenset({"timeout", "connection", "rate_limit", "overloaded", "server", "malformed", "empty"})


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call of the model. `id` is the vendor's, `arguments` the JSON text as the model wrote it (it may be broken)."""

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a context. role `assistant` may carry `tool_calls`; role `tool` answers the call `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class ToolDef(msgspec.Struct, frozen=True):
    """A tool as the model is told of it; `parameters` is JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class ChatRequest(msgspec.Struct, frozen=True):
    """One model call. Every tool call in `messages` is followed by its result (the context builder sees to it).

    `user` is an opaque id of the session, for the provider's abuse detection and prompt cache; never a name.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolDef, ...] = ()
    temperature: float | None = None
    max_output_tokens: int | None = None
    user: str = ""


class TextDelta(msgspec.Struct, frozen=True):
    """More of the answer's text; never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More of the model's visible reasoning; never empty."""

    text: str


class Finished(msgspec.Struct, frozen=True):
    """The end of a good answer. `stop_reason`: stop | tool_calls | length. Complete tool calls only; `usage` may be estimated."""

    stop_reason: str
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    model: str = ""


ChatEvent = TextDelta | ReasoningDelta | Finished


class ProviderError(Exception):
    """A model call failed. `error` is its class; `detail` is safe to show: no key, no header, at most 500 characters."""

    def __init__(
        self,
        error: ErrorClass,
        detail: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.error: ErrorClass = error
        self.detail = detail
        self.status = status
        self.retry_after_s = retry_after_s
        self.usage = usage or Usage()

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed."""
        return self.error in RETRYABLE


class Provider(Protocol):
    """A vendor's adapter, configured. Safe for many calls at once on one event loop; connections are pooled."""

    @property
    def name(self) -> str:
        """Its name in the configuration (`providers.NAME`)."""
        ...

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Make one call. Raises `ProviderError` and nothing else. Cancelling the consumer (or `aclose`) closes the socket.
        Never retries by itself: the turn decides."""
        ...

    async def close(self) -> None:
        """Close the pooled connections."""
        ...
