"""A fake of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces, sse
from support.vendors.openai_chat import SCHEMA, TOOL
from talon.domain.entries import Usage
from talon.providers.anthropic import Anthropic
from talon.providers.protocol import AnswerSchema

_STOPS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "refusal": "refusal"}
_ERRORS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "rate_limit_error", "This request would exceed your organization's rate limit"),
    "server": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "context_overflow": (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "content_filter": (400, "invalid_request_error", "Output blocked by content filtering policy"),
}


class MessagesFake:
    content_type = "text/event-stream; charset=utf-8"
    stops = frozenset({"stop", "tool_calls", "length", "refusal"})

    def stream(self, says: Says) -> list[bytes]:
        message = self._message([]) | {"stop_reason": None, "stop_sequence": None}
        if says.usage is not None:
            message["usage"] = self._input(says.usage) | {"output_tokens": 1}
        events = [sse({"type": "message_start", "message": message}, "message_start")]
        for index, block in enumerate(self._blocks(says)):
            events.append(self._event("content_block_start", index, content_block=self._begun(block)))
            if index == 0:
                events.append(sse({"type": "ping"}, "ping"))
            events += [self._event("content_block_delta", index, delta=delta) for delta in self._deltas(block, says)]
            events.append(self._event("content_block_stop", index))
        delta: dict[str, Any] = {"stop_reason": _STOPS[says.stop], "stop_sequence": None}
        if says.refusal:
            delta["stop_details"] = {"type": "refusal", "category": None, "explanation": says.refusal}
        usage = {} if says.usage is None else {"usage": self._output(says.usage)}
        events.append(sse({"type": "message_delta", "delta": delta, **usage}, "message_delta"))
        return [*events, sse({"type": "message_stop"}, "message_stop")]

    def whole(self, says: Says) -> bytes | None:
        blocks = [block | ({"input": msgspec.Raw(block["input"])} if "input" in block else {}) for block in self._blocks(says)]
        message = self._message(blocks) | {"stop_reason": _STOPS[says.stop], "stop_sequence": None}
        if says.refusal:
            message["stop_details"] = {"type": "refusal", "category": None, "explanation": says.refusal}
        if says.usage is not None:
            message["usage"] = self._input(says.usage) | self._output(says.usage)
        return msgspec.json.encode(message)

    def error(self, kind: str) -> tuple[int, bytes]:
        status, type_, message = _ERRORS[kind]
        body = {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}
        return status, msgspec.json.encode(body)

    def error_event(self, kind: str) -> bytes | None:
        _, type_, message = _ERRORS[kind]
        return sse({"type": "error", "error": {"type": type_, "message": message}}, "error")

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-20260701", "content": content}

    def _input(self, usage: Usage) -> dict[str, Any]:
        """Here, what came from a cache or went into one is not part of the input tokens."""
        fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        cache = {"cache_creation_input_tokens": usage.cache_write_tokens, "cache_read_input_tokens": usage.cached_tokens}
        return {"input_tokens": fresh, **cache}

    def _output(self, usage: Usage) -> dict[str, Any]:
        return {"output_tokens": usage.output_tokens, "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}

    def _blocks(self, says: Says) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if says.signed:
            blocks.append({"type": "redacted_thinking", "data": "EncryptedThought=="})
        if says.reasoning:
            blocks.append({"type": "thinking", "thinking": says.reasoning, "signature": "EqQBsigned==" if says.signed else ""})
        if says.text:
            blocks.append({"type": "text", "text": says.text})
        uses = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments.encode()} for call in says.calls]
        return blocks + uses

    def _begun(self, block: dict[str, Any]) -> dict[str, Any]:
        empty: dict[str, Any] = {"text": "", "thinking": "", "signature": "", "input": {}}
        return {key: empty.get(key, value) for key, value in block.items()}

    def _deltas(self, block: dict[str, Any], says: Says) -> list[dict[str, Any]]:
        match block["type"]:
            case "text":
                return [{"type": "text_delta", "text": piece} for piece in pieces(block["text"], says.piece)]
            case "thinking":
                thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"], says.piece)]
                return [*thoughts, {"type": "signature_delta", "signature": block["signature"]}]
            case "tool_use":
                written = block["input"].decode()
                return [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(written, says.piece))]
            case _:
                return []

    def _event(self, kind: str, index: int, **fields: Any) -> bytes:
        return sse({"type": kind, "index": index, **fields}, kind)


def _kept(body: dict[str, Any]) -> list[Any]:
    blocks = [block for message in body["messages"] if message["role"] == "assistant" for block in message["content"]]
    return [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]


_CACHED = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
_TOOL = {"name": TOOL.name, "description": TOOL.description, "input_schema": SCHEMA}

#: The last Sonnet that takes these fields.
_SAMPLED = "claude-sonnet-4-6"

ANTHROPIC = Vendor(
    kind="anthropic",
    dialect=Anthropic,
    path="",
    model="claude-sonnet-5",
    fake=MessagesFake(),
    key_header="x-api-key: {}",
    sent={
        "tools": Sent((TOOL,), {"tools": [_TOOL]}),
        "temperature": Sent(0.0, {"temperature": 0.0}, _SAMPLED),
        "max_output_tokens": Sent(77, {"max_tokens": 77}),
        "user": Sent("s-1", {"metadata": {"user_id": "s-1"}}),
        "top_p": Sent(0.5, {"top_p": 0.5}, _SAMPLED),
        "top_k": Sent(9, {"top_k": 9}, _SAMPLED),
        "stop": Sent(("END", "\n\n"), {"stop_sequences": ["END", "\n\n"]}),
        "thinking": Sent(
            "medium",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "medium"}},
            model="claude-opus-4-8",
        ),
        "tool_choice": Sent("get_weather", {"tool_choice": {"type": "tool", "name": "get_weather"}}, more={"tools": (TOOL,)}),
        "parallel_tool_calls": Sent(
            False, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, more={"tools": (TOOL,)}
        ),
        "answer_schema": Sent(
            AnswerSchema("place", SCHEMA), {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
        ),
        "prompt_cache": Sent(True, {"messages": [{"role": "user", "content": [_CACHED]}]}),
    },
    image=lambda mime, data: {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}},
    image_url=lambda url: {"type": "image", "source": {"type": "url", "url": url}},
    kept=_kept,
    aimock_wrong={},
)
