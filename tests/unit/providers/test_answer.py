"""The dialects of chat completions, as plain chunks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.chats import ask
from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.limits import CallLimits
from talon.providers.openai_chat import ChatReader
from talon.providers.protocol import ChatEvent, Finished, ProviderError, ReasoningDelta, TextDelta, ToolCall


def run(*chunks: dict[str, Any], limits: CallLimits | None = None) -> tuple[list[ChatEvent], Finished]:
    answer = Answer("p", ask("12345678"), limits or CallLimits())
    reader, events = ChatReader(answer), list[ChatEvent]()
    for chunk in chunks:
        reader.take([msgspec.json.encode(chunk)], events)
        answer.flush(events)
    return events, answer.finish()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    piece = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in piece.items() if value is not None}


def test_text_reasoning_and_usage_arrive_in_order() -> None:
    events, end = run(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="Hel"),
        delta("stop", content="lo"),
        {
            "id": "c1",
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        },
    )
    assert events == [ReasoningDelta("hm"), TextDelta("Hel"), TextDelta("lo")]
    assert end == Finished("stop", Usage(9, 3, 4), (), "m-1")


def test_reasoning_under_either_name_is_taken_once() -> None:
    events, _ = run(delta(reasoning="a"), delta(reasoning="b", reasoning_content="b"), delta("stop", content="x"))
    assert events == [ReasoningDelta("a"), ReasoningDelta("b"), TextDelta("x")]


def test_parallel_calls_are_put_together_by_index_even_when_interleaved() -> None:
    _, end = run(
        delta(tool_calls=[call(0, "a", "one", ""), call(1, "b", "two", "")]),
        delta(tool_calls=[call(1, None, None, '{"y"')]),
        delta(tool_calls=[call(0, None, None, '{"x":1}')]),
        delta("tool_calls", tool_calls=[call(1, None, None, ":2}")]),
    )
    assert end.stop_reason == "tool_calls"
    assert end.tool_calls == (ToolCall("a", "one", '{"x":1}'), ToolCall("b", "two", '{"y":2}'))


@pytest.mark.parametrize(
    "pieces",
    [
        [call(0, "a", "one", '{"x":1}'), call(0, "b", "two", "{}")],  # every call has index 0
        [call(None, "a", "one", '{"x":1}'), call(None, "b", "two", "{}")],  # no index at all
        [call(None, "a", "one", '{"x"'), call(None, None, None, ":1}"), call(None, "b", "two", None)],
        [call(0, "a", "one", '{"x"'), call(0, "a", "one", ":1}"), call(1, "b", "two", "{}")],  # id and name repeated
        [call(0, "a", "one", {"x": 1}), call(1, "b", "two", {})],  # arguments as objects
    ],
)
def test_calls_of_servers_that_bend_the_rules_are_told_apart(pieces: list[dict[str, Any]]) -> None:
    _, end = run(*(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls"))
    assert end.tool_calls == (ToolCall("a", "one", '{"x":1}'), ToolCall("b", "two", "{}"))


def test_calls_without_ids_get_ids_that_differ() -> None:
    _, end = run(delta("tool_calls", tool_calls=[call(None, None, "one", "{}"), call(None, None, "two", "{}")]))
    assert [c.id for c in end.tool_calls] == ["c1-0", "c1-1"]


def test_calls_with_the_same_id_get_ids_that_differ() -> None:
    _, end = run(delta("tool_calls", tool_calls=[call(0, "x", "one", "{}"), call(1, "x", "two", "{}")]))
    assert len({c.id for c in end.tool_calls}) == 2


def test_a_server_that_says_stop_although_it_calls_is_understood() -> None:
    _, end = run(delta("stop", tool_calls=[call(0, "a", "one", "{}")]))
    assert end.stop_reason == "tool_calls"


def test_arguments_that_are_no_json_are_passed_on_as_written() -> None:
    _, end = run(delta("tool_calls", tool_calls=[call(0, "a", "one", '{"x": tru')]))
    assert end.tool_calls[0].arguments == '{"x": tru'


def test_a_call_that_the_output_limit_cut_is_left_out() -> None:
    _, end = run(
        delta(content="I will call"),
        delta(tool_calls=[call(0, "a", "one", '{"x":1}')]),
        delta("length", tool_calls=[call(1, "b", "two", '{"y"')]),
    )
    assert end.stop_reason == "length"
    assert [c.name for c in end.tool_calls] == ["one"]


def test_missing_usage_is_estimated_from_four_characters_a_token_and_marked() -> None:
    # 8 characters asked -> 2; "Hello" -> 5 / 4, rounded up -> 2
    _, end = run(delta("stop", content="Hello"))
    assert end.usage == Usage(2, 2, estimated=True)


def test_usage_on_every_chunk_counts_once() -> None:
    _, end = run(
        delta(content="a") | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}},
        delta("stop", content="b") | {"usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    )
    assert end.usage == Usage(5, 2)


def test_an_empty_finish_reason_is_no_end() -> None:
    answer = Answer("p", ask(), CallLimits())
    ChatReader(answer).take([msgspec.json.encode(delta("", content="a"))], [])
    assert answer.stop is None


@pytest.mark.parametrize("finish", ["stop", None])
def test_an_answer_that_says_and_calls_nothing_is_an_error(finish: str | None) -> None:
    with pytest.raises(ProviderError) as caught:
        run(delta(finish, content=""))
    assert caught.value.error == "empty"


def test_reasoning_alone_is_nothing_but_the_output_limit_explains_it() -> None:
    with pytest.raises(ProviderError, match="empty"):
        run(delta("stop", reasoning="hm"))
    assert run(delta("length", reasoning="hm"))[1].stop_reason == "length"


@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        ({"message": "slow down", "code": 429}, "rate_limit", 429),
        ({"message": "busy", "code": "502"}, "server", 502),
        ({"message": "x", "type": "overloaded_error"}, "overloaded", None),
        ({"message": "x", "type": "invalid_request_error"}, "bad_request", None),
        ({"message": "maximum context length is 10", "type": "invalid_request_error"}, "context_overflow", None),
        ({"message": "boom"}, "server", None),
        ("boom", "server", None),
        ({}, "server", None),
    ],
)
def test_an_error_inside_the_stream_gets_its_class(error: Any, expected: str, status: int | None) -> None:
    with pytest.raises(ProviderError) as caught:
        run(delta(content="a"), {"error": error})
    assert (caught.value.error, caught.value.status) == (expected, status)
    assert caught.value.usage == Usage(2, 1, estimated=True)  # what was spent until then


@pytest.mark.parametrize(("finish", "error"), [("content_filter", "content_filter"), ("error", "server")])
def test_a_bad_reason_for_stopping_is_an_error(finish: str, error: str) -> None:
    with pytest.raises(ProviderError) as caught:
        run(delta(finish, content="a"))
    assert caught.value.error == error


def test_too_long_an_answer_is_stopped_at_the_limit() -> None:
    with pytest.raises(ProviderError, match=r"answer_max \(10 characters\)"):
        run(delta(content="123456"), delta(content="12345"), limits=CallLimits(answer_max=10))
    assert run(delta(content="123456"), delta("stop", content="1234"), limits=CallLimits(answer_max=10))[1].stop_reason == "stop"


def test_too_many_calls_are_stopped_at_the_limit() -> None:
    with pytest.raises(ProviderError, match=r"tool_calls_max \(2\)"):
        run(*(delta(tool_calls=[call(n, f"i{n}", "t", "{}")]) for n in range(3)), limits=CallLimits(tool_calls_max=2))


def test_a_call_without_a_name_is_malformed() -> None:
    with pytest.raises(ProviderError) as caught:
        run(delta("tool_calls", tool_calls=[call(0, "a", None, "{}")]))
    assert caught.value.error == "malformed"


def test_a_second_choice_is_not_mixed_into_the_first() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}]}
    events, end = run(delta(content="a"), second, delta("stop"))
    assert (events, end.stop_reason) == ([TextDelta("a")], "stop")
