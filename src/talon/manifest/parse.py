"""Bytes to documents: YAML (one or many documents, or a list of them) or JSON, within limits, without surprises.

The YAML is the subset that every reader understands alike: numbers as in JSON, `true` and `false`, `null`; every other plain
scalar is text as it is written (dates, versions, `0123`, `12:30`). What one reader takes for a boolean and another for text
(`yes`, `no`, `on`, `off`) must be quoted. Duplicate keys, tags and merge keys are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, cast

import yaml
from yaml import events as ev

from talon.domain.errors import Malformed, TooLarge
from talon.manifest.document import (
    DEPTH_MAX,
    ERRORS_MAX,
    INTEGER_MAX,
    Complaint,
    Document,
    Path,
    path_text,
    rest,
    shown,
    unusable,
    walk,
)

BYTES_MAX: Final = 4 * 1024 * 1024
DOCUMENTS_MAX: Final = 500
#: How many values there may be, every alias replaced by what it names; 500 agents have about 15,000.
VALUES_MAX: Final = 40_000
#: What their texts may come to, every alias replaced by what it names: characters, and `_VALUE_WEIGHT` for each value.
WEIGHT_MAX: Final = 8 * 1024 * 1024
#: Whoever prunes must not be led to delete what is in the other parts.
_IN_PARTS: Final = "apply them in parts, and without prune: it would delete what is in the other parts"
_VALUE_WEIGHT: Final = WEIGHT_MAX // VALUES_MAX
_JSON_TEXT: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive: it never goes back

Form = Literal["yaml", "json"]
_AMBIGUOUS = frozenset(word for base in ("yes", "no", "on", "off") for word in (base, base.capitalize(), base.upper()))
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
#: The repeated keys of a JSON object, under a key that no JSON can hold, until the walk knows their path.
_REPEATED: Any = object()


def parse(data: bytes, form: Form = "yaml") -> list[Document]:
    """Read `data`. Form `yaml` reads JSON as well (without line numbers). Empty YAML documents are skipped.

    What is wrong inside a document is kept in its `problems`. Raises `Malformed` (not UTF-8, no YAML or JSON, nothing in it) and
    `TooLarge` (bytes, documents, depth, aliases), and nothing else.
    """
    if len(data) > BYTES_MAX:
        raise TooLarge("too_large", f"manifests of {len(data)} bytes; at most {BYTES_MAX} at once: {_IN_PARTS}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed("malformed", f"line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise Malformed("malformed", f"line {line}: a NUL character (U+0000), which cannot be stored; take it out")
    looks_like_json = text.lstrip(" \t\r\n")[:1] in ("{", "[")
    read = _read_json(text, strict=form == "json") if form == "json" or looks_like_json else None
    documents = read if read is not None else _read_yaml(text)
    if not documents:
        raise Malformed("malformed", "no document in it: write at least one, with apiVersion, kind and metadata")
    return documents


def is_text(text: str) -> bool:
    """Whether `text`, written without quotes in YAML, is read as that text."""
    return text not in _WORDS and text not in _AMBIGUOUS and _FLOAT.fullmatch(text) is None


def _read_json(text: str, *, strict: bool) -> list[Document] | None:
    """None if it is no JSON and need not be."""
    _refuse_many(text)
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        if not strict:
            return None
        raise Malformed("malformed", f"line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from None
    except RecursionError:
        raise TooLarge("too_large", f"nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        raise Malformed("malformed", f"no usable JSON: {error}") from None
    return _documents([(data, {}, [])])


def _refuse_many(text: str) -> None:
    """Refuse JSON of too many values before any of them is made. Each but the first stands after a comma or an opening bracket."""
    if _marks(text) > 2 * VALUES_MAX and _marks(_JSON_TEXT.sub("", text)) > 2 * VALUES_MAX:
        raise TooLarge("too_large", f"more than {VALUES_MAX} values at once: {_IN_PARTS}")


def _marks(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _object(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    out: dict[Any, Any] = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        out[_REPEATED] = [key for key, _ in pairs if key in seen or seen.add(key)]
    return out


def _integer(digits: str) -> int:
    """The integer, or one that is refused for its size: Python itself refuses to read thousands of digits."""
    return int(digits) if len(digits) <= 20 else INTEGER_MAX + 1


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


Composed = tuple[Any, dict[Path, int], list[tuple[Path, str]]]  # value, lines, complaints


def _read_yaml(text: str) -> list[Document]:
    composed: list[Composed] = []
    try:
        for one in _Composer(text).documents():
            composed.append(one)
            if len(composed) > DOCUMENTS_MAX:
                raise TooLarge("too_large", f"more than {DOCUMENTS_MAX} documents at once: {_IN_PARTS}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = " ".join(part for part in (error.problem, error.context) if part)
        raise Malformed("malformed", f"document {len(composed) + 1}, {place}no YAML: {what}") from None
    except yaml.YAMLError as error:
        reason = str(shown(" ".join(str(error).split())))
        raise Malformed("malformed", f"document {len(composed) + 1}: no YAML: {reason}") from None
    return _documents(composed)


def _documents(composed: list[Composed]) -> list[Document]:
    """One document per value; a single list is a list of documents."""
    if len(composed) == 1 and isinstance(composed[0][0], list):
        items = cast(list[Any], composed[0][0])
        if len(items) > DOCUMENTS_MAX:
            raise TooLarge("too_large", f"{len(items)} documents at once; at most {DOCUMENTS_MAX}: {_IN_PARTS}")
        _, lines, complaints = composed[0]
        apart: list[Composed] = [(item, {}, []) for item in items]
        for path, line in lines.items():
            if path:
                apart[_item(path)][1][path[1:]] = line
        for path, message in complaints:
            apart[_item(path)][2].append((path[1:], message))
        composed = apart
    documents: list[Document] = []
    values = 0
    for index, one in enumerate(composed, 1):
        if one[0] is not None:
            document, more = _checked(index, *one)
            documents.append(document)
            values += more
            if values > VALUES_MAX:
                raise TooLarge("too_large", f"more than {VALUES_MAX} values at once: {_IN_PARTS}")
    return documents


def _item(path: Path) -> int:
    return path[0] if path and isinstance(path[0], int) else 0


def _checked(index: int, data: Any, lines: dict[Path, int], complaints: list[tuple[Path, str]]) -> tuple[Document, int]:
    """The document with all that is wrong with its values, and how many there are."""
    document = Document(index, data, lines)
    problems: list[Complaint] = [(path, message, None) for path, message in complaints]
    values = 0
    for path, value in walk(data):
        values += 1
        if len(path) > DEPTH_MAX:
            where = path_text(path[:6])
            raise TooLarge("too_large", f"{document.place(path)}: nested deeper than {DEPTH_MAX} levels, below {where}")
        repeated: list[str] = cast(dict[Any, Any], value).pop(_REPEATED, []) if isinstance(value, dict) else []
        problems += [((*path, key), "is given twice; keep one of them", None) for key in repeated]
        if reason := unusable(value):
            problems.append((path, reason, value if isinstance(value, int | float) else None))
        if path and isinstance(path[-1], str) and (reason := unusable(path[-1])):
            problems.append((path, f"its name {reason}", None))
    told = [document.error(*one) for one in problems[:ERRORS_MAX]]
    return Document(index, data, lines, (*told, *rest(document, len(problems) - len(told)))), values


def _line(event: ev.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class _Composer:
    """Builds plain values from YAML events: what PyYAML's own composer does, with limits, lines and no types but JSON's."""

    def __init__(self, text: str) -> None:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[ev.Event] = yaml.parse(text, Loader=loader)
        self._lines: dict[Path, int] = {}
        self._complaints: list[tuple[Path, str]] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._weight = 0

    def documents(self) -> Iterator[Composed]:
        """The documents of the stream, one by one."""
        for event in self._events:
            if isinstance(event, ev.DocumentStartEvent):
                self._lines, self._complaints, self._anchors = {}, [], {}
                value = self._value(next(self._events), ())
                yield value, self._lines, self._complaints

    def _value(self, event: ev.Event, path: Path) -> Any:
        line = _line(event)
        self._lines.setdefault(path, line)
        if len(path) > DEPTH_MAX:
            raise TooLarge("too_large", f"line {line}: nested deeper than {DEPTH_MAX} levels, below {path_text(path[:6])}")
        if isinstance(event, ev.AliasEvent):
            return self._alias(event, path, line)
        before = self._weight
        self._weigh(_VALUE_WEIGHT, path, line)
        if isinstance(event, ev.ScalarEvent):
            self._weigh(len(event.value), path, line)
            value = self._scalar(event, path)
        elif isinstance(event, ev.SequenceStartEvent):
            self._refuse_tag(event.tag, path)
            value = self._sequence(path)
        else:
            self._refuse_tag(getattr(event, "tag", None), path)
            value = self._mapping(path)
        anchor: str | None = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = (value, self._weight - before)
        return value

    def _weigh(self, weight: int, path: Path, line: int) -> None:
        self._weight += weight
        if self._weight > WEIGHT_MAX:
            where = path_text(path) or "its top"
            raise TooLarge(
                "too_large",
                f"line {line}: at {where} the documents, with aliases replaced, outgrow {VALUES_MAX} values or {WEIGHT_MAX} bytes",
            )

    def _alias(self, event: ev.AliasEvent, path: Path, line: int) -> Any:
        if event.anchor not in self._anchors:
            # The name is not shown, nor that of a tag: a value that begins with * or ! and is not quoted may be a password.
            self._complaints.append((path, "is an alias that names nothing before it; quote a text that begins with *"))
            return None
        value, weight = self._anchors[event.anchor]
        self._weigh(weight, path, line)
        return value

    def _sequence(self, path: Path) -> list[Any]:
        out: list[Any] = []
        for event in self._events:
            if isinstance(event, ev.SequenceEndEvent):
                break
            out.append(self._value(event, (*path, len(out))))
        return out

    def _mapping(self, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, ev.MappingEndEvent):
                break
            if not isinstance(event, ev.ScalarEvent):
                self._complaints.append((path, f"line {_line(event)}: a field's name must be plain text"))
                self._value(event, (*path, "?"))
                self._value(next(self._events), (*path, "?"))
                continue
            key = event.value
            at = (*path, key)
            self._weigh(len(key), path, _line(event))
            if key in out:
                first = self._lines.get(at)
                self._complaints.append((at, f"is given twice, in line {first} and line {_line(event)}; keep one of them"))
            elif key == "<<" and event.implicit[0]:
                self._complaints.append((at, "merge keys are not read here; write the fields out"))
            self._lines.setdefault(at, _line(event))
            value = self._value(next(self._events), at)
            out.setdefault(key, value)
        return out

    def _refuse_tag(self, tag: str | None, path: Path) -> None:
        if tag is not None and tag != "!":
            self._complaints.append((path, "has a tag, which is not read here; quote a text that begins with !"))

    def _scalar(self, event: ev.ScalarEvent, path: Path) -> Any:
        text: str = event.value
        if event.tag is not None:
            if event.tag not in _TEXT_TAGS:
                self._refuse_tag(event.tag, path)
            return text
        if not event.implicit[0]:  # quoted or a block
            return text
        if is_text(text):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text in _AMBIGUOUS:
            self._complaints.append(
                (path, f"{text} is a boolean to some YAML readers and text to others: write true, false or {text!r} in quotes")
            )
            return text
        if _INTEGER.fullmatch(text):
            return _integer(text)
        return float(text)
