"""A fake of OpenRouter."""

from __future__ import annotations

from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces, sse
from support.vendors.openai_chat import OPENAI, usage_of
from talon.domain.entries import Usage
from talon.providers.openrouter import OpenRouter

_RAW = "the maximum context length is 8192 tokens"
_ERRORS: dict[str, tuple[int, str, dict[str, Any] | None]] = {
    "rate_limit": (429, "Rate limit exceeded: free-models-per-min.", None),
    "server": (502, "Provider returned error", {"provider_name": "Azure", "raw": "upstream connect error"}),
    "overloaded": (503, "Provider returned error", {"provider_name": "Anthropic", "raw": '{"error":{"type":"overloaded_error"}}'}),
    "authentication": (402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits", None),
    "context_overflow": (400, "Provider returned error", {"provider_name": "OpenAI", "raw": _RAW}),
    "content_filter": (403, "Your chosen model requires moderation and your input was flagged", {"flagged_input": "…"}),
}


class RouterFake:
    content_type = "text/event-stream"
    stops = frozenset({"stop", "tool_calls", "length", "content_filter", "refusal"})

    def stream(self, says: Says) -> list[bytes]:
        events = [b": OPENROUTER PROCESSING\n\n", self._chunk({"content": ""})]
        for piece in pieces(says.reasoning, says.piece):
            details = [{"type": "reasoning.text", "text": piece, "format": "anthropic-claude-v1", "index": 0}]
            events.append(self._chunk({"content": "", "reasoning": piece, "reasoning_details": details}))
        if says.signed:
            signature = {"type": "reasoning.text", "signature": "EqQBsigned==", "format": "anthropic-claude-v1", "index": 0}
            events.append(self._chunk({"content": "", "reasoning": None, "reasoning_details": [signature]}))
            secret = {"type": "reasoning.encrypted", "data": "ciphertext", "id": None, "index": 1}
            events.append(self._chunk({"content": "", "reasoning": None, "reasoning_details": [secret]}))
        events += [self._chunk({"content": piece}) for piece in pieces(says.text, says.piece)]
        events += [self._chunk({"content": "", "refusal": piece}) for piece in pieces(says.refusal, says.piece)]
        for index, call in enumerate(says.calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            events.append(self._chunk({"content": None, "tool_calls": [head]}))
            for piece in pieces(call.arguments, says.piece):
                more = {"index": index, "type": "function", "function": {"arguments": piece}}
                events.append(self._chunk({"content": None, "tool_calls": [more]}))
        events.append(self._chunk({"content": ""}, "stop" if says.stop == "refusal" else says.stop))
        if says.usage is not None:
            end: dict[str, Any] = {"choices": [], "usage": self._usage(says.usage)}
            events.append(sse(self._envelope("chat.completion.chunk") | end))
        return [*events, b"data: [DONE]\n\n"]

    def whole(self, says: Says) -> bytes | None:
        completion = msgspec.json.decode(OPENAI.fake.whole(says) or b"", type=dict[str, Any])
        message = completion["choices"][0]["message"]
        message["reasoning"] = message.pop("reasoning_content", None)
        usage = {} if says.usage is None else {"usage": self._usage(says.usage)}
        return msgspec.json.encode(self._envelope("chat.completion") | {"choices": completion["choices"]} | usage)

    def error(self, kind: str) -> tuple[int, bytes]:
        return _ERRORS[kind][0], msgspec.json.encode({"error": self._error(kind), "user_id": "user_1"})

    def error_event(self, kind: str) -> bytes | None:
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": "error"}
        return sse(self._envelope("chat.completion.chunk") | {"error": self._error(kind), "choices": [choice]})

    def _error(self, kind: str) -> dict[str, Any]:
        status, message, metadata = _ERRORS[kind]
        return {"code": status, "message": message} | ({"metadata": metadata} if metadata is not None else {})

    def _envelope(self, kind: str) -> dict[str, Any]:
        head = {"id": "gen-1790000000-x", "provider": "Anthropic", "model": "anthropic/claude-sonnet-5", "object": kind}
        return head | {"created": 1_790_000_000, "system_fingerprint": None}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish_reason, "logprobs": None}
        choice["native_finish_reason"] = finish_reason
        return sse(self._envelope("chat.completion.chunk") | {"choices": [choice]})

    def _usage(self, usage: Usage) -> dict[str, Any]:
        counts = usage_of(usage)
        counts["prompt_tokens_details"]["cache_write_tokens"] = usage.cache_write_tokens
        return counts | {"cost": 0.00492, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}


def _kept(body: dict[str, Any]) -> list[Any]:
    return [detail for message in body["messages"] for detail in message.get("reasoning_details", ())]


_CACHED = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}

OPENROUTER = Vendor(
    kind="openrouter",
    dialect=OpenRouter,
    path="/api/v1",
    model="anthropic/claude-sonnet-5",
    fake=RouterFake(),
    key_header="Authorization: Bearer {}",
    sent=dict(OPENAI.sent)
    | {
        "top_k": Sent(9, {"top_k": 9}),
        "thinking": Sent("high", {"reasoning": {"effort": "high"}}),
        "prompt_cache": Sent(True, {"messages": [{"role": "user", "content": [_CACHED]}]}),
    },
    image=OPENAI.image,
    image_url=OPENAI.image_url,
    kept=_kept,
)
