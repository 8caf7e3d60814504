"""What is Ollama's own: its addresses, messages of a text and images, calls without ids, lines."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.dialect import FrameError
from talon.providers.limits import CallLimits
from talon.providers.ndjson import JsonLines
from talon.providers.ollama import Ollama
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, ProviderError, Text, ToolCall

CALLS = (ToolCall("a", "find", "{}"), ToolCall("b", "look", '{"n":1}'))


def sent(*messages: ChatMessage, **fields: Any) -> dict[str, Any]:
    return msgspec.json.decode(Ollama("http://x").body(ChatRequest("qwen3", messages, **fields)), type=dict[str, Any])


def read(*lines: dict[str, Any]) -> tuple[Answer, list[ChatEvent]]:
    answer, events = Answer("main", ChatRequest("qwen3", ()), CallLimits()), list[ChatEvent]()
    reader = Ollama("http://x").reader(answer)
    for line in lines:
        assert reader.take([msgspec.json.encode(line)], events) == bool(line.get("done"))
    answer.flush(events)
    return answer, events


@pytest.mark.parametrize("base_url", ["http://x:1", "http://x:1/", "http://x:1/v1", "http://x:1/api"])
def test_the_address_is_found_from_those_that_people_have(base_url: str) -> None:
    assert str(Ollama(base_url).url(ChatRequest("m", ()))) == "http://x:1/api/chat"


def test_an_image_follows_its_text_and_a_text_after_it_is_the_next_message() -> None:
    parts = (Image("image/png", b"0"), Text("one"), Text("two"), Image("image/png", b"1"), Image("image/png", b"2"), Text("three"))
    assert sent(ChatMessage("user", parts=parts))["messages"] == [
        {"role": "user", "content": "", "images": ["MA=="]},
        {"role": "user", "content": "one\ntwo", "images": ["MQ==", "Mg=="]},
        {"role": "user", "content": "three"},
    ]
    with pytest.raises(ProviderError, match="by its address"):
        sent(ChatMessage("user", parts=(Image(url="https://example.com/a.png"),)))


def test_results_name_their_tools_and_their_images_follow_all_of_them() -> None:
    results = (
        ChatMessage("tool", tool_call_id="a", parts=(Text("a map"), Image("image/png", b"0"))),
        ChatMessage("tool", "ok", tool_call_id="b"),
    )
    messages = sent(ChatMessage("assistant", "", CALLS), *results)["messages"]
    assert messages[0]["tool_calls"] == [
        {"function": {"name": "find", "arguments": {}}},
        {"function": {"name": "look", "arguments": {"n": 1}}},
    ]
    assert [(m["role"], m.get("tool_name"), m["content"]) for m in messages[1:]] == [
        ("tool", "find", "a map"),
        ("tool", "look", "ok"),
        ("user", None, "Images of the tool results:"),
    ]


def test_calls_without_ids_get_some_and_thoughts_go_back_with_them() -> None:
    call = {"function": {"name": "find", "arguments": {"n": 1.50}}}
    answer, _ = read(
        {"created_at": "2026-09-17T15:42:59.7420965Z", "message": {"thinking": "Hm"}},
        {"message": {"thinking": "."}},
        {"message": {"content": "", "tool_calls": [call, call]}},
        {"message": {"content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4},
    )
    end = answer.finish()
    assert (end.stop_reason, end.usage, len({one.id for one in end.tool_calls})) == ("tool_calls", Usage(9, 4), 2)
    [message] = sent(ChatMessage("assistant", "", end.tool_calls, opaque=end.opaque))["messages"]
    later, _ = read({"created_at": "2026-09-17T15:43:01Z", "message": {"tool_calls": [call]}, "done": True})
    assert later.finish().tool_calls[0].id not in {one.id for one in end.tool_calls}, "results find their calls by it"
    assert (message["thinking"], message["tool_calls"][0]["function"]["arguments"]) == ("Hm.", {"n": 1.5})


def test_a_conversation_is_never_cut_silently_and_thinking_is_a_word_or_false() -> None:
    assert sent(ChatMessage("user", "hi"))["truncate"] is False
    assert [sent(thinking=level).get("think") for level in ("", "off", "high")] == [None, False, "high"]


def test_lines_come_whole_however_they_are_cut_and_not_above_their_limit() -> None:
    body = '{"a":"é"}\r\n\n{"b":2}\n{"c"'.encode()
    for size in range(1, len(body) + 1):
        lines = JsonLines(20)
        got = [line for at in range(0, len(body), size) for line in lines.feed(body[at : at + size])]
        assert [line.strip() for line in got] == ['{"a":"é"}'.encode(), b"", b'{"b":2}']
        assert (lines.rest(), lines.rest()) == (b'{"c"', b"")
    for cut in (5, 21, 40):
        lines = JsonLines(20)
        if cut <= 20:
            assert not lines.feed(b"x" * cut)
        with pytest.raises(FrameError, match=r"line_max \(20 bytes\)"):
            lines.feed(b"x" * max(cut, 16) + b"\n")
