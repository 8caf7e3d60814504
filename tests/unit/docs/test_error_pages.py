"""Every code and every reason has its page, says the right things on it, and is one that the program uses."""

from __future__ import annotations

import ast
import json

import pytest

from support.markdown import ROOT, page
from talon.domain import errors
from talon.domain.entries import END_REASONS, TURN_ENDS, TurnCancelled, TurnCompleted
from talon.domain.errors import CODES, TalonError
from talon.domain.inbox import CancelTurn, DeleteSession, InboxWrite, Message, View
from talon.domain.session import SessionRow, Strategy, TurnRow
from talon.gateway.http.docs import STATUS
from talon.gateway.http.problems import NoMethod, NoRoute, WrongMedia, render

REASONS = {reason: end for end, reasons in END_REASONS.items() for reason in reasons}
NAMES = sorted({*CODES, *REASONS})
SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in (ROOT / "src" / "talon").rglob("*.py")
    if "conformance" not in path.parts
}
ERROR_CLASSES = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, TalonError) and kind is not TalonError
} | {kind.__name__ for kind in (NoRoute, NoMethod, WrongMedia)}
WHERE = ("acme", "support", "s1")


def test_each_code_and_reason_has_a_page_and_no_page_is_left_over() -> None:
    found = {path.stem for path in (ROOT / "docs" / "errors").glob("*.md")} - {"README"}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_title_status_and_end_as_the_program_does(name: str) -> None:
    text = page(f"docs/errors/{name}.md").text
    lines = text.splitlines()
    assert lines[0] == f"# `{name}`"
    head = lines[2]
    titles = [CODES[name]] if name in CODES else [END_REASONS[REASONS[name]][name]]
    assert head.startswith(f"**{titles[0]}**")
    assert (f"HTTP {STATUS[name]}" in head) if name in STATUS else True
    assert [end for end in TURN_ENDS if f"`{end}`" in head] == ([REASONS[name]] if name in REASONS else [])
    assert [line for line in lines if line.startswith("## ")] == ["## What it means", "## Why it happens", "## What to do"]


@pytest.mark.parametrize("code", CODES)
def test_the_type_of_a_problem_names_its_page(code: str) -> None:
    _, body, _ = render(TalonError(code, "detail"), "r1")
    problem = json.loads(body)
    assert (ROOT / "docs" / "errors" / (problem["type"].rpartition("/")[2] + ".md")).is_file()
    assert problem["title"] == CODES[code]


def test_every_code_that_is_raised_is_in_the_table_and_every_code_of_the_table_is_raised() -> None:
    raised = {
        node.args[0].value
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (_name(node.func) in ERROR_CLASSES or _name(node.func) == "__init__")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
    # A collection names the code of one that does not exist; one place raises it for all of them.
    raised |= {
        word.value.value
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node.func) == "Collection"
        for word in node.keywords
        if word.arg == "missing" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
    }
    assert raised == set(CODES)


def test_every_reason_of_a_failed_or_denied_turn_is_in_the_table() -> None:
    failed, denied = set[str](), set[str]()
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or "turn" not in path.parts:
                continue
            name = _name(node.func)
            if name == "fail":
                failed |= _text(node.args[1])
            elif name == "Unresolved":
                denied |= _text(node.args[0])
            elif name in ("TurnFailed", "TurnDenied"):
                said = {one for word in node.keywords if word.arg == "reason" for one in _text(word.value)}
                failed, denied = (failed | said, denied) if name == "TurnFailed" else (failed, denied | said)
    assert failed == set(END_REASONS["turn.failed"])
    assert denied == set(END_REASONS["turn.denied"])
    assert set(END_REASONS["turn.completed"]) == {TurnCompleted().reason}


def test_every_reason_of_a_cancelled_turn_is_in_the_table() -> None:
    view = View(_session(), (_turn(),))
    steps = [
        CancelTurn(WHERE, "t1"),
        DeleteSession(WHERE),
        *(Message(WHERE, "hello", "t2", strategy=strategy) for strategy in _TAKES_THE_PLACE),
    ]
    assert {_cancelled(step.admit(view)) for step in steps} == set(END_REASONS["turn.cancelled"])


_TAKES_THE_PLACE: tuple[Strategy, ...] = ("interrupt", "rollback")


def _cancelled(write: InboxWrite) -> str:
    (payload,) = [json.loads(entry.payload) for entry in write.entries if entry.type == TurnCancelled.type]
    return payload.get("reason", TurnCancelled().reason)


def _session() -> SessionRow:
    return SessionRow(
        sid=1,
        uid="u1",
        namespace=WHERE[0],
        agent=WHERE[1],
        id=WHERE[2],
        state="waiting",
        first_seq=1,
        last_seq=4,
        fence=1,
        owner=None,
        wake_at_ms=None,
        turn_id="t1",
        queued=0,
        metadata=b"{}",
        features=b"{}",
        profile="",
        key_id="acme",
        created_at_ms=0,
        updated_at_ms=0,
    )


def _turn() -> TurnRow:
    return TurnRow(
        turn_id="t1",
        sid=1,
        seq=1,
        state="waiting",
        strategy="enqueue",
        source="http",
        priority=0,
        attempts=1,
        revision=1,
        reason="",
        waiting_for="approval",
        loop=b"{}",
        input_tokens=0,
        output_tokens=0,
        created_at_ms=0,
        started_at_ms=0,
        ended_at_ms=None,
    )


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(node: ast.expr) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
