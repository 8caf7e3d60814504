"""A fake of Ollama's own API."""

from __future__ import annotations

from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces
from support.vendors.openai_chat import SCHEMA, TOOL
from talon.providers.ollama import Ollama
from talon.providers.protocol import AnswerSchema

_ERRORS: dict[str, tuple[int, str]] = {
    "rate_limit": (429, "you have reached your hourly usage limit"),
    "server": (500, "model runner has unexpectedly stopped"),
    "overloaded": (503, "server busy, please try again.  maximum pending requests exceeded"),
    "authentication": (401, "unauthorized"),
    "context_overflow": (400, "the input length exceeds the context length"),
}


class OllamaFake:
    content_type = "application/x-ndjson"
    stops = frozenset({"stop", "tool_calls", "length"})

    def stream(self, says: Says) -> list[bytes]:
        messages = [{"content": "", "thinking": piece} for piece in pieces(says.reasoning, says.piece)]
        messages += [{"content": piece} for piece in pieces(says.text, says.piece)]
        lines = [self._line(message, done=False) for message in messages]
        lines += [self._line({"content": "", "tool_calls": [call]}, done=False) for call in self._calls(says)]
        return [*(msgspec.json.encode(line) + b"\n" for line in lines), self._encoded({"content": ""}, says)]

    def whole(self, says: Says) -> bytes | None:
        message = {"content": says.text, "thinking": says.reasoning, "tool_calls": self._calls(says)}
        return self._encoded(message, says).rstrip(b"\n")

    def error(self, kind: str) -> tuple[int, bytes]:
        return _ERRORS[kind][0], msgspec.json.encode({"error": _ERRORS[kind][1]})

    def error_event(self, kind: str) -> bytes | None:
        return msgspec.json.encode({"error": _ERRORS[kind][1]}) + b"\n"

    def _calls(self, says: Says) -> list[Any]:
        calls = [(call.id, call.name, msgspec.Raw(call.arguments.encode())) for call in says.calls]
        return [
            {"id": call_id, "function": {"index": index, "name": name, "arguments": arguments}}
            for index, (call_id, name, arguments) in enumerate(calls)
        ]

    def _line(self, message: dict[str, Any], *, done: bool) -> dict[str, Any]:
        head = {"model": "qwen3:8b", "created_at": "2026-09-17T15:42:59.7420965Z"}
        return head | {"message": {"role": "assistant", **message}, "done": done}

    def _encoded(self, message: dict[str, Any], says: Says) -> bytes:
        line = self._line(message, done=True) | {"done_reason": "length" if says.stop == "length" else "stop"}
        if says.usage is not None:
            line |= {"total_duration": 30_258_609_300, "prompt_eval_count": says.usage.input_tokens}
            line |= {"prompt_eval_cached_count": says.usage.cached_tokens, "eval_count": says.usage.output_tokens}
        return msgspec.json.encode(line) + b"\n"


def _kept(body: dict[str, Any]) -> list[Any]:
    return [{"thinking": message["thinking"]} for message in body["messages"] if "thinking" in message]


OLLAMA = Vendor(
    kind="ollama",
    dialect=Ollama,
    path="",
    model="qwen3:8b",
    fake=OllamaFake(),
    key_header="Authorization: Bearer {}",
    sent={
        "tools": Sent((TOOL,), {"tools": [{"type": "function", "function": msgspec.to_builtins(TOOL)}]}),
        "temperature": Sent(0.0, {"options": {"temperature": 0.0}}),
        "max_output_tokens": Sent(77, {"options": {"num_predict": 77}}),
        "top_p": Sent(0.5, {"options": {"top_p": 0.5}}),
        "top_k": Sent(9, {"options": {"top_k": 9}}),
        "stop": Sent(("END", "\n\n"), {"options": {"stop": ["END", "\n\n"]}}),
        "seed": Sent(0, {"options": {"seed": 0}}),
        "thinking": Sent("off", {"think": False}),
        "answer_schema": Sent(AnswerSchema("place", SCHEMA), {"format": SCHEMA}),
    },
    image=lambda mime, data: data,
    image_url=None,
    kept=_kept,
    aimock_wrong={
        "reasoning": "its field is `reasoning_content`, which this vendor does not have",
        "content_filter": "it ends as `stop`",
        "length": "it ends as `stop`",
    },
    lacks={
        "raw arguments": "arguments are an object",
        "ids": "calls go back in their order, without ids",
        "content_filter": "it has none",
    },
    uncounted=("cache_write_tokens", "reasoning_tokens"),
    quiet=b"\n",
    endless=b'{"message":{"content":"' + b"z" * 10_000,
    likewise=lambda body: body | {"truncate": False},  # which its program has no word for
)
