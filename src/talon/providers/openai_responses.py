"""OpenAI's Responses API. Source: OpenAI's API reference, "Responses" and its streaming events.

Nothing is stored at the vendor (`store: false`): reasoning comes back encrypted with an answer and goes back with its tool calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from yarl import URL

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import Kept, call_id, data_url, encode, given, laid_out, parts_of, valid_arguments
from talon.providers.decoding import Decoding, text_of, until
from talon.providers.dialect import OneAddress
from talon.providers.limits import CallLimits
from talon.providers.openai_chat import DONE, EFFORTS
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Part, Text, ToolCall
from talon.providers.sse import SseParser

#: Models that reason even where nobody asked; others refuse to be asked for what they have not.
_REASONS = re.compile(r"(o\d|gpt-[5-9])(?!.*-chat)")


class OpenAIResponses(OneAddress):
    """`base_url` ends before `/responses` (`https://api.openai.com/v1`). An empty key sends no Authorization."""

    leaves_out: ClassVar[frozenset[str]] = frozenset({"top_k", "stop", "seed", "prompt_cache"})

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url.rstrip("/") + "/responses")

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The key as a bearer."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`."""
        body: dict[str, Any] = {
            "model": request.model,
            "input": [item for message in request.messages for item in _items(message)],
            "stream": True,
            "store": False,
        }
        body |= given(
            temperature=request.temperature,
            top_p=request.top_p,
            max_output_tokens=request.max_output_tokens,
            tools=tuple(
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": False,  # its own default would refuse most schemas
                }
                for tool in request.tools
            ),
            safety_identifier=request.user,
            prompt_cache_key=request.user,
        )
        if request.thinking:
            body["reasoning"] = {"effort": EFFORTS[request.thinking]}
        if request.thinking != "off" and (request.thinking or _REASONS.match(request.model)):
            body.setdefault("reasoning", {})["summary"] = "auto"
            body["include"] = ["reasoning.encrypted_content"]
        if request.tools:
            body |= given(tool_choice=_choice(request.tool_choice), parallel_tool_calls=request.parallel_tool_calls)
        schema = request.answer_schema
        if schema is not None:
            form = {"type": "json_schema", "name": schema.name, "schema": schema.schema, "strict": schema.strict}
            body["text"] = {"format": form}
        return encode(body)

    def frames(self, limits: CallLimits) -> SseParser:
        """Server-sent events; each payload names its own type. The last ones repeat the whole answer."""
        return SseParser(limits.whole_max)

    def reader(self, answer: Answer) -> ResponsesReader:
        """See `Dialect.reader`."""
        return ResponsesReader(answer)


def _choice(choice: str) -> Any:
    return choice if choice in ("", "auto", "none", "required") else {"type": "function", "name": choice}


def _items(message: ChatMessage) -> Iterator[Any]:
    """A message as input items: calls and their results are items of their own here."""
    match message.role:
        case "tool":
            output = [_part(part) for part in message.parts] or message.content
            yield {"type": "function_call_output", "call_id": call_id(message.tool_call_id), "output": output}
        case "assistant":
            for item in laid_out(message):
                match item:
                    case str():
                        yield {"role": "assistant", "content": item}
                    case ToolCall():
                        arguments = valid_arguments(item).decode()
                        yield {"type": "function_call", "call_id": call_id(item.id), "name": item.name, "arguments": arguments}
                    case Kept():
                        yield item.json
        case role:
            yield {"role": role, "content": [_part(part) for part in parts_of(message)]}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}


