"""Anthropic's Messages API: requests. Source: Anthropic's API reference, "Messages", and its guides to thinking and caching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec
from yarl import URL

from talon.providers.anthropic_reader import MessagesReader
from talon.providers.claude import takes
from talon.providers.content import Kept, alternating, base64_of, call_id, encode, given, laid_out, valid_arguments
from talon.providers.dialect import OneAddress
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatMessage, ChatRequest, Part, Text, ToolCall
from talon.providers.sse import SseParser

VERSION = "2023-06-01"
#: The vendor wants a bound; this one holds where nobody gave one.
MAX_TOKENS = 8192
#: In place of a message without content, which the vendor does not take.
_NOTHING = "(nothing)"
_EPHEMERAL = {"type": "ephemeral"}


class Anthropic(OneAddress):
    """`base_url` ends before `/v1/messages` (`https://api.anthropic.com`); one that ends in `/v1` is understood as well.

    Where the model is to think, `temperature`, `top_k`, a low `top_p` and a forced tool are against the vendor's rules and are not
    sent; newer models take none of them at all. It does not think in the middle of calls that another model began (the vendor wants
    its own thoughts back there), nor where `max_output_tokens`, half of which it may think, leaves no room.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"seed"})
    reader = MessagesReader

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url.rstrip("/").removesuffix("/v1") + "/v1/messages")

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The version, and the key in the vendor's own header."""
        version = {"anthropic-version": VERSION}
        return version | {"x-api-key": key} if key else version

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`."""
        limit = request.max_output_tokens or MAX_TOKENS
        taken = takes(request, limit)
        system = tuple(_text(m.content) for m in request.messages if m.role == "system" and m.content)
        messages = alternating(request.messages, _part, _result, _answer, _text(_NOTHING))
        body: dict[str, Any] = {"model": request.model, "max_tokens": limit, "messages": messages, "stream": True}
        body |= given(
            system=system,
            stop_sequences=request.stop,
            thinking=taken.thinking,
            temperature=taken.temperature,
            top_p=taken.top_p,
            top_k=taken.top_k,
            tools=tuple({"name": t.name, "description": t.description, "input_schema": t.parameters} for t in request.tools),
        )
        if request.user:
            body["metadata"] = {"user_id": request.user}
        if request.tools:
            body |= given(tool_choice=_choice(request, forced=taken.forced))
        output = given(effort=taken.effort)
        if request.answer_schema is not None:
            output["format"] = {"type": "json_schema", "schema": request.answer_schema.schema}
        if output:
            body["output_config"] = output
        if request.prompt_cache:
            _mark(system, messages)
        return encode(body)

    def frames(self, limits: CallLimits) -> SseParser:
        """Server-sent events; each payload names its own type."""
        return SseParser(limits.line_max)


def _choice(request: ChatRequest, *, forced: bool) -> dict[str, Any] | None:
    wanted = request.tool_choice
    choice: dict[str, Any]
    if wanted == "none":
        return {"type": "none"}
    if wanted in ("", "auto") or not forced:
        if not wanted and request.parallel_tool_calls is None:
            return None
        choice = {"type": "auto"}
    else:
        choice = {"type": "any"} if wanted == "required" else {"type": "tool", "name": wanted}
    if request.parallel_tool_calls is not None:
        choice["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return choice


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _result(message: ChatMessage, parts: list[Any]) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id(message.tool_call_id), **given(content=tuple(parts))}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return _text(part.text)
    if part.url:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.mime, "data": base64_of(part)}}


def _answer(message: ChatMessage) -> Iterator[Any]:
    for item in laid_out(message):
        match item:
            case str():
                yield _text(item)
            case ToolCall():
                yield {"type": "tool_use", "id": call_id(item.id), "name": item.name, "input": msgspec.Raw(valid_arguments(item))}
            case Kept():
                yield item.json


def _mark(system: tuple[dict[str, Any], ...], messages: list[dict[str, Any]]) -> None:
    """Ask for a cache of all up to the system prompt (tools stand before it), and of all up to the newest message."""
    if system:
        system[-1]["cache_control"] = _EPHEMERAL
    last = messages[-1]["content"][-1] if messages and messages[-1]["content"] else None
    if isinstance(last, dict):
        last["cache_control"] = _EPHEMERAL
