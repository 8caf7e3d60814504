"""Entries as words, and an answer as it grows."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import yaml

from talon.cli.output import as_json, as_yaml, table
from talon.cli.render import WORDS, Answer, summary
from talon.cli.sse import Event
from talon.cli.text import columns, one_line, safe, styled
from talon.domain.entries import PAYLOADS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(type_: str, seq: int = 1, /, **payload: Any) -> Event:
    return Event(str(seq), type_, {"seq": seq, "turn_id": "t", "type": type_, "at": "", "payload": payload})


STREAM = [
    event("model.started", 4, iteration=1, provider="p", model="m"),
    event("text.delta", 4, offset=0, text="Let me "),
    event("text.delta", 4, offset=7, text="look."),
    event("model.finished", 5, stop_reason="tool_calls", content="Let me look.", calls=1),
    event("tool.requested", 6, call=1, name="days_until", arguments="{}"),
    event("tool.finished", 8, call=1, output="3 days"),
    event("text.delta", 9, offset=0, text="It is 4"),
    event("stream.reset", 10, model_seq=9),
    event("text.delta", 11, offset=0, text="It is "),
    event("text.delta", 11, offset=3, text="is 3 days"),  # overlaps with what is shown
    event("message.completed", 12, content="It is 3 days.", model_seq=11),
    event("turn.completed", 13),
]


def shown(out: io.StringIO, events: list[Event]) -> tuple[str, str]:
    steps = io.StringIO()
    answer = Answer(out, steps)
    for one in events:
        answer.show(one)
    return out.getvalue(), steps.getvalue()


def test_a_terminal_sees_text_as_it_comes_each_character_once() -> None:
    out, steps = shown(Terminal(), STREAM)
    assert out == "Let me look.\nIt is 4\nIt is 3 days.\n"
    assert "asked again" in steps
    assert "tool.requested #1 days_until {}" in steps


def test_a_script_reads_finished_answers_only() -> None:
    out, steps = shown(io.StringIO(), STREAM)
    assert out == "It is 3 days.\n"
    assert "tool.finished #1 3 days" in steps


def test_an_answer_without_fragments_is_shown_whole() -> None:
    assert shown(Terminal(), [event("message.completed", content="Yes.\n", model_seq=3)])[0] == "Yes.\n"


def test_an_answer_cannot_drive_the_terminal_but_a_script_gets_it_verbatim() -> None:
    evil = [event("message.completed", content="a\x1b]0;title\x07b\x9b31m\u202ec", model_seq=3)]
    assert shown(Terminal(), evil)[0] == "a�]0;title�b�31m�c\n"
    assert shown(io.StringIO(), evil)[0] == "a\x1b]0;title\x07b\x9b31m\u202ec\n"


def test_what_waits_for_a_person_says_how_to_decide() -> None:
    asked = event("approval.requested", approval="a-1", kind="uncertain", call=1, name="pay", arguments="{}")
    assert "talon approval resolve a-1 --outcome retry|done|failed" in shown(Terminal(), [asked])[1]


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
def test_every_entry_has_a_line_whatever_it_leaves_out(kind: str) -> None:
    for payload in ({}, {"content": "a\nb", "detail": "x\x1by", "output": "c\r\nd"}):
        line = summary(kind, payload, 60)
        assert line == safe(line)
        assert "\n" not in line
        assert columns(line) <= 60


def test_a_type_that_we_do_not_know_shows_its_payload() -> None:
    assert "new.thing" not in WORDS
    assert summary("new.thing", {"a": 1, "b": "x"}) == "a=1, b=x"


def test_a_queued_turn_says_what_it_stands_behind() -> None:
    behind = {"turn_id": "t0", "state": "waiting", "waiting_for": "approval", "turns": 2}
    assert summary("turn.queued", {"behind": behind}) == "enqueue, behind 2 (waiting, which waits for approval)"


def test_a_waiting_turn_says_until_when() -> None:
    waits = {"kind": "backoff", "until_ms": 1795215498934, "detail": "rate_limit"}
    assert summary("turn.waiting", waits) == "for backoff until 2026-11-20T22:58:18Z, rate_limit"
    assert summary("turn.waiting", {"kind": "approval", "approvals": ["a-1"]}) == "for approval, a-1"


def test_a_table_is_aligned_by_columns_not_characters() -> None:
    text = table(("A", "B"), [("日本", 1), ("e\u0301", None), ("x" * 100, "")])
    lines = text.splitlines()
    assert [columns(line.split("  ")[0]) for line in lines[3:]] == [80]
    assert lines[1].startswith("日本" + " " * 76 + "  1")
    assert lines[2].endswith("-")


def test_one_line_cuts_by_columns() -> None:
    assert one_line("a\n b\tc") == "a b c"
    assert one_line("日本語日本語", 7) == "日本語…"
    assert one_line("abc", 3) == "abc"


def test_json_and_yaml_cannot_drive_the_terminal_and_lose_nothing() -> None:
    data = {"text": "a\x9bb\u202e\x1bü", "prompt": "one\ntwo\n"}
    for text in (as_json(data), as_yaml(data)):
        assert safe(text) == text
    assert json.loads(as_json(data)) == data
    assert yaml.safe_load(as_yaml(data)) == data
    assert "prompt: |\n" in as_yaml(data)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert styled("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", "red", Terminal()) == "x"
