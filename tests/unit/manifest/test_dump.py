"""What is written as YAML is read back as it was."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.manifests import AGENT, ALL, SCHEDULE, TEMPLATE
from support.manifestworld import World
from talon.manifest.dump import export_of, yaml_of
from talon.manifest.parse import parse

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TRAPS = """1e3 1.10 007 0x1F 1_000 12:30:45 2020-01-01 yes No ON off true NULL ~ . .inf +1 -1 1. .5 = << ? - : # & * ! | > % @ `"""
traps = st.sampled_from(TRAPS.split())

values = st.recursive(
    texts
    | traps
    | st.booleans()
    | st.none()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | traps, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts | traps, values, min_size=1, max_size=4))
@example({"a": "x\r\ny"})
@example({"a": "x\x85y\u2028z\n"})
@example({"a": "  leading\n\n trailing \n\n"})
@example({"a": "\ufeff"})
@settings(max_examples=300, deadline=None)
def test_any_mapping_comes_back(data: dict[str, Any]) -> None:
    (document,) = parse(yaml_of([data]).encode())
    assert document.problems == ()
    assert msgspec.json.encode(document.data) == msgspec.json.encode(data)


def test_several_documents_come_back_in_their_order() -> None:
    assert [one.data for one in parse(yaml_of([{"a": 1}, {"b": ["x"]}]).encode())] == [{"a": 1}, {"b": ["x"]}]


def test_an_export_can_be_applied_elsewhere_and_again_without_a_change() -> None:
    secret = "apiVersion: talon.dev/v1alpha1\nkind: Secret\nmetadata: {name: k, namespace: acme}\nspec: {value: sw0rdfish}\n"
    world = World()
    world.apply("---\n".join((SCHEDULE, ALL, secret)))
    text = export_of(row.body for row in world.rows.values())
    kinds = [one.data["kind"] for one in parse(text.encode())]
    assert kinds == ["Namespace", "Secret", "AgentTemplate", "Agent", "Schedule"]
    assert "sw0rdfish" not in text
    assert "uid" not in text
    elsewhere = World()
    elsewhere.apply(text)
    assert world.plan(text).empty
    assert {who: row.body for who, row in elsewhere.rows.items()} == {who: row.body for who, row in world.rows.items()}


@pytest.mark.parametrize("text", [TEMPLATE, AGENT])
def test_what_people_wrote_stays_readable(text: str) -> None:
    (document,) = parse(text.encode())
    assert yaml_of([document.data]).replace("---\n", "", 1).splitlines()[:4] == text.splitlines()[:4]
