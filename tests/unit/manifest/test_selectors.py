"""Label selectors and merge patches."""

from __future__ import annotations

from typing import Any

import pytest

from talon.domain.errors import Invalid
from talon.domain.resources import Requirement
from talon.manifest.merge import merge_patch
from talon.manifest.selectors import parse_selector


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("a=b", [Requirement("a", "in", ("b",))]),
        (" a == b ", [Requirement("a", "in", ("b",))]),
        ("a!=b", [Requirement("a", "notin", ("b",))]),
        ("a in (x, y,x)", [Requirement("a", "in", ("x", "y"))]),
        ("a notin (z)", [Requirement("a", "notin", ("z",))]),
        ("a", [Requirement("a", "exists")]),
        ("!a", [Requirement("a", "absent")]),
        ("! a", [Requirement("a", "absent")]),
        ("a=", [Requirement("a", "in", ("",))]),
        ("a in (x,)", [Requirement("a", "in", ("x", ""))]),
        ("example.com/tier=gold", [Requirement("example.com/tier", "in", ("gold",))]),
        ("in in (in)", [Requirement("in", "in", ("in",))]),
        ("a=b,c!=d,e in (x,y),f notin (z),g,!h", [
            Requirement("a", "in", ("b",)), Requirement("c", "notin", ("d",)), Requirement("e", "in", ("x", "y")),
            Requirement("f", "notin", ("z",)), Requirement("g", "exists"), Requirement("h", "absent"),
        ]),
    ],
)  # fmt: skip
def test_a_selector_is_read(text: str, expected: list[Requirement]) -> None:
    assert parse_selector(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",", "at character 1: ',', where a label's key should be"),
        ("a=b,", "at its end, where a label's key should be"),
        ("a=b c", "at character 5: 'c', where ',' should be"),
        ("a b", "at character 3: 'b', where =, ==, !=, in, notin or a comma should be"),
        ("a=b=c", "at character 4: '=', where ',' should be"),
        ("a in x", "where '(' should be"),
        ("a in (x", "at its end, where ',' should be"),
        ("a>3", "at character 1: 'a>3', where a label's key should be"),
        ("-a=b", "where a label's key should be"),
        ("a=-b", "where a label's value should be"),
        ("a=" + "x" * 64, "where a label's value should be"),
        ("ä=b", "where a label's key should be"),
        ("!", "at its end"),
        ("x" * 5000, "has 5000 characters; at most 4096"),
        (",".join(f"a{number}" for number in range(40)), "more than 32 requirements"),
        (f"a in ({','.join(str(number) for number in range(200))})", "more than 100 values"),
    ],
)
def test_a_wrong_selector_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_selector(text)
    (error,) = refused.value.errors
    assert error.field == "label_selector"
    assert words in error.message


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_its_rfc_says(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result
