"""Anthropic's Messages API. Source: Anthropic's API reference, "Messages", and its guides to streaming, thinking and caching."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec
from yarl import URL

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import Kept, call_id, encode, given, laid_out, parts_of, runs, valid_arguments
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Part, StopReason, Text, ToolCall
from talon.providers.sse import SseParser

VERSION = "2023-06-01"
#: The vendor wants a bound; this one holds where nobody gave one.
MAX_TOKENS = 8192
#: Tokens of thinking by level, for models that take a budget. The vendor takes no budget below the least.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24_576}
_BUDGET_MIN = 1024
_STOPS: dict[str, StopReason] = {  # an unknown reason is a stop
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "content_filter": "content_filter",  # of servers that pass another vendor's reason on
}
#: Models up to 4.5 think by a budget, later ones as much as they find right, guided by an effort.
_VERSION_OF = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
#: In place of a message without content, which the vendor does not take.
_NOTHING = "(nothing)"
_EPHEMERAL = {"type": "ephemeral"}


class Anthropic:
    """`base_url` ends before `/v1/messages` (`https://api.anthropic.com`); one that ends in `/v1` is understood as well.

    Where the model is to think, `temperature`, `top_k`, a low `top_p` and a forced tool are against the vendor's rules and are not
    sent. It does not think in the middle of calls that another model began (the vendor wants its own thoughts back there), nor
    where `max_output_tokens`, half of which it may think, leaves no room.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __init__(self, base_url: str) -> None:
        self._url = URL(base_url.rstrip("/").removesuffix("/v1") + "/v1/messages")

    def __repr__(self) -> str:
        return f"Anthropic({str(self._url)!r})"

    def url(self, request: ChatRequest) -> URL:
        """The same for all models."""
        return self._url

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The version, and the key in the vendor's own header."""
        version = {"anthropic-version": VERSION}
        return version | {"x-api-key": key} if key else version

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`."""
        limit = request.max_output_tokens or MAX_TOKENS
        thinking, effort = _thinking(request, limit)
        thinks = thinking is not None and thinking["type"] != "disabled"
        system = tuple(_text(m.content) for m in request.messages if m.role == "system" and m.content)
        messages = [_message(run) for run in runs([m for m in request.messages if m.role != "system"], "user", "tool")]
        if messages and messages[0]["role"] == "assistant":  # the vendor wants the user to begin
            messages.insert(0, {"role": "user", "content": [_text(_NOTHING)]})
        body: dict[str, Any] = {"model": request.model, "max_tokens": limit, "messages": messages, "stream": True}
        body |= given(
            system=system,
            top_p=request.top_p if not thinks or (request.top_p or 0) >= 0.95 else None,
            stop_sequences=request.stop,
            thinking=thinking,
            tools=tuple({"name": t.name, "description": t.description, "input_schema": t.parameters} for t in request.tools),
        )
        if not thinks:
            body |= given(temperature=request.temperature, top_k=request.top_k)
        if request.user:
            body["metadata"] = {"user_id": request.user}
        if request.tools:
            body |= given(tool_choice=_choice(request, forced=not thinks))
        output = given(effort=effort)
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

    def reader(self, answer: Answer) -> MessagesReader:
        """See `Dialect.reader`."""
        return MessagesReader(answer)


def _thinking(request: ChatRequest, limit: int) -> tuple[dict[str, Any] | None, str]:
    """(the vendor's `thinking`, its effort)."""
    level = request.thinking
    if not level:
        return None, ""
    last = next((m for m in reversed(request.messages) if m.role != "tool"), None)
    foreign = last is not None and bool(last.tool_calls) and last.opaque is None
    if level == "off" or foreign:
        return {"type": "disabled"}, ""
    found = _VERSION_OF.search(request.model)
    if found is None or (int(found[1]), int(found[2] or 0)) >= (4, 6):
        return {"type": "adaptive", "display": "summarized"}, level
    budget = min(_BUDGETS[level], limit // 2)
    if budget < _BUDGET_MIN:
        return {"type": "disabled"}, ""
    return {"type": "enabled", "budget_tokens": budget}, ""


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


def _message(run: tuple[ChatMessage, ...]) -> dict[str, Any]:
    """A run of the user's side (results of tools first, as the vendor wants them), or one answer."""
    if run[0].role == "assistant":
        return {"role": "assistant", "content": list(_answer(run[0])) or [_text(_NOTHING)]}
    ordered = sorted(run, key=lambda message: message.role != "tool") if run[0].role == "tool" else run
    content: list[dict[str, Any]] = []
    for message in ordered:
        parts = [_part(part) for part in parts_of(message)]
        if message.role == "tool":
            content.append({"type": "tool_result", "tool_use_id": call_id(message.tool_call_id), **given(content=tuple(parts))})
        else:
            content += parts
    return {"role": "user", "content": content or [_text(_NOTHING)]}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return _text(part.text)
    if part.url:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    data = base64.b64encode(part.data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": part.mime, "data": data}}


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


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    """Cumulative counts; a later event repeats those that changed."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Block(msgspec.Struct, gc=False):
    """text | thinking | redacted_thinking | tool_use; others are read over."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Thought:
    """A thinking block that is being written."""

    __slots__ = ("signature", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.signature: list[str] = []


class _StopDetails(msgspec.Struct, gc=False):
    category: str | None = None
    explanation: str | None = None


class _Delta(msgspec.Struct, gc=False):
    """Of a block (by `type`), or of the message (why it stopped)."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode


class MessagesReader:
    """Reads the events of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._usage = _Usage()
        self._thoughts: dict[int, _Thought] = {}  # by the index of their block

    def take(self, event: bytes, out: list[ChatEvent]) -> bool:
        """See `Reader.take`; `message_stop` is the end."""
        e = _decode(event)
        match e.type:
            case "content_block_delta" if e.delta is not None:
                self._delta(e.index, e.delta, out)
            case "content_block_start" if e.content_block is not None:
                self._start(e.index, e.content_block, out)
            case "content_block_stop":
                self._stop(e.index)
            case "message_start" if e.message is not None:
                self._answer.id = e.message.id or ""
                self._answer.model = e.message.model or ""
                self._count(e.message.usage)
            case "message_delta":
                self._count(e.usage, final=True)
                if e.delta is not None:
                    self._stopped(e.delta.stop_reason, e.delta.stop_details)
            case "message_stop":
                return True
            case _ if e.error is not None:
                self._answer.failed(e.error)
            case _:
                pass  # ping, and what may come in later versions
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """A message that was not streamed."""
        message = _decode_message(body)
        if message.error is not None:
            self._answer.failed(message.error)
        self._answer.id, self._answer.model = message.id or "", message.model or ""
        for index, block in enumerate(message.content or ()):
            self._start(index, block, out)
            self._stop(index)
        self._count(message.usage, final=True)
        self._stopped(message.stop_reason, message.stop_details)

    def _start(self, index: int, block: _Block, out: list[ChatEvent]) -> None:
        match block.type:
            case "text":
                self._answer.text(block.text or "", out)
            case "thinking":
                self._think(index, block.thinking, block.signature, out)
            case "redacted_thinking":
                self._answer.keep(encode({"type": block.type, "data": block.data or ""}).decode())
            case "tool_use":
                whole = bytes(block.input).decode()  # in a stream it begins empty
                self._answer.call(index, block.id or "", block.name or "", whole if whole != "{}" else "")
            case _:
                pass

    def _delta(self, index: int, delta: _Delta, out: list[ChatEvent]) -> None:
        match delta.type:
            case "text_delta":
                self._answer.text(delta.text or "", out)
            case "input_json_delta":
                self._answer.call(index, "", "", delta.partial_json)
            case "thinking_delta":
                self._think(index, delta.thinking, None, out)
            case "signature_delta":
                self._think(index, None, delta.signature, out)
            case _:
                pass

    def _think(self, index: int, text: str | None, signature: str | None, out: list[ChatEvent]) -> None:
        thought = self._thoughts.setdefault(index, _Thought())
        if text:
            self._answer.reasoning(text, out)
            thought.text.append(text)
        if signature:
            thought.signature.append(signature)

    def _stop(self, index: int) -> None:
        thought = self._thoughts.pop(index, None)
        if thought is not None and thought.signature:  # the vendor takes no thought back without its signature
            kept = {"type": "thinking", "thinking": "".join(thought.text), "signature": "".join(thought.signature)}
            self._answer.keep(encode(kept).decode())

    def _stopped(self, reason: str | None, details: _StopDetails | None) -> None:
        if reason:
            self._answer.stop = _STOPS.get(reason, "stop")
            words = details and (details.explanation or details.category)
            if reason == "refusal" and words:
                self._answer.refusal(words)

    def _count(self, usage: _Usage | None, *, final: bool = False) -> None:
        """`final`: of the output all is counted. Where nobody counted, the stated estimate holds."""
        if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
            return
        known = self._usage
        for field in usage.__struct_fields__:
            value = getattr(usage, field)
            if value is not None:
                setattr(known, field, value)
        read, written = known.cache_read_input_tokens or 0, known.cache_creation_input_tokens or 0
        thought = known.output_tokens_details
        self._answer.counted(
            Usage(
                (known.input_tokens or 0) + read + written,
                known.output_tokens or 0,
                read,
                not final,
                written,
                (thought.thinking_tokens if thought is not None else None) or 0,
            )
        )
