"""What `docs/security.md` promises is shown by tests that are there."""

from __future__ import annotations

import ast
import re

import pytest

from support.markdown import ROOT, page
from talon.cli.leaves import leaves
from talon.gateway.accesslog import NOBODY_PER_S
from talon.store.access import LOG_KEEP_MS

TESTS = ROOT / "tests"
PAGE = "docs/security.md"
#: Every test, and the file that it is in.
NAMES = {
    node.name: path
    for path in TESTS.rglob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
}


def promises() -> list[tuple[str, list[str]]]:
    """The rows of the table: what is promised, and what is named as showing it."""
    (section,) = re.findall(r"^## What is promised\n(.*?)^## ", page(PAGE).text, re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("|")]
    assert all(len(row) == 3 for row in rows), rows
    return [(row[0], re.findall(r"`([^`]+)`", row[2])) for row in rows[2:]]


def test_the_table_is_read() -> None:
    assert len(promises()) >= 14
    assert len({what for what, _ in promises()}) == len(promises())


@pytest.mark.parametrize(("what", "shown"), promises(), ids=[str(number) for number in range(len(promises()))])
def test_each_promise_names_a_test_by_its_name_and_each_that_is_named_is_there(what: str, shown: list[str]) -> None:
    missing = [one for one in shown if one not in NAMES and not (ROOT / one).is_file()]
    assert not missing, (what, missing)
    assert any(one in NAMES for one in shown), f"{what}: no test is named"


def test_every_number_and_setting_that_is_promised_is_the_programs() -> None:
    text = page(PAGE).text
    assert f"for {LOG_KEEP_MS // 86_400_000} days" in text
    assert f"at most {NOBODY_PER_S:.0f} a second" in text
    named = [code for code in page(PAGE).inline_code() if re.fullmatch(r"gateway\.[a-z_.]+", code)]
    assert named
    assert [code for code in named if code not in leaves()] == []
