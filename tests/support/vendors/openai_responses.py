"""A fake of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces, sse
from support.vendors.openai_chat import ERRORS, SCHEMA, TOOL, openai_error
from talon.providers.openai_responses import OpenAIResponses
from talon.providers.protocol import AnswerSchema

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesFake:
    content_type = "text/event-stream; charset=utf-8"
    stops = frozenset({"stop", "tool_calls", "length", "content_filter", "refusal"})

    def stream(self, says: Says) -> list[bytes]:
        numbered: list[dict[str, Any]] = [
            {"type": "response.created", "response": self._response("in_progress")},
            {"type": "response.in_progress", "response": self._response("in_progress")},
        ]
        for index, item in enumerate(self._items(says)):
            numbered.append({"type": "response.output_item.added", "output_index": index, "item": self._begun(item)})
            numbered += self._deltas(index, item, says.piece)
            numbered.append({"type": "response.output_item.done", "output_index": index, "item": item})
        status = "incomplete" if says.stop in _INCOMPLETE else "completed"
        numbered.append({"type": f"response.{status}", "response": self._final(says, status)})
        return [sse(event | {"sequence_number": number}, event["type"]) for number, event in enumerate(numbered)]

    def whole(self, says: Says) -> bytes | None:
        return msgspec.json.encode(self._final(says, "incomplete" if says.stop in _INCOMPLETE else "completed"))

    def error(self, kind: str) -> tuple[int, bytes]:
        return ERRORS[kind][0], msgspec.json.encode({"error": openai_error(kind)})

    def error_event(self, kind: str) -> bytes | None:
        code = "server_error" if kind == "server" else "server_is_overloaded"
        event = {"type": "error", "code": code, "message": ERRORS[kind][3], "param": None, "sequence_number": 9}
        return sse(event, "error")

    def _items(self, says: Says) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        if says.reasoning or says.signed:
            summary = [{"type": "summary_text", "text": says.reasoning}] if says.reasoning else []
            item: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": summary}
            items.append(item | ({"encrypted_content": "gAAAA+encrypted=="} if says.signed else {}))
        if says.text or says.refusal or not says.calls:
            content: list[dict[str, Any]] = []
            if says.text:
                content.append({"type": "output_text", "text": says.text, "annotations": []})
            if says.refusal:
                content.append({"type": "refusal", "refusal": says.refusal})
            items.append({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content})
        for n, call in enumerate(says.calls):
            head = {"type": "function_call", "id": f"fc_{n}", "status": "completed"}
            items.append(head | {"call_id": call.id, "name": call.name, "arguments": call.arguments})
        return items

    def _begun(self, item: dict[str, Any]) -> dict[str, Any]:
        empty: dict[str, Any] = {"content": [], "summary": [], "arguments": ""}
        return {key: empty.get(key, value) for key, value in item.items() if key != "encrypted_content"} | {"status": "in_progress"}

    def _deltas(self, index: int, item: dict[str, Any], size: int) -> Iterator[dict[str, Any]]:
        at: dict[str, Any] = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                for part in item["summary"]:
                    at |= {"summary_index": 0}
                    yield at | {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}}
                    for piece in pieces(part["text"], size):
                        yield at | {"type": "response.reasoning_summary_text.delta", "delta": piece}
                    yield at | {"type": "response.reasoning_summary_text.done", "text": part["text"]}
                    yield at | {"type": "response.reasoning_summary_part.done", "part": part}
            case "function_call":
                for piece in pieces(item["arguments"], size):
                    yield at | {"type": "response.function_call_arguments.delta", "delta": piece}
                done = {"name": item["name"], "arguments": item["arguments"]}
                yield at | {"type": "response.function_call_arguments.done"} | done
            case _:
                for n, part in enumerate(item["content"]):
                    at |= {"content_index": n}
                    kind = part["type"]
                    text = part["text" if kind == "output_text" else "refusal"]
                    empty = part | {"text" if kind == "output_text" else "refusal": ""}
                    yield at | {"type": "response.content_part.added", "part": empty}
                    for piece in pieces(text, size):
                        extra: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
                        yield at | {"type": f"response.{kind}.delta", "delta": piece} | extra
                    yield (
                        at
                        | {"type": f"response.{kind}.done", "text" if kind == "output_text" else "refusal": text}
                        | ({"logprobs": []} if kind == "output_text" else {})
                    )
                    yield at | {"type": "response.content_part.done", "part": part}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_790_000_000,
            "model": "gpt-5-2026-01-01",
            "status": status,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None,
        }

    def _final(self, says: Says, status: str) -> dict[str, Any]:
        response = self._response(status) | {"output": self._items(says)}
        if says.stop in _INCOMPLETE:
            response["incomplete_details"] = {"reason": _INCOMPLETE[says.stop]}
        usage = says.usage
        if usage is not None:
            response["usage"] = {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.input_tokens + usage.output_tokens,
            }
        return response


def _kept(body: dict[str, Any]) -> list[Any]:
    return [item for item in body["input"] if item.get("type") == "reasoning"]


_TOOL = {"type": "function", "strict": False, **msgspec.to_builtins(TOOL)}
_THINKS = {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}

OPENAI_RESPONSES = Vendor(
    kind="openai_responses",
    dialect=OpenAIResponses,
    path="/v1",
    model="gpt-4.1",
    fake=ResponsesFake(),
    key_header="Authorization: Bearer {}",
    sent={
        "tools": Sent((TOOL,), {"tools": [_TOOL]}),
        "temperature": Sent(0.0, {"temperature": 0.0}),
        "max_output_tokens": Sent(77, {"max_output_tokens": 77}),
        "user": Sent("s-1", {"safety_identifier": "s-1", "prompt_cache_key": "s-1"}),
        "top_p": Sent(0.5, {"top_p": 0.5}),
        "thinking": Sent("low", _THINKS),
        "tool_choice": Sent("required", {"tool_choice": "required"}, more={"tools": (TOOL,)}),
        "parallel_tool_calls": Sent(False, {"parallel_tool_calls": False}, more={"tools": (TOOL,)}),
        "answer_schema": Sent(
            AnswerSchema("place", SCHEMA),
            {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}},
        ),
    },
    image=lambda mime, data: {"type": "input_image", "image_url": f"data:{mime};base64,{data}", "detail": "auto"},
    image_url=lambda url: {"type": "input_image", "image_url": url, "detail": "auto"},
    kept=_kept,
    aimock_wrong={"content_filter": "it ends as `completed` with the status `failed` and no reason, not as `incomplete`"},
)
