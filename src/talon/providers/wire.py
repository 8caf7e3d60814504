"""The OpenAI chat-completions wire as msgspec Structs, and a request written in it.

Reading is lenient where compatible servers differ (a null or missing field, usage on every chunk, `reasoning` or
`reasoning_content`, arguments as an object) and strict in types: what does not fit is a `msgspec.ValidationError`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from talon.providers.protocol import ChatMessage, ChatRequest, ToolCall


class FunctionDelta(msgspec.Struct, gc=False):
    """A piece of a call: the name comes whole and once, the arguments in pieces (from some servers as an object)."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallDelta(msgspec.Struct):
    """A piece of the tool call at `index`; some servers leave out the index, or the id."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct):
    """More of a message, or (not streamed) the whole of it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallDelta] | None = None


class Choice(msgspec.Struct):
    """One answer; `delta` in a stream, `message` in a whole completion."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """Of the prompt's tokens, those that a cache held."""

    cached_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    prompt_cache_hit_tokens: int | None = None


class Chunk(msgspec.Struct):
    """A `chat.completion.chunk`, a whole `chat.completion`, or an error in place of either."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.Encoder().encode
_loads = msgspec.json.decode


class _Function(msgspec.Struct, gc=False):
    name: str
    arguments: str


class _Call(msgspec.Struct, gc=False):
    id: str
    function: _Function
    type: str = "function"


def encode_request(request: ChatRequest, max_tokens_field: str) -> bytes:
    """The request's body, always streamed with usage. `max_tokens_field` is the server's name for the output limit.

    Raises `UnicodeEncodeError` or `TypeError` for what JSON cannot say (half a surrogate pair, a schema that is not JSON).
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [{"type": "function", "function": tool} for tool in request.tools]
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        body[max_tokens_field] = request.max_output_tokens
    if request.user:
        body["user"] = request.user
    return _encode(body)


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls = [_Call(call.id, _Function(call.name, valid_arguments(call))) for call in message.tool_calls]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def valid_arguments(call: ToolCall) -> str:
    """The call's arguments as a JSON object's text, whatever the model wrote.

    Servers that render earlier calls into a template refuse the whole conversation for ever over one broken text, so that text
    goes back inside an object.
    """
    try:
        if isinstance(_loads(call.arguments), dict):
            return call.arguments
    except (msgspec.DecodeError, UnicodeError):
        pass
    return _encode({"invalid_json": call.arguments}).decode()