class _Content(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, gc=False):
    """A piece of the output: message | function_call | reasoning; others are read over."""

    type: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    encrypted_content: str | None = None
    content: list[_Content] | None = None
    summary: list[_Content] | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def counted(self) -> Usage:
        """In Talon's words."""
        read, output = self.input_tokens_details, self.output_tokens_details
        return Usage(
            self.input_tokens,
            self.output_tokens,
            (read.cached_tokens if read else None) or 0,
            cache_write_tokens=(read.cache_write_tokens if read else None) or 0,
            reasoning_tokens=(output.reasoning_tokens if output else None) or 0,
        )


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    """An event of the stream; which fields it has hangs on `type`."""

    type: str = ""
    delta: str | None = None
    output_index: int | None = None
    item: msgspec.Raw = msgspec.Raw(b"{}")
    arguments: str | None = None
    summary_index: int | None = None
    response: _Response | None = None
    error: Any = None
    code: Any = None
    message: str | None = None


_EVENT, _ITEM, _RESPONSE = Decoding(_Event), Decoding(_Item), Decoding(_Response)


class ResponsesReader:
    """Reads the events of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`; the last event carries the response with its usage."""
        events, ended = until(events, DONE)  # compatible servers close with it as on the other wire
        text = self._answer.text
        for e in _EVENT.each(events):
            if e.type == "response.output_text.delta":
                text(e.delta or "")
            elif self._event(e, out):
                return True
        return ended

    def _event(self, e: _Event, out: list[ChatEvent]) -> bool:
        answer = self._answer
        match e.type:
            case "response.function_call_arguments.delta":
                answer.call(e.output_index, "", "", e.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                answer.reasoning(e.delta or "", out)
            case "response.reasoning_summary_part.added":
                answer.reasoning("\n\n" if e.summary_index else "", out)
            case "response.refusal.delta":
                answer.refusal(e.delta or "")
            case "response.output_item.added":
                item = _ITEM.one(e.item)
                if item.type == "function_call":
                    answer.call(e.output_index, item.call_id or "", item.name or "", item.arguments)
            case "response.function_call_arguments.done" if e.output_index is not None:
                self._rest_of(e.output_index, e.arguments or "")
            case "response.output_item.done":
                self._done(e.output_index, e.item)
            case "response.completed" | "response.incomplete" | "response.failed" if e.response is not None:
                self._end(e.response)
                return True
            case "error":
                answer.failed(e.error or {"code": e.code, "message": e.message})
            case _:
                if e.response is not None:
                    self._head(e.response)
                elif not e.type and e.error is not None:
                    answer.failed(e.error)
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """A response that was not streamed."""
        response = _RESPONSE.one(body)
        for index, raw in enumerate(response.output or ()):
            item = _ITEM.one(raw)
            for part in item.summary or ():
                self._answer.reasoning(part.text or "", out)
            for part in (item.content or ()) if item.type == "message" else ():
                self._answer.text(part.text or "")
                if part.refusal:
                    self._answer.refusal(part.refusal)
            if item.type == "function_call":
                self._answer.call(index, item.call_id or "", item.name or "", item.arguments)
            self._done(index, raw)
        self._end(response)

    def _rest_of(self, index: int, arguments: str) -> None:
        """A server may give the arguments whole at the end only."""
        if not self._answer.arguments_of(index):
            self._answer.call(index, "", "", arguments)

    def _done(self, index: int | None, raw: msgspec.Raw) -> None:
        item = _ITEM.one(raw)
        if item.type == "reasoning" and item.encrypted_content:  # without it, it only names what the vendor did not store
            self._answer.keep(text_of(raw))
        elif item.type == "function_call" and index is not None:
            self._answer.call(index, item.call_id or "", item.name or "", None)
            self._rest_of(index, item.arguments or "")

    def _head(self, response: _Response) -> None:
        self._answer.id = response.id or self._answer.id
        self._answer.model = response.model or self._answer.model

    def _end(self, response: _Response) -> None:
        answer = self._answer
        self._head(response)
        if response.usage is not None:
            answer.counted(response.usage.counted)
        if response.error is not None or response.status == "failed":
            answer.failed(response.error or {"message": "the response failed and gives no reason"})
        reason = response.incomplete_details.reason if response.incomplete_details is not None else None
        answer.stop = "stop" if response.status != "incomplete" else "content_filter" if reason == "content_filter" else "length"
