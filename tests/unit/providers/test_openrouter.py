"""What is OpenRouter's own: blocks of reasoning in pieces, marks for a cache, errors of the providers behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from talon.providers.answer import Answer
from talon.providers.faults import from_status
from talon.providers.limits import CallLimits
from talon.providers.openrouter import OpenRouter
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, ProviderError, Text

URL = "https://openrouter.ai/api/v1"


def sent(*messages: ChatMessage, model: str = "anthropic/claude-sonnet-5", **fields: Any) -> dict[str, Any]:
    return msgspec.json.decode(OpenRouter(URL).body(ChatRequest(model, messages, **fields)), type=dict[str, Any])


def read(*deltas: dict[str, Any]) -> Answer:
    answer, events = Answer("main", ChatRequest("m", ()), CallLimits()), list[ChatEvent]()
    reader = OpenRouter(URL).reader(answer)
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "find", "arguments": "{}"}}]}
    for delta in (*deltas, call):
        reader.take([msgspec.json.encode({"choices": [{"delta": delta}]})], events)
    reader.take([b'{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}'], events)
    return answer


def kept(answer: Answer) -> list[Any]:
    opaque = answer.finish().opaque
    items = [msgspec.json.decode(item) for item in opaque.items if item.startswith("{")] if opaque is not None else []
    return items[0]["reasoning_details"] if items else []


def details(**fields: Any) -> dict[str, Any]:
    return {"reasoning": fields.get("text"), "reasoning_details": [fields]}


def test_pieces_of_a_block_are_joined_and_blocks_stay_apart() -> None:
    answer = read(
        details(type="reasoning.text", index=0, text="let ", format="anthropic-claude-v1"),
        details(type="reasoning.text", index=0, text="me", signature=None),
        details(type="reasoning.text", index=0, text=None, signature="sig"),
        details(type="reasoning.summary", index=1, summary="a"),
        details(type="reasoning.summary", index=1, summary="b"),
    )
    assert kept(answer) == [
        {"type": "reasoning.text", "index": 0, "text": "let me", "format": "anthropic-claude-v1", "signature": "sig"},
        {"type": "reasoning.summary", "index": 1, "summary": "ab"},
    ]


def test_encrypted_blocks_come_whole_also_under_one_index() -> None:
    blocks = [{"type": "reasoning.encrypted", "index": 0, "data": data, "id": data} for data in ("x", "y")]
    assert kept(read(*(details(**block) for block in blocks))) == blocks


def test_marks_for_a_cache_stand_at_the_system_prompt_and_the_users_newest_words() -> None:
    picture = ChatMessage("user", parts=(Text("see"), Image("image/png", b"x")))
    messages = (ChatMessage("system", "Be kind."), ChatMessage("user", "hi"), ChatMessage("assistant", "yes"), picture)
    body = sent(*messages)["messages"]
    assert body[0]["content"] == [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    assert body[1]["content"] == "hi"
    assert [list(part) for part in body[3]["content"]] == [["type", "text"], ["type", "image_url", "cache_control"]]
    assert "cache_control" not in str(sent(*messages, model="openai/gpt-5")) + str(sent(*messages, prompt_cache=False))


def test_no_thinking_is_an_effort_too() -> None:
    assert sent(thinking="off")["reasoning"] == {"effort": "none"}
    assert "reasoning" not in sent()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (404, {"message": "No allowed providers are available for the selected model."}, "bad_request"),
        (503, {"message": "There is no available model provider that meets your routing requirements"}, "server"),
        (429, {"message": "Provider returned error", "metadata": {"raw": "model is rate-limited upstream"}}, "rate_limit"),
        (400, {"message": "Provider returned error", "metadata": {"raw": "prompt is too long: 9 > 8"}}, "context_overflow"),
    ],
)
def test_what_a_provider_behind_it_said_is_told_and_decides(status: int, error: dict[str, Any], kind: str) -> None:
    failed = from_status("main", status, msgspec.json.encode({"error": {"code": status, **error}}), {})
    assert failed.error == kind
    assert error.get("metadata", {}).get("raw", error["message"]) in failed.detail


def test_an_error_that_ends_a_stream_is_told_with_the_providers_words() -> None:
    chunk = {"error": {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "Azure", "raw": "reset"}}}
    answer = Answer("main", ChatRequest("m", ()), CallLimits())
    with pytest.raises(ProviderError, match="Azure said reset") as caught:
        OpenRouter(URL).reader(answer).take(
            [msgspec.json.encode(chunk | {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]})], []
        )
    assert caught.value.error == "server"
