"""What is Anthropic's own: thinking and its rules, roles, empty messages, caching."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from talon.domain.entries import Opaque
from talon.providers.anthropic import Anthropic
from talon.providers.protocol import ChatMessage, ChatRequest, ToolCall, ToolDef

CALL = ToolCall("c1", "find", "{}")
TOOL = ToolDef("find", "", {"type": "object"})


def sent(*messages: ChatMessage, model: str = "claude-sonnet-5", cached: bool = False, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (ChatMessage("user", "hi"),), prompt_cache=cached, **fields)
    return msgspec.json.decode(Anthropic("https://api.anthropic.com").body(request), type=dict[str, Any])


@pytest.mark.parametrize("base_url", ["https://x", "https://x/", "https://x/v1", "https://x/v1/"])
def test_the_address_is_the_same_with_and_without_the_version(base_url: str) -> None:
    assert str(Anthropic(base_url).url(ChatRequest("m", ()))) == "https://x/v1/messages"


@pytest.mark.parametrize(
    ("model", "limit", "thinking"),
    [
        ("claude-3-7-sonnet-20250219", 100_000, {"type": "enabled", "budget_tokens": 24_576}),
        ("claude-sonnet-4-20250514", 10_000, {"type": "enabled", "budget_tokens": 5_000}),
        ("claude-haiku-4-5", 2_000, {"type": "disabled"}),  # half of it is less than the vendor takes
        ("claude-opus-4-6", 2_000, {"type": "adaptive", "display": "summarized"}),
        ("claude-sonnet-5", 2_000, {"type": "adaptive", "display": "summarized"}),
        ("claude-opus-5-5-20261101", 2_000, {"type": "adaptive", "display": "summarized"}),
        ("eu.anthropic.claude-opus-4-1-20250805-v1:0", 100_000, {"type": "enabled", "budget_tokens": 24_576}),
        ("a-model-of-tomorrow", 2_000, {"type": "adaptive", "display": "summarized"}),
    ],
)
def test_how_a_model_is_asked_to_think_hangs_on_its_version(model: str, limit: int, thinking: dict[str, Any]) -> None:
    body = sent(model=model, thinking="high", max_output_tokens=limit)
    assert body["thinking"] == thinking
    assert body.get("output_config") == ({"effort": "high"} if thinking["type"] == "adaptive" else None)


def test_where_a_model_thinks_what_the_vendor_forbids_is_not_sent() -> None:
    fields: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "tools": (TOOL,), "tool_choice": "find"}
    body = sent(model="claude-sonnet-4-6", thinking="low", **fields)
    assert not body.keys() & {"temperature", "top_k", "top_p"}
    assert body["tool_choice"] == {"type": "auto"}
    assert sent(model="claude-sonnet-4-6", thinking="low", top_p=0.97)["top_p"] == 0.97
    body = sent(model="claude-sonnet-4-6", thinking="off", **fields)
    assert body["thinking"] == {"type": "disabled"}
    assert (body["temperature"], body["tool_choice"]) == (0.5, {"type": "tool", "name": "find"})


@pytest.mark.parametrize(
    ("model", "off", "forced"),
    [
        ("claude-opus-4-8", {"type": "disabled"}, True),
        ("claude-sonnet-5", {"type": "disabled"}, True),
        ("claude-haiku-5-5", {"type": "disabled"}, True),
        ("claude-sonnet-5-5", {"type": "between_tools"}, False),
        ("claude-opus-5-5", {"type": "adaptive", "display": "summarized"}, False),
        ("claude-fable-5-1", {"type": "adaptive", "display": "summarized"}, False),
    ],
)
def test_newer_models_take_no_sampling_and_some_neither_a_forced_tool_nor_an_end_of_thinking(
    model: str, off: dict[str, Any], forced: bool
) -> None:
    body = sent(model=model, temperature=0.5, top_k=5, top_p=0.97, tools=(TOOL,), tool_choice="find")
    assert not body.keys() & {"temperature", "top_k", "top_p", "thinking"}
    assert body["tool_choice"] == ({"type": "tool", "name": "find"} if forced else {"type": "auto"})
    body = sent(model=model, thinking="off")
    assert body["thinking"] == off
    assert body.get("output_config") == ({"effort": "low"} if off["type"] == "adaptive" else None)


def test_in_the_middle_of_calls_that_another_model_began_it_does_not_think() -> None:
    begun = (ChatMessage("user", "hi"), ChatMessage("assistant", "", (CALL,)), ChatMessage("tool", "ok", tool_call_id="c1"))
    assert sent(*begun, thinking="low")["thinking"] == {"type": "disabled"}
    own = msgspec.structs.replace(begun[1], opaque=Opaque("main", "claude-sonnet-5"))
    assert sent(begun[0], own, begun[2], thinking="low")["thinking"]["type"] == "adaptive"
    assert (
        sent(*begun, ChatMessage("assistant", "done"), ChatMessage("user", "more"), thinking="low")["thinking"]["type"]
        == "adaptive"
    )


def test_the_user_begins_results_come_first_and_nothing_is_empty() -> None:
    body = sent(
        ChatMessage("system", "a"),
        ChatMessage("assistant", "earlier"),
        ChatMessage("user", ""),
        ChatMessage("assistant", "", (CALL,)),
        ChatMessage("tool", "", tool_call_id="c1"),
        ChatMessage("user", "more"),
        ChatMessage("system", "b"),
    )
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert all(message["content"] for message in body["messages"])
    assert [block["type"] for block in body["messages"][-1]["content"]] == ["tool_result", "text"]
    assert [block["text"] for block in body["system"]] == ["a", "b"]


def test_a_cache_is_asked_for_up_to_the_system_prompt_and_up_to_the_newest_message() -> None:
    body = sent(ChatMessage("system", "a"), ChatMessage("user", "one"), ChatMessage("user", "two"), cached=True)
    mark = {"type": "ephemeral"}
    assert body["system"][-1]["cache_control"] == mark
    (message,) = body["messages"]
    assert ["cache_control" in block for block in message["content"]] == [False, True]
    assert "cache_control" not in msgspec.json.encode(sent(ChatMessage("system", "a"), ChatMessage("user", "one"))).decode()


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("", None, None),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("find", True, {"type": "tool", "name": "find", "disable_parallel_tool_use": False}),
        ("auto", None, {"type": "auto"}),
    ],
)
def test_the_choice_of_tools_in_the_vendors_words(choice: str, parallel: bool | None, expected: dict[str, Any] | None) -> None:
    body = sent(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == expected
    assert "tool_choice" not in sent(tool_choice=choice, parallel_tool_calls=parallel)
