"""How texts are written in YAML so that they are read back as texts."""

from __future__ import annotations

from talon.manifest.parse import is_text

#: Line breaks to YAML that are none to most others: a text with one is quoted.
_BREAKS = frozenset("\x85\u2028\u2029\ufeff")


def style_of(text: str) -> str | None:
    """How a text is written: `|` as a block, `"` in quotes, None plain where the dumper finds that it can be."""
    if not _BREAKS.isdisjoint(text) or (not is_text(text) and "\n" not in text):
        return '"'
    return "|" if "\n" in text else None
