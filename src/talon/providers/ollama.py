"""Ollama's own API, which knows more than its imitation of OpenAI's. Source: Ollama's API reference, "Generate a chat message"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from yarl import URL

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import Kept, base64_of, encode, given, laid_out, parts_of, runs, valid_arguments
from talon.providers.decoding import Decoding, text_of
from talon.providers.dialect import OneAddress
from talon.providers.limits import CallLimits
from talon.providers.ndjson import JsonLines
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, ProviderError, StopReason, Text, Thinking, ToolCall

_THINK: dict[Thinking, bool | str] = {"off": False, "low": "low", "medium": "medium", "high": "high"}
_STOPS: dict[str, StopReason] = {"length": "length"}  # an unknown reason is a stop


class Ollama(OneAddress):
    """`base_url` ends before `/api/chat` (`http://127.0.0.1:11434`). An empty key, the usual case, sends no Authorization.

    The server is asked not to cut off the beginning of a conversation that is longer than the model's window, as it does by
    itself: such a call fails as `context_overflow`. Calls have no ids on this wire: results stand in the order of their calls, with
    the tool's name. An image follows the text before it; images in a tool's result follow in a message of their own.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"user", "tool_choice", "parallel_tool_calls", "prompt_cache"})

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url.rstrip("/").removesuffix("/v1").removesuffix("/api") + "/api/chat")

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The key as a bearer: of the vendor's cloud, or of a proxy."""
        accept = {"Accept": "application/x-ndjson"}
        return accept | {"Authorization": f"Bearer {key}"} if key else accept

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`. Raises `ProviderError("bad_request")` for an image by its address."""
        names = {call.id: call.name for message in request.messages for call in message.tool_calls}
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [message for run in runs(request.messages, "tool") for message in _messages(run, names)],
            "stream": True,
            "truncate": False,
        }
        options = given(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            num_predict=request.max_output_tokens,
            stop=request.stop,
        )
        body |= given(
            tools=tuple({"type": "function", "function": tool} for tool in request.tools),
            think=_THINK.get(request.thinking),
            format=request.answer_schema.schema if request.answer_schema is not None else None,
        )
        if options:
            body["options"] = options
        return encode(body)

    def frames(self, limits: CallLimits) -> JsonLines:
        """JSON lines. A line may be a call with all its arguments, or the whole answer of a server that does not stream."""
        return JsonLines(limits.whole_max)

    def reader(self, answer: Answer) -> OllamaReader:
        """See `Dialect.reader`."""
        return OllamaReader(answer)


def _messages(run: tuple[ChatMessage, ...], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One message in as many as its images need, or results of tools that stand together, followed by their images."""
    images: list[str] = []
    for message in run:
        match message.role:
            case "assistant":
                yield _assistant(message)
            case "tool":
                parts = parts_of(message)
                text = "\n".join(part.text for part in parts if isinstance(part, Text))
                yield {"role": "tool", "tool_name": names.get(message.tool_call_id, ""), "content": text}
                images += [_image(part) for part in parts if isinstance(part, Image)]
            case role if message.parts:
                yield from _parted(role, message)
            case role:
                yield {"role": role, "content": message.content}
    if images:
        yield {"role": "user", "content": "Images of the tool results:", "images": images}


def _parted(role: str, message: ChatMessage) -> Iterator[dict[str, Any]]:
    """A message of this wire is a text and then images."""
    text, images = list[str](), list[str]()
    for part in message.parts:
        if isinstance(part, Image):
            images.append(_image(part))
            continue
        if images:
            yield {"role": role, "content": "\n".join(text), "images": images}
            text, images = [], []
        text.append(part.text)
    yield {"role": role, "content": "\n".join(text), **given(images=tuple(images))}


def _image(image: Image) -> str:
    if image.url:
        raise ProviderError("bad_request", "Ollama takes no image by its address: give the image itself")
    return base64_of(image)


def _assistant(message: ChatMessage) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant", "content": message.content}
    calls: list[Any] = []
    for item in laid_out(message):
        if isinstance(item, ToolCall):
            calls.append({"function": {"name": item.name, "arguments": msgspec.Raw(valid_arguments(item))}})
        elif isinstance(item, Kept):
            out |= msgspec.json.decode(item.json, type=dict[str, msgspec.Raw])
    return out | given(tool_calls=tuple(calls))


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"")


class _Call(msgspec.Struct, gc=False):
    """A tool call, always whole; newer servers name it."""

    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    """A piece of an answer; the last one is `done` and has the counts."""

    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    prompt_eval_cached_count: int | None = None
    eval_count: int | None = None
    error: Any = None

    def counted(self) -> Usage:
        """In Talon's words."""
        return Usage(self.prompt_eval_count or 0, self.eval_count or 0, self.prompt_eval_cached_count or 0)


class _Head(msgspec.Struct, gc=False, rename={"id": "created_at"}):
    """The time names calls without ids: apart from those of other answers."""

    id: str | None = None
    model: str | None = None


_LINE, _HEAD = Decoding(_Line), Decoding(_Head)


class OllamaReader:
    """Reads the lines of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._thought: list[str] = []

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`."""
        answer, text = self._answer, self._answer.text
        answer.head(events, _HEAD)
        for line in _LINE.each(events):
            if line.error is not None:
                answer.failed(line.error)
            message = line.message
            if message is not None:
                if message.thinking:
                    answer.reasoning(message.thinking, out)
                    self._thought.append(message.thinking)
                if message.content:
                    text(message.content)
                for call in message.tool_calls or ():
                    function = call.function or _Function()
                    answer.call(None, call.id or "", function.name or "", text_of(function.arguments))
            if line.done:
                self._done(line)
                return True
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """An answer that was not streamed is a stream of one line."""
        self.take((body,), out)

    def _done(self, line: _Line) -> None:
        if self._thought:
            self._answer.keep(encode({"thinking": "".join(self._thought)}).decode())
        if line.prompt_eval_count is not None or line.eval_count is not None:
            self._answer.counted(line.counted)
        self._answer.stop = _STOPS.get(line.done_reason or "", "stop")
