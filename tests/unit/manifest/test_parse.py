"""Bytes to documents."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.domain.errors import Malformed, TalonError, TooLarge
from talon.manifest.parse import BYTES_MAX, DOCUMENTS_MAX, Form, parse


def problems(text: str) -> dict[str, str]:
    return {one.field: one.message for document in parse(text.encode("utf-8", "surrogatepass")) for one in document.problems}


def test_documents_of_a_stream_a_list_and_json_are_the_same() -> None:
    stream = parse(b"a: 1\n---\n---\nb: [x, 2]\n")
    assert [(d.index, d.data) for d in stream] == [(1, {"a": 1}), (3, {"b": ["x", 2]})]
    assert [d.data for d in parse(b"- a: 1\n- b: [x, 2]\n")] == [d.data for d in stream]
    assert [d.data for d in parse(b'[{"a": 1}, {"b": ["x", 2]}]')] == [d.data for d in stream]
    assert [d.data for d in parse(b'{"a": 1}', "json")] == [{"a": 1}]
    assert [d.data for d in parse("﻿a: ä\n".encode())] == [{"a": "ä"}]


def test_a_place_is_a_document_a_line_and_a_path() -> None:
    (_, second) = parse(b"a: 1\n---\nb:\n  - c: 1\n    d: 2\n")
    error = second.error(("b", 0, "d"), "is wrong", 2)
    assert (error.field, error.message, error.value) == ("b[0].d", "document 2, line 5: is wrong", 2)
    assert second.place(("b", 0, "not", "there")) == "document 2, line 4"
    (listed,) = parse(b"- a: 1\n  b: 2\n")
    assert listed.place(("b",)) == "document 1, line 2"


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("0123", "0123"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("+1", "+1"),
        ("y", "y"),
        ("-1", -1),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'yes'", "yes"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("! on", "on"),
    ],
)
def test_a_plain_scalar_is_what_every_reader_takes_it_for(scalar: str, value: object) -> None:
    (document,) = parse(f"k: {scalar}\n".encode())
    assert document.problems == ()
    assert document.data == {"k": value}
    assert type(document.data["k"]) is type(value)


@pytest.mark.parametrize("word", ["yes", "No", "ON", "off"])
def test_a_word_that_some_readers_take_for_a_boolean_must_be_quoted(word: str) -> None:
    assert "in quotes" in problems(f"spec:\n  x: {word}\n")["spec.x"]
    assert "line 2" in problems(f"spec:\n  x: {word}\n")["spec.x"]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "is given twice, in line 1 and line 3"),
        ('{"a": {"b": 1, "b": 2}}', "a.b", "is given twice"),
        ("x: &x {a: 1}\n<<: *x\n", '["<<"]', "merge keys"),
        ("a: !!python/object/apply:os.system [x]\n", "a", "tag"),
        ("a: !!binary eA==\n", "a", "tag"),
        ("a: &a [*a]\n", "a[0]", "alias"),
        ('a: "x\\0y"\n', "a", "NUL"),
        ('{"a": "\\u0000"}', "a", "NUL"),
        ('{"a": "\\ud800"}', "a", "surrogate"),
        ('{"a": 1e999}', "a", "finite"),
        ("a: 99999999999999999999\n", "a", "many readers lose digits"),
        ('{"a": ' + "9" * 5000 + "}", "a", "many readers lose digits"),
        ("? [a]\n: b\n", "", "must be plain text"),
    ],
)
def test_what_is_wrong_inside_is_named_by_its_path(text: str, field: str, words: str) -> None:
    assert words in problems(text)[field]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no document"),
        (b"---\n---\n", "no document"),
        (b"# nothing\n", "no document"),
        (b"a: \xff", "byte 3 is not UTF-8"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
        (b"ok: 1\nb: x\x00y", "line 2: a NUL"),
        (b"a: x\n\tb: y", "line 2"),
        (b"a: b: c", "line 1, column 5"),
        (b"a: [1", "no YAML"),
        (b"{a: 1", "no YAML"),
        (b"a: 1\n---\nb: \x07", "no YAML"),
    ],
)
def test_what_cannot_be_read_is_malformed_and_says_where(data: bytes, words: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse(data)
    assert words in refused.value.detail


@pytest.mark.parametrize("data", [b'{"a": 1', b'{"a": NaN}', b"a: 1", b'{"a": 1} {"b": 2}'])
def test_json_that_is_none_is_malformed_where_json_was_announced(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data, "json")


def _bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        (_bomb(), "yaml", "aliases"),
        (f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 1000)}]", "yaml", "aliases"),
        ("a: " + "[" * 100_000, "yaml", "levels"),
        ("[" * 50_000, "yaml", "levels"),
        ("[" * 50_000, "json", "levels"),
        ("[" * 500_000, "json", "values"),
        ('{"a":' * 50 + "1" + "}" * 50, "json", "levels"),
        ("\n".join("  " * depth + "a:" for depth in range(600)), "yaml", "levels"),
        ("a: " + "x" * BYTES_MAX, "yaml", "bytes"),
        ("x" * 10_000_000, "yaml", "bytes"),
        ("--- a\n" * (DOCUMENTS_MAX + 1), "yaml", "documents"),
        ("[" + ",".join("1" * (DOCUMENTS_MAX + 1)) + "]", "json", "documents"),
    ],
    ids=range(12),
)
def test_what_is_too_large_names_its_limit_within_a_second(text: str, form: Form, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(TooLarge) as refused:
        parse(text.encode(), form)
    assert words in refused.value.detail
    assert time.monotonic() - started < 1.0


@given(st.binary(max_size=300) | st.text(alphabet="ab:-[]{},&*!<>|'\"\n ?%#0yesno\t\\u{}", max_size=120).map(str.encode))
def test_any_bytes_are_documents_or_a_clear_error(data: bytes) -> None:
    for form in ("yaml", "json"):
        with contextlib.suppress(TalonError):  # anything else fails the test
            assert parse(data, form)
