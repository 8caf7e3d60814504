"""The one Protocol behind which every model stands, in Talon's own types.

A call is a stream of `ChatEvent`s that ends with exactly one `Finished`; anything else that happens is a `ProviderError`.
There is no silent end: a stream that stops without `Finished` is `ProviderError("connection")`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal, Protocol

import msgspec

from talon.domain.entries import Money, Opaque, Usage

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
    "refusal",
    "malformed",
    "empty",
    "unresolved",
]
#: Another attempt, or another model, may do better.
RETRYABLE: frozenset[str] = frozenset({"timeout", "connection", "rate_limit", "overloaded", "server", "malformed", "empty"})

#: Why a model stopped, the vendors' words mapped to ours. The last two are no answers: a call that ends so is a `ProviderError`.
StopReason = Literal["stop", "tool_calls", "length", "content_filter", "refusal"]

#: How much a model may think before it answers; empty: as the vendor does by itself.
Thinking = Literal["", "off", "low", "medium", "high"]

#: A provider's key: a text (empty: none is sent), or what gives the one that is valid now, or raises `ProviderError`.
Key = str | Callable[[], Awaitable[str]]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A part of a message: text."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image", omit_defaults=True):
    """A part of a message: an image, by `data` of type `mime` (`image/png`), or by a `url` that the vendor fetches itself.

    One with a `blob` is still to be read from there, `size` bytes; no provider gets such a one.
    """

    mime: str = ""
    data: bytes = b""
    url: str = ""
    blob: str = ""
    size: int = 0


Part = Text | Image


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool call of the model. `id` is the vendor's, `arguments` the JSON text as the model wrote it (it may be broken).

    `opaque`: what the vendor wants back with this call, as JSON text; it counts only where its message has an `opaque`.
    """

    id: str
    name: str
    arguments: str
    opaque: str = ""


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a context. role `assistant` may carry `tool_calls`; role `tool` answers the call `tool_call_id`.

    `parts`, where there are any, are the message in place of `content`, in their order (roles `user` and `tool`).
    `opaque` is what the vendor gave with an assistant's message and wants back with it; other providers and models do not get it.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    parts: tuple[Part, ...] = ()
    opaque: Opaque | None = None


class ToolDef(msgspec.Struct, frozen=True):
    """A tool as the model is told of it; `parameters` is JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class AnswerSchema(msgspec.Struct, frozen=True):
    """The JSON Schema that the answer's text must follow, under a `name` of letters, digits, `_` and `-`.

    `strict`: the vendor makes the model follow it (vendors then allow a subset of JSON Schema); else it is asked to.
    """

    name: str
    schema: dict[str, Any]
    strict: bool = True


class ChatRequest(msgspec.Struct, frozen=True):
    """One model call. Every tool call in `messages` is followed by its result (the context builder sees to it).

    What is None or empty is not sent, and the vendor's default holds. A vendor that has no word for a field does without it: its
    dialect's `leaves_out` says so. `tool_choice`: auto | none | required | the name of one of `tools`. `user` is an opaque id of
    the session, for the provider's abuse detection and prompt cache; never a name. `prompt_cache`: ask vendors that want to be
    asked to keep the beginning of the prompt.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolDef, ...] = ()
    temperature: float | None = None
    max_output_tokens: int | None = None
    user: str = ""
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: Thinking = ""
    tool_choice: str = ""
    parallel_tool_calls: bool | None = None
    answer_schema: AnswerSchema | None = None
    prompt_cache: bool = True


class TextDelta(msgspec.Struct, frozen=True):
    """More of the answer's text; never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More of the model's visible reasoning; never empty."""

    text: str


class Finished(msgspec.Struct, frozen=True):
    """The end of a good answer. Complete tool calls only; `usage` may be estimated. `opaque` goes back with the calls. `cost` where
    the vendor says what it costs."""

    stop_reason: Literal["stop", "tool_calls", "length"]
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    model: str = ""
    opaque: Opaque | None = None
    cost: Money | None = None


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
        cost: Money | None = None,
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.error: ErrorClass = error
        self.detail = detail
        self.status = status
        self.retry_after_s = retry_after_s
        self.usage = usage or Usage()
        self.cost = cost

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
