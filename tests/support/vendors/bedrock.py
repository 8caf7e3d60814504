"""A fake of Amazon Bedrock's ConverseStream, with a writer of its own for AWS's frames."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces
from support.vendors.openai_chat import SCHEMA, TOOL
from talon.domain.entries import Usage
from talon.providers.bedrock import Bedrock
from talon.providers.protocol import AnswerSchema

_STOPS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "guardrail_intervened"}
_ERRORS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "ThrottlingException", "Too many tokens, please wait before trying again."),
    "server": (
        500,
        "InternalServerException",
        "The system encountered an unexpected error during processing. Try your request again.",
    ),
    "overloaded": (503, "ServiceUnavailableException", "The model is currently overloaded, please try again"),
    "authentication": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "context_overflow": (400, "ValidationException", "Input is too long for requested model."),
    "content_filter": (400, "ValidationException", "Output blocked by content filtering policy"),
}


def frame(payload: bytes, **headers: str) -> bytes:
    """One message of an event stream; the names of headers get their colon and their hyphens here."""
    written = b""
    for name, value in headers.items():
        name = ":" + name.replace("_", "-")
        written += struct.pack(">B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(written) + len(payload), len(written))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + written + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(kind: str, payload: object) -> bytes:
    return frame(msgspec.json.encode(payload), event_type=kind, content_type="application/json", message_type="event")


class ConverseFake:
    content_type = "application/vnd.amazon.eventstream"
    stops = frozenset({"stop", "tool_calls", "length", "content_filter"})

    def stream(self, says: Says) -> list[bytes]:
        events = [event("messageStart", {"role": "assistant"})]
        for index, (start, deltas) in enumerate(self._blocks(says)):
            if start:
                events.append(event("contentBlockStart", {"start": start, "contentBlockIndex": index}))
            events += [event("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in deltas]
            events.append(event("contentBlockStop", {"contentBlockIndex": index}))
        events.append(event("messageStop", {"stopReason": _STOPS[says.stop]}))
        metadata: dict[str, Any] = {"metrics": {"latencyMs": 738}}
        if says.usage is not None:
            metadata["usage"] = self._usage(says.usage)
        return [*events, event("metadata", metadata)]

    def whole(self, says: Says) -> bytes | None:
        return None

    def error(self, kind: str) -> tuple[int, bytes]:
        return _ERRORS[kind][0], msgspec.json.encode({"message": _ERRORS[kind][2]})

    def error_event(self, kind: str) -> bytes | None:
        _, name, message = _ERRORS[kind]
        name = name[0].lower() + name[1:]
        words = msgspec.json.encode({"message": message})
        return frame(words, exception_type=name, content_type="application/json", message_type="exception")

    def _blocks(self, says: Says) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if says.signed:
            secret = base64.b64encode(b"encrypted thought").decode()
            blocks.append(({}, [{"reasoningContent": {"redactedContent": secret}}]))
        if says.reasoning:
            thoughts = [{"reasoningContent": {"text": piece}} for piece in pieces(says.reasoning, says.piece)]
            signature = [{"reasoningContent": {"signature": "EqQBsigned=="}}] if says.signed else []
            blocks.append(({}, [*thoughts, *signature]))
        if says.text:
            blocks.append(({}, [{"text": piece} for piece in pieces(says.text, says.piece)]))
        for call in says.calls:
            written = [{"toolUse": {"input": piece}} for piece in pieces(call.arguments, says.piece)]
            blocks.append(({"toolUse": {"toolUseId": call.id, "name": call.name}}, written))
        return blocks

    def _usage(self, usage: Usage) -> dict[str, Any]:
        """Here, what came from a cache or went into one is not part of the input tokens."""
        fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        total = {"inputTokens": fresh, "outputTokens": usage.output_tokens, "totalTokens": usage.input_tokens + usage.output_tokens}
        return total | {"cacheReadInputTokens": usage.cached_tokens, "cacheWriteInputTokens": usage.cache_write_tokens}


def _kept(body: dict[str, Any]) -> list[Any]:
    blocks = [block for message in body["messages"] if message["role"] == "assistant" for block in message["content"]]
    return [block for block in blocks if "reasoningContent" in block]


def _own(**fields: Any) -> dict[str, Any]:
    return {"additionalModelRequestFields": fields}


_SPEC = {"toolSpec": {"name": TOOL.name, "description": TOOL.description, "inputSchema": {"json": SCHEMA}}}
_FORM = {"jsonSchema": {"name": "place", "schema": msgspec.json.encode(SCHEMA).decode()}}
_POINT = {"cachePoint": {"type": "default"}}

#: The last Sonnet that takes these fields.
_SAMPLED = "eu.anthropic.claude-sonnet-4-6-v1:0"

BEDROCK = Vendor(
    kind="bedrock",
    dialect=Bedrock,
    path="",
    model="eu.anthropic.claude-sonnet-5-20260701-v1:0",
    fake=ConverseFake(),
    key_header="Authorization: Bearer {}",
    sent={
        "tools": Sent((TOOL,), {"toolConfig": {"tools": [_SPEC]}}),
        "temperature": Sent(0.0, {"inferenceConfig": {"temperature": 0.0}}, _SAMPLED),
        "max_output_tokens": Sent(77, {"inferenceConfig": {"maxTokens": 77}}),
        "top_p": Sent(0.5, {"inferenceConfig": {"topP": 0.5}}, _SAMPLED),
        "top_k": Sent(9, _own(top_k=9), _SAMPLED),
        "stop": Sent(("END", "\n\n"), {"inferenceConfig": {"stopSequences": ["END", "\n\n"]}}),
        "thinking": Sent(
            "medium", _own(thinking={"type": "adaptive", "display": "summarized"}) | {"outputConfig": {"effort": "medium"}}
        ),
        "tool_choice": Sent(
            "get_weather",
            {"toolConfig": {"tools": [_SPEC], "toolChoice": {"tool": {"name": "get_weather"}}}},
            more={"tools": (TOOL,)},
        ),
        "answer_schema": Sent(
            AnswerSchema("place", SCHEMA), {"outputConfig": {"textFormat": {"type": "json_schema", "structure": _FORM}}}
        ),
        "prompt_cache": Sent(True, {"messages": [{"role": "user", "content": [{"text": "hello"}, _POINT]}]}),
    },
    image=lambda mime, data: {"image": {"format": mime.removeprefix("image/"), "source": {"bytes": data}}},
    image_url=None,
    kept=_kept,
    aimock_wrong={"program": "its texts begin with an empty `start`, which the vendor's program refuses"},
    lacks={"model": "an answer does not say which model gave it"},
    uncounted=("reasoning_tokens",),
    quiet=b"",
    endless=frame(b"z" * 100_000, event_type="contentBlockDelta")[:10_000],
)
