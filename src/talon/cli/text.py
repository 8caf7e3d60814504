"""Words for people: the nearest known word, text that cannot drive a terminal, colours where they are wanted."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO, cast

#: C0 and C1 control characters but tab and newline, and the characters that reverse the direction of text.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def counted(number: int, what: str) -> str:
    """`1 value`, `2 values`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def safe(text: str) -> str:
    """`text` without what could move the cursor, colour or rename the terminal: a model's or a tool's words are not trusted."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def escaped(text: str) -> str:
    """JSON or YAML `text` with the same characters as escapes: there they stand only inside quotes."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str, width: int = 0) -> str:
    """`safe` on one line; cut to `width` columns with `…` if given."""
    flat = " ".join(safe(text).split())
    if not width or columns(flat) <= width:
        return flat
    cut = flat[:width]
    while columns(cut) > width - 1:
        cut = cut[:-1]
    return cut + "…"


def columns(text: str) -> int:
    """How many columns a terminal needs for it: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style if `stream` (default stdout) is a terminal and NO_COLOR is not set."""
    stream = cast(TextIO, sys.stdout) if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
