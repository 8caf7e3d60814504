"""A manifest as it was read: plain JSON values, and where each of them stood, so that every complaint can say where."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from talon.domain.errors import FieldError

Path = tuple[str | int, ...]
Complaint = tuple[Path, str, Any]  # where, what is wrong, the value if it may be shown

#: A manifest nests this deep at most; the deepest one that means something nests eight.
DEPTH_MAX: Final = 32
#: Integers beyond this lose digits in JavaScript and many JSON readers.
INTEGER_MAX: Final = 2**53 - 1
#: At most so many errors of one document are told, and then how many more there are.
ERRORS_MAX: Final = 100
_SHOWN_MAX: Final = 200
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `index` counts from 1; `lines` are known for YAML only; `problems` are what reading it found wrong. `alone`: it
    is the only one that may be there, so that no complaint counts documents."""

    index: int
    data: Any = field(repr=False)  # may hold a Secret's value
    lines: Mapping[Path, int] = field(default_factory=dict[Path, int])
    problems: tuple[FieldError, ...] = ()
    alone: bool = False

    def by_itself(self) -> Document:
        """The same document as the only one."""
        problems = tuple(
            replace(one, message=one.message.removeprefix(f"document {self.index}").removeprefix(": ").removeprefix(", "))
            for one in self.problems
        )
        return replace(self, problems=problems, alone=True)

    def error(self, path: Path, message: str, value: Any = None) -> FieldError:
        """A complaint about `path`; the message starts with its place.

        `value` is shown to the user and in logs: leave it out where it could be a secret.
        """
        return FieldError(path_text(path), self.said(path, message), shown(value))

    def said(self, path: Path, message: str) -> str:
        """`message` behind the place of `path`."""
        place = self.place(path)
        return f"{place}: {message}" if place else message

    def place(self, path: Path = ()) -> str:
        """`document 2, line 14`: the line of the nearest thing around `path` whose line is known. Of one that is alone just the
        line, or nothing."""
        which = "" if self.alone else f"document {self.index}"
        line = next((known for end in range(len(path), -1, -1) if (known := self.lines.get(path[:end])) is not None), None)
        return which if line is None else f"{which}, line {line}" if which else f"line {line}"


def path_text(path: Path) -> str:
    """`definition.modelPolicy.profiles[0].name`; a key that is no plain word stands in brackets and quotes."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        elif len(part) <= _SHOWN_MAX and _PLAIN_KEY.fullmatch(part):
            out += f".{part}" if out else part
        else:
            out += f'["{shown(part)!s}"]'
    return out


def shown(value: Any) -> Any:
    """`value` made safe to print: long text is cut, control characters are escaped, containers are only named."""
    if isinstance(value, str):
        text = value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
        return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(value)} characters)"
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= INTEGER_MAX else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else type(value).__name__  # pyright: ignore[reportUnknownArgumentType]


def rest(document: Document, more: int) -> list[FieldError]:
    """The error that stands for `more` others of a document, or nothing for none."""
    return [document.error((), f"and {more} more errors in this document")] if more > 0 else []


def walk(data: Any) -> Iterator[tuple[Path, Any]]:
    """Every value in `data` with its path, a container before what is in it. Goes one level below `DEPTH_MAX`, no further."""
    stack: list[tuple[Path, Any]] = [((), data)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if len(path) > DEPTH_MAX:
            continue
        if isinstance(value, dict):
            stack.extend(((*path, key), item) for key, item in reversed(cast(dict[str, Any], value).items()))
        elif isinstance(value, list):
            stack.extend(((*path, at), item) for at, item in reversed(list(enumerate(cast(list[Any], value)))))


def unusable(value: Any) -> str:
    """Why `value` cannot be stored, or nothing: NUL, half a surrogate pair, a number that not every reader can hold."""
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character (U+0000), which cannot be stored; take it out"
        if not value.isascii() and value.encode("utf-8", "replace") != value.encode("utf-8", "surrogatepass"):
            return "holds half a surrogate pair, which is no character; take it out"
    elif isinstance(value, float) and not math.isfinite(value):
        return "is no finite number"
    elif isinstance(value, int) and abs(value) > INTEGER_MAX:
        return f"is beyond ±{INTEGER_MAX}, where many readers lose digits; write it as text in quotes"
    return ""
