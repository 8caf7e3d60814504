"""A fake of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces, sse
from talon.domain.entries import Usage
from talon.providers.openai_chat import OpenAIChat
from talon.providers.protocol import AnswerSchema, ToolDef

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = ToolDef("get_weather", "Tells the weather.", SCHEMA)
ERRORS: dict[str, tuple[int, str, str | None, str]] = {  # status, type, code, message
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached for gpt-5 on requests per min"),
    "server": (500, "server_error", None, "The server had an error while processing your request"),
    "overloaded": (503, "server_error", None, "The engine is currently overloaded, please try again later"),
    "authentication": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "context_overflow": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens",
    ),
    "content_filter": (400, "invalid_request_error", "content_policy_violation", "Your request was rejected by the safety system"),
}


def openai_error(kind: str) -> dict[str, Any]:
    _, type_, code, message = ERRORS[kind]
    return {"message": message, "type": type_, "param": None, "code": code}


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


class ChatFake:
    """`reasoning_content` is what compatible servers of reasoning models add."""

    content_type = "text/event-stream; charset=utf-8"
    stops = frozenset({"stop", "tool_calls", "length", "content_filter", "refusal"})

    def stream(self, says: Says) -> list[bytes]:
        events = [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        events += [self._chunk({"reasoning_content": piece}) for piece in pieces(says.reasoning, says.piece)]
        events += [self._chunk({"content": piece}) for piece in pieces(says.text, says.piece)]
        events += [self._chunk({"refusal": piece}) for piece in pieces(says.refusal, says.piece)]
        for index, call in enumerate(says.calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            events.append(self._chunk({"tool_calls": [head]}))
            for piece in pieces(call.arguments, says.piece):
                events.append(self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        events.append(self._chunk({}, "stop" if says.stop == "refusal" else says.stop))
        if says.usage is not None:
            empty: dict[str, Any] = {"choices": [], "usage": usage_of(says.usage)}
            events.append(sse(self._envelope("chat.completion.chunk") | empty))
        return [*events, b"data: [DONE]\n\n"]

    def whole(self, says: Says) -> bytes | None:
        message: dict[str, Any] = {"role": "assistant", "content": says.text or None, "refusal": says.refusal or None}
        if says.reasoning:
            message["reasoning_content"] = says.reasoning
        if says.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in says.calls
            ]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop" if says.stop == "refusal" else says.stop,
            "logprobs": None,
        }
        usage = {} if says.usage is None else {"usage": usage_of(says.usage)}
        return msgspec.json.encode(self._envelope("chat.completion") | {"choices": [choice]} | usage)

    def error(self, kind: str) -> tuple[int, bytes]:
        return ERRORS[kind][0], msgspec.json.encode({"error": openai_error(kind)})

    def error_event(self, kind: str) -> bytes | None:
        return sse({"error": openai_error(kind)})

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_790_000_000, "model": "gpt-5-2026-01-01"}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse(self._envelope("chat.completion.chunk") | {"choices": [choice]})


def _kept(body: dict[str, Any]) -> list[Any]:
    return [{"reasoning_content": m["reasoning_content"]} for m in body["messages"] if "reasoning_content" in m]


OPENAI = Vendor(
    kind="openai",
    dialect=OpenAIChat,
    path="/v1",
    model="gpt-5",
    fake=ChatFake(),
    key_header="Authorization: Bearer {}",
    sent={
        "tools": Sent((TOOL,), {"tools": [{"type": "function", "function": msgspec.to_builtins(TOOL)}]}),
        "temperature": Sent(0.0, {"temperature": 0.0}),
        "max_output_tokens": Sent(77, {"max_tokens": 77}),
        "user": Sent("s-1", {"user": "s-1"}),
        "top_p": Sent(0.5, {"top_p": 0.5}),
        "stop": Sent(("END", "\n\n"), {"stop": ["END", "\n\n"]}),
        "seed": Sent(0, {"seed": 0}),
        "thinking": Sent("high", {"reasoning_effort": "high"}),
        "tool_choice": Sent(
            "get_weather",
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            more={"tools": (TOOL,)},
        ),
        "parallel_tool_calls": Sent(False, {"parallel_tool_calls": False}, more={"tools": (TOOL,)}),
        "answer_schema": Sent(
            AnswerSchema("place", SCHEMA),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}},
        ),
    },
    image=lambda mime, data: {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}},
    image_url=lambda url: {"type": "image_url", "image_url": {"url": url}},
    kept=_kept,
    uncounted=("cache_write_tokens",),
)
