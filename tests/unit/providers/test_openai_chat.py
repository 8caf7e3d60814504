"""A request as it goes over the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.chats import ask
from talon.providers.openai_chat import OpenAIChat
from talon.providers.protocol import ChatMessage, ChatRequest, ToolCall, ToolDef


def sent(request: ChatRequest, field: str = "max_tokens") -> dict[str, Any]:
    return msgspec.json.decode(OpenAIChat("http://x/v1", max_tokens_field=field).body(request), type=dict[str, Any])


def test_only_what_was_given_is_sent() -> None:
    assert sent(ask("hi")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_everything_that_was_given_is_sent() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    tool = ToolDef("find", "Finds.", schema)
    request = ChatRequest("m", (ChatMessage("user", "hi"),), (tool,), temperature=0.0, max_output_tokens=7, user="s-1")
    body = sent(request, "max_completion_tokens")
    assert body["temperature"] == 0.0
    assert body["max_completion_tokens"] == 7
    assert body["user"] == "s-1"
    function: dict[str, Any] = {"name": "find", "description": "Finds.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": function}]


def test_calls_and_results_are_written_as_the_wire_wants_them() -> None:
    calls = (ToolCall("c1", "find", '{"a":1}'),)
    body = sent(ask("hi", ChatMessage("assistant", "", calls), ChatMessage("tool", "found", tool_call_id="c1")))
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]


@pytest.mark.parametrize("written", ['{"a": tru', "", "[1]", "null", "\x00", '"x"'])
def test_a_call_that_the_model_wrote_badly_does_not_poison_the_later_requests(written: str) -> None:
    body = sent(ask("hi", ChatMessage("assistant", "", (ToolCall("c1", "find", written),))))
    arguments = body["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert msgspec.json.decode(arguments) == {"invalid_json": written}
