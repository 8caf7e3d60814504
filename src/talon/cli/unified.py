"""Unified diffs of texts, coloured on a terminal."""

from __future__ import annotations

from difflib import unified_diff

from talon.cli.text import safe, styled

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def unified(before: str, after: str, name_before: str, name_after: str) -> str:
    """The diff of two texts with line ends, as `diff -u` writes it; "" if there is none."""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), name_before, name_after, lineterm=""))
    return "".join(f"{_line(number, line)}\n" for number, line in enumerate(lines))


def _line(number: int, line: str) -> str:
    text = safe(line)
    style = "bold" if number < 2 else _STYLES.get(line[:1])
    return styled(text, style) if style else text
