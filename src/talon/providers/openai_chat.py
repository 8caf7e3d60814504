"""OpenAI's chat completions, and every server that speaks them.

Source: OpenAI's API reference, "Chat Completions". Reading is lenient where compatible servers differ (a null or missing field,
usage on every chunk, `reasoning` or `reasoning_content`, arguments as an object) and strict in types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from yarl import URL

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import Kept, call_id, data_url, encode, given, laid_out, parts_of, runs, valid_arguments
from talon.providers.decoding import Decoding, until
from talon.providers.dialect import OneAddress
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, Part, StopReason, Text, ToolCall
from talon.providers.sse import SseParser

#: After the last event.
DONE = b"[DONE]"
_STOPS: dict[str, StopReason] = {  # an unknown reason is a stop
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
#: `thinking` in OpenAI's words.
EFFORTS = {"off": "none", "low": "low", "medium": "medium", "high": "high"}


class OpenAIChat(OneAddress):
    """`base_url` ends before `/chat/completions` (`https://api.openai.com/v1`). An empty key sends no Authorization.

    `max_tokens_field` is the server's name for the output limit; empty: `max_completion_tokens` for api.openai.com, `max_tokens`
    elsewhere. Servers of reasoning models that want `reasoning_content` back with their tool calls get it. Images in a tool's
    result follow the results in a message of their own, as this wire has no place for them there.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"top_k", "prompt_cache"})  # its vendors cache by themselves

    def __init__(self, base_url: str, *, max_tokens_field: str = "") -> None:
        super().__init__(base_url.rstrip("/") + "/chat/completions")
        vendor = self._url.host == "api.openai.com"
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if vendor else "max_tokens")

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The key as a bearer."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`."""
        return encode(self.fields(request))

    def fields(self, request: ChatRequest) -> dict[str, Any]:
        """The body as a mapping, for those who add to it."""
        tools = tuple({"type": "function", "function": tool} for tool in request.tools)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [message for run in runs(request.messages, "tool") for message in _messages(run)],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= given(
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            seed=request.seed,
            reasoning_effort=EFFORTS.get(request.thinking),
            tools=tools,
            user=request.user,
        )
        if request.max_output_tokens is not None:
            body[self._max_tokens_field] = request.max_output_tokens
        if tools:  # servers refuse these two without tools
            body |= given(tool_choice=_choice(request.tool_choice), parallel_tool_calls=request.parallel_tool_calls)
        if request.answer_schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": request.answer_schema}
        return body

    def frames(self, limits: CallLimits) -> SseParser:
        """Server-sent events."""
        return SseParser(limits.line_max)

    def reader(self, answer: Answer) -> ChatReader:
        """See `Dialect.reader`."""
        return ChatReader(answer)


def _choice(choice: str) -> Any:
    if choice in ("", "auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _messages(run: tuple[ChatMessage, ...]) -> Iterator[dict[str, Any]]:
    """One message, or results of tools that stand together, followed by their images."""
    images: list[Any] = []
    for message in run:
        match message.role:
            case "assistant":
                yield _assistant(message)
            case "tool":
                parts = parts_of(message)
                content = "\n".join(part.text for part in parts if isinstance(part, Text))
                yield {"role": "tool", "tool_call_id": call_id(message.tool_call_id), "content": content}
                images += [_part(part) for part in parts if isinstance(part, Image)]
            case role:
                content = [_part(part) for part in message.parts] or message.content
                yield {"role": role, "content": content}
    if images:
        yield {"role": "user", "content": [{"type": "text", "text": "Images of the tool results:"}, *images]}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def _assistant(message: ChatMessage) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": "assistant", "content": message.content}
    out: dict[str, Any] = {"role": "assistant", "content": message.content or None, "tool_calls": []}
    for item in laid_out(message):
        if isinstance(item, ToolCall):
            function = {"name": item.name, "arguments": valid_arguments(item).decode()}
            out["tool_calls"].append({"id": call_id(item.id), "type": "function", "function": function})
        elif isinstance(item, Kept):
            out |= msgspec.json.decode(item.json, type=dict[str, msgspec.Raw])
    return out


class _Function(msgspec.Struct, gc=False):
    """A piece of a call: the name comes whole and once, the arguments in pieces (from some servers as an object)."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct, gc=False):
    """A piece of the tool call at `index`; some servers leave out the index, or the id."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class Delta(msgspec.Struct, gc=False):
    """More of a message, or (not streamed) the whole of it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning_details: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, gc=False):
    """One answer; `delta` in a stream, `message` in a whole completion."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct, gc=False):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None

    def counted(self) -> Usage:
        """In Talon's words."""
        prompt, output = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            self.prompt_tokens or 0,
            self.completion_tokens or 0,
            (prompt.cached_tokens if prompt else None) or self.prompt_cache_hit_tokens or 0,
            cache_write_tokens=(prompt.cache_write_tokens if prompt else None) or 0,
            reasoning_tokens=(output.reasoning_tokens if output else None) or 0,
        )


class Chunk(msgspec.Struct, gc=False):
    """A `chat.completion.chunk`, a whole `chat.completion`, or an error in place of either."""

    choices: list[Choice] | None = None
    usage: Counts | None = None
    error: Any = None


class _Head(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None


_HEAD = Decoding(_Head)


class ChatReader:
    """Reads chunks of one answer."""

    chunks: ClassVar[Decoding[Any]] = Decoding(Chunk)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._thought: dict[str, list[str]] = {}  # reasoning by the name of its field, to go back under it

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`; the end mark is `[DONE]`."""
        events, ended = until(events, DONE)
        answer, text = self._answer, self._answer.text
        answer.head(events, _HEAD)
        for chunk in self.chunks.each(events):
            if chunk.error is not None:
                answer.failed(chunk.error)
            if chunk.usage is not None:
                self._count(chunk.usage)
            for choice in chunk.choices or ():
                if choice.index:
                    continue  # only one answer was asked for
                delta = choice.delta or choice.message
                if delta is not None:
                    if delta.tool_calls or delta.reasoning_content or delta.reasoning or delta.refusal or delta.reasoning_details:
                        self._delta(delta, out)
                    elif delta.content:
                        text(delta.content)
                if choice.finish_reason:
                    self._stopped(choice.finish_reason)
        return ended

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """A completion that was not streamed has the shape of a chunk, with a message for a delta."""
        self.take((body,), out)

    def _delta(self, delta: Delta, out: list[ChatEvent]) -> None:
        answer = self._answer
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            answer.reasoning(thought, out)
            field = "reasoning_content" if delta.reasoning_content else "reasoning"
            self._thought.setdefault(field, []).append(thought)
        if delta.content:
            answer.text(delta.content)
        if delta.refusal:
            answer.refusal(delta.refusal)
        for call in delta.tool_calls or ():
            function = call.function
            name, arguments = (function.name or "", function.arguments) if function else ("", None)
            answer.call(call.index, call.id or "", name, arguments)

    def _count(self, usage: Counts) -> None:
        if usage.prompt_tokens is not None or usage.completion_tokens is not None:
            self._answer.counted(usage.counted)

    def _stopped(self, reason: str) -> None:
        if reason == "error":
            raise self._answer.error("server", "the server stopped the answer with an error")
        self._answer.stop = _STOPS.get(reason, "stop")
        thought, self._thought = self._thought, {}
        for field, pieces in thought.items():
            self._answer.keep(encode({field: "".join(pieces)}).decode())
