"""What a docstring says about a function: its first paragraph, and its `Args:` section in Google's style."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"(Args|Arguments|Parameters):\s*")
_ARGUMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)")


def describe(docstring: str | None) -> tuple[str, dict[str, str]]:
    """-> (first paragraph on one line, parameter -> its description on one line). Nothing said gives empty answers."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    first: list[str] = []
    for line in lines:
        if not line.strip() or _SECTION.fullmatch(line):
            break
        first.append(line.strip())
    return " ".join(first), _arguments(lines)


def _arguments(lines: list[str]) -> dict[str, str]:
    """The `Args:` section: an entry starts at the section's own indentation, deeper lines go on with it."""
    start = next((number for number, line in enumerate(lines) if _SECTION.fullmatch(line)), None)
    if start is None:
        return {}
    found: dict[str, list[str]] = {}
    current = ""
    indent: int | None = None
    for line in lines[start + 1 :]:
        text = line.strip()
        if not text:
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0 and start > 0:  # the next section, or text after the list; below a first line all is outdented
            break
        indent = depth if indent is None else indent
        entry = _ARGUMENT.fullmatch(text) if depth <= indent else None
        if entry:
            current = entry["name"]
            found[current] = [entry["text"]]
        elif current:
            found[current].append(text)
    return {name: " ".join(part for part in parts if part) for name, parts in found.items()}
