"""Scripts of the fake model: what matches, what is filled in, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from support.chats import ask
from talon.domain.errors import Invalid
from talon.providers.protocol import ChatMessage, ChatRequest, ProviderError, ToolCall, ToolDef
from talon.providers.scripted.script import Script

RENEWALS = r"""
defaults: {chunk_chars: 7, delay_ms: 3}
rules:
  - name: throttled once
    when: {user: RENEWALS, step: 1}
    times: 1
    fault: {kind: status, status: 429, retry_after_s: 2}
  - name: look up
    when: {user_matches: 'due in (?P<days>\d+)', step: 1}
    calls:
      - {tool: list, arguments: {days: '{{ match.days | json }}', note: 'asked: {{ user }}', deep: [{a: '{{ match.1 }}'}]}}
      - {tool: broken, arguments: '{"a": tru'}
  - name: summary
    when: {results: 2, result: enterprise}
    text: '{{ result.0 }} / {{ result }} / {{ results }} / {{ result.9 }} / step {{ step }} of {{ model }}'
    delay_ms: 0
default: {text: 'You said: {{ user }}'}
"""


def turn(user: str, *results: str) -> ChatRequest:
    calls = tuple(ToolCall(f"c{n}", "list", "{}") for n in range(len(results)))
    answers = (ChatMessage("tool", text, tool_call_id=f"c{n}") for n, text in enumerate(results))
    return ask(user, *([ChatMessage("assistant", "", calls), *answers] if results else []))


def test_rules_are_tried_in_order_and_times_are_counted_down() -> None:
    script = Script.parse(RENEWALS)
    request = turn("renewals due in 14 days")
    assert [script.reply(request).rule for _ in range(3)] == ["throttled once", "look up", "look up"]
    assert script.reply(turn("hello")).text == "You said: hello"


def test_places_are_filled_in_as_text_or_as_json_values() -> None:
    script = Script.parse(RENEWALS)
    script.reply(turn("renewals due in 14 days"))
    reply = script.reply(turn("renewals due in 14 days"))
    assert msgspec.json.decode(reply.calls[0].arguments) == {
        "days": 14,
        "note": "asked: renewals due in 14 days",
        "deep": [{"a": "14"}],
    }
    assert reply.calls[1] == ToolCall("call_1", "broken", '{"a": tru')
    assert reply.stop_reason == "tool_calls"
    assert (reply.chunk_chars, reply.delay_ms) == (7, 3)


def test_results_of_this_turn_are_seen_and_those_of_earlier_turns_are_not() -> None:
    script = Script.parse(RENEWALS)
    reply = script.reply(turn("go", "an enterprise", "another"))
    assert reply.text == "an enterprise / another / 2 /  / step 2 of m"
    assert reply.delay_ms == 0
    later = (*turn("go", "an enterprise", "another").messages, ChatMessage("assistant", "done"), ChatMessage("user", "thanks"))
    assert script.reply(ChatRequest("m", later)).rule == "default"


def test_text_of_the_user_is_never_read_as_a_place() -> None:
    assert Script.parse(RENEWALS).reply(turn("{{ model }}")).text == "You said: {{ model }}"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("rules: [{when: {usr: x}, text: a}]", "rules[0].when", "usr"),
        ("rules: [{text: a, txt: b}]", "rules[0]", "txt"),
        ("rules: [{}]", "rules[0]", "says nothing"),
        ("rules: [{text: a, times: 0}]", "rules[0].times", ">= 1"),
        ("rules: [{fault: {kind: nope}}]", "rules[0].fault.kind", "nope"),
        ("rules: [{text: '{{ foo }}'}]", "rules[0].text", "{{ foo }}: unknown"),
        ("rules: [{text: '{{ match.x }}'}]", "rules[0].text", "no such group"),
        ("rules: [{text: '{{ user.x }}'}]", "rules[0].text", "only match and result"),
        ("rules: [{text: 'a {{ user | json }}'}]", "rules[0].text", "must be the whole text"),
        ("rules: [{text: '{{ user | upper }}'}]", "rules[0].text", "is not a place"),
        ("rules: [{when: {user_matches: '('}, text: a}]", "rules[0].when.user_matches", "not a regular expression"),
        ("rules: [{calls: [{tool: t, arguments: {a: ['{{ foo }}']}}]}]", "rules[0].calls[0].arguments", "{{ foo }}"),
        ("rules: 3", "rules", "must be a list"),
        ("rule: []", "rule", "unknown field"),
        ("default: {delay_ms: -1, text: a}", "default.delay_ms", ">= 0"),
        ("{}", "rules", "answers nothing"),
        ("- a", "$", "mapping"),
    ],
)
def test_a_wrong_script_is_refused_by_the_name_of_the_place(text: str, field: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        Script.parse(text, "demo.yaml")
    assert (field, True) in [(error.field, words in error.message) for error in caught.value.errors]
    assert "demo.yaml" in caught.value.detail


def test_every_wrong_rule_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        Script.parse("rules: [{txt: a}, {text: ok}, {times: 0}]")
    assert {error.field for error in caught.value.errors} == {"rules[0]", "rules[2].times"}


def test_a_file_that_is_no_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not YAML"):
        Script.parse("a: [")
    with pytest.raises(Invalid, match="No such file"):
        Script.load(tmp_path / "none.yaml")


def test_a_python_file_answers_from_the_conversation(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("def answer(c):\n    return {'text': f'{c.step} {c.user} {{{{ user }}}}', 'delay_ms': len(c.tools)}\n")
    reply = Script.load(path).reply(ChatRequest("m", (ChatMessage("user", "hi"),), (ToolDef("t", "", {}),)))
    assert (reply.text, reply.delay_ms) == ("1 hi {{ user }}", 1)


@pytest.mark.parametrize("source", ["x = 1", "def answer(", "raise KeyError('k')", "answer = 3"])
def test_a_python_file_without_a_usable_function_is_refused(tmp_path: Path, source: str) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    with pytest.raises(Invalid, match=r"model\.py"):
        Script.load(path)


@pytest.mark.parametrize(
    "source", ["def answer(c): return {'txt': 1}", "def answer(c): return 1 / 0", "def answer(c): return None"]
)
def test_a_python_function_that_fails_fails_the_call_in_clear_words(tmp_path: Path, source: str) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    with pytest.raises(ProviderError, match="the script cannot answer") as caught:
        Script.load(path).reply(ask())
    assert caught.value.error == "bad_request"


def test_where_no_rule_fits_and_there_is_no_default_the_request_is_refused() -> None:
    with pytest.raises(ProviderError, match="no rule for step 1 after 'hello'") as caught:
        Script.parse("rules: [{when: {user: x}, text: a}]").reply(ask("hello"))
    assert not caught.value.retryable


def test_a_json_place_that_holds_no_json_is_refused() -> None:
    with pytest.raises(ProviderError, match="is 'hello', which is not JSON"):
        Script.parse("default: {calls: [{tool: t, arguments: {n: '{{ user | json }}'}}]}").reply(ask("hello"))


CALL = ChatMessage("assistant", "", (ToolCall("c1", "t", "{}"),))
RESULT = ChatMessage("tool", "r", tool_call_id="c1")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((), "messages is empty"),
        ((CALL,), "'c1' is missing"),
        ((CALL, ChatMessage("user", "x")), "'c1' is missing"),
        ((ChatMessage("user", "x"), RESULT), "does not stand before it"),
        ((CALL, RESULT, RESULT), "does not stand before it"),
    ],
)
def test_a_conversation_that_parts_a_call_from_its_result_is_refused_as_a_vendor_would(
    messages: tuple[ChatMessage, ...], words: str
) -> None:
    with pytest.raises(ProviderError, match=words) as caught:
        Script.parse("default: {text: a}").reply(ChatRequest("m", messages))
    assert (caught.value.error, caught.value.status) == ("bad_request", 400)


def test_a_tool_name_that_vendors_refuse_is_refused() -> None:
    with pytest.raises(ProviderError, match=r"'a\.b'"):
        Script.parse("default: {text: a}").reply(ChatRequest("m", ask().messages, (ToolDef("a.b", "", {}),)))
