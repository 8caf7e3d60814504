"""What is Gemini's own: levels of thinking, signatures, blocked prompts, reasons for stopping, errors that carry their wait."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from talon.domain.entries import Opaque, Usage
from talon.providers.answer import Answer
from talon.providers.faults import from_status
from talon.providers.gemini import Gemini
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, ProviderError, Text, ToolCall, ToolDef

CALLS = (ToolCall("c1", "find", "{}"), ToolCall("c2", "find", '{"n":1}'))
DUMMY = "skip_thought_signature_validator"


def sent(*messages: ChatMessage, model: str = "gemini-3-flash", **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (ChatMessage("user", "hi"),), **fields)
    return msgspec.json.decode(Gemini("https://x").body(request), type=dict[str, Any])


def read(*chunks: dict[str, Any]) -> tuple[Answer, list[ChatEvent]]:
    answer, events = (
        Answer("main", ChatRequest("gemini-3-flash", (ChatMessage("user", "12345678"),)), CallLimits()),
        list[ChatEvent](),
    )
    reader = Gemini("https://x").reader(answer)
    assert not reader.take([msgspec.json.encode(chunk) for chunk in chunks], events)
    answer.flush(events)
    return answer, events


def piece(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish, **more}]}


@pytest.mark.parametrize("base_url", ["https://x", "https://x/", "https://x/v1beta", "https://x/v1beta/"])
def test_the_address_has_a_version_and_the_model(base_url: str) -> None:
    url = Gemini(base_url).url(ChatRequest("models/gemini-3-flash", ()))
    assert str(url) == "https://x/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
    assert str(Gemini("https://x/v1").url(ChatRequest("a/b?c", ()))).startswith("https://x/v1/models/a%2Fb%3Fc:")


@pytest.mark.parametrize(
    ("model", "level", "config"),
    [
        ("gemini-3-pro-preview", "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-pro-preview", "off", {"thinkingLevel": "LOW"}),
        ("gemini-3-flash", "off", {"thinkingLevel": "MINIMAL"}),
        ("gemini-flash-latest", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.5-flash", "off", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "off", {"thinkingBudget": 128}),
        ("gemini-2.5-pro", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
    ],
)
def test_how_a_model_is_asked_to_think_hangs_on_its_generation(model: str, level: Any, config: dict[str, Any]) -> None:
    assert sent(model=model, thinking=level)["generationConfig"] == {"thinkingConfig": config}


def test_calls_of_another_model_are_let_through_where_signatures_are_wanted() -> None:
    asked = (ChatMessage("user", "hi"), ChatMessage("assistant", "", CALLS))
    parts = sent(*asked)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [DUMMY, None]
    assert "thoughtSignature" not in str(sent(*asked, model="gemini-2.5-flash"))


def test_signatures_go_back_at_the_part_that_had_them() -> None:
    answer, _ = read(
        piece({"text": "Hm.", "thought": True}),
        piece({"text": "Let me look."}),
        piece({"text": "", "thoughtSignature": "VGV4dA=="}),
        piece({"functionCall": {"name": "find", "args": {}}, "thoughtSignature": "Q2FsbA=="}),
        piece({"functionCall": {"name": "find", "args": {"n": 1}}}, finish="STOP"),
    )
    end = answer.finish()
    assert [call.arguments for call in end.tool_calls] == ["{}", '{"n":1}']
    assert len({call.id for call in end.tool_calls}) == 2
    parts = sent(ChatMessage("user", "hi"), ChatMessage("assistant", "Let me look.", end.tool_calls, opaque=end.opaque))
    assert [list(part) for part in parts["contents"][1]["parts"]] == [
        ["text"],
        ["text", "thoughtSignature"],
        ["functionCall", "thoughtSignature"],
        ["functionCall"],
    ]
    assert [part.get("thoughtSignature") for part in parts["contents"][1]["parts"]] == [None, "VGV4dA==", "Q2FsbA==", None]


def test_results_carry_the_names_of_their_tools_and_their_images_follow() -> None:
    results = (
        ChatMessage("tool", tool_call_id="c1", parts=(Text("a map"), Image("image/png", b"x"))),
        ChatMessage("tool", "ok", tool_call_id="c2"),
    )
    contents = sent(ChatMessage("user", "hi"), ChatMessage("assistant", "", CALLS), *results, ChatMessage("user", "go"))["contents"]
    assert [(content["role"], [next(iter(part)) for part in content["parts"]]) for content in contents[2:]] == [
        ("user", ["functionResponse", "functionResponse"]),
        ("user", ["inlineData"]),
        ("user", ["text"]),
    ]
    assert contents[2]["parts"][0]["functionResponse"] == {"id": "c1", "name": "find", "response": {"output": "a map"}}


def test_empty_messages_and_a_conversation_that_the_model_begins_are_written_as_the_vendor_takes_them() -> None:
    body = sent(ChatMessage("system", ""), ChatMessage("assistant", ""), ChatMessage("user", ""))
    assert "systemInstruction" not in body
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert all(content["parts"][0]["text"] for content in body["contents"])


@pytest.mark.parametrize(
    ("choice", "config"), [("auto", {"mode": "AUTO"}), ("none", {"mode": "NONE"}), ("required", {"mode": "ANY"})]
)
def test_a_choice_of_tools_is_a_mode(choice: str, config: dict[str, Any]) -> None:
    assert sent(tools=(ToolDef("find", "", {}),), tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


def test_a_blocked_prompt_is_filtered_with_what_it_cost() -> None:
    feedback = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}}
    with pytest.raises(ProviderError, match="PROHIBITED_CONTENT") as caught:
        read(feedback)
    assert (caught.value.error, caught.value.usage.input_tokens) == ("content_filter", 9)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("SPII", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed"),
        ("MISSING_THOUGHT_SIGNATURE", "bad_request"),
        ("OTHER", "server"),
    ],
)
def test_a_reason_that_is_no_end_is_an_error(reason: str, error: str) -> None:
    with pytest.raises(ProviderError) as caught:
        read(piece({"text": "It"}, finish=reason, finishMessage="why"))[0].finish()
    assert caught.value.error == error


def test_thoughts_are_counted_with_the_output_and_counts_in_the_middle_are_not_final() -> None:
    counts = {"promptTokenCount": 50, "cachedContentTokenCount": 40, "candidatesTokenCount": 7, "thoughtsTokenCount": 5}
    answer, _ = read(piece({"text": "Hello"}) | {"usageMetadata": {"promptTokenCount": 50}})
    assert answer.usage() == Usage(50, 2, estimated=True)
    answer, _ = read(piece({"text": "Hello"}, finish="STOP") | {"usageMetadata": counts | {"toolUsePromptTokenCount": 3}})
    assert answer.usage() == Usage(53, 12, 40, reasoning_tokens=5)


def test_only_one_answer_was_asked_for() -> None:
    second = {"candidates": [{"index": 1, "content": {"parts": [{"text": "no"}]}}]}
    _, events = read(piece({"text": "yes"}), second)
    assert "no" not in str(events)


def test_a_used_up_quota_names_its_wait_in_the_body_and_is_no_unpaid_bill() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    words = "You exceeded your current quota, please check your plan and billing details."
    error = {"code": 429, "message": words, "status": "RESOURCE_EXHAUSTED", "details": details}
    failed = from_status("main", 429, msgspec.json.encode({"error": error}), {})
    assert (failed.error, failed.retry_after_s) == ("rate_limit", 34.5)
    assert from_status("main", 429, msgspec.json.encode({"error": error | {"details": []}}), {}).error == "authentication"


def test_what_another_provider_kept_is_never_a_part() -> None:
    foreign = ChatMessage("assistant", "", CALLS, opaque=Opaque("main", "gemini-3-flash", ("call 0", "call 1")))
    parts = sent(ChatMessage("user", "hi"), foreign)["contents"][1]["parts"]
    assert [part["functionCall"]["id"] for part in parts] == ["c1", "c2"]
    assert "thoughtSignature" not in str(parts)
