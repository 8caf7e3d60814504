"""Two changes of one manifest made into one, where they do not touch the same field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from talon.cli.output import as_json
from talon.cli.text import one_line
from talon.manifest.diff import same
from talon.manifest.document import Path, path_text

_ABSENT: Final[Any] = object()
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Clash:
    """A field that both changed, and what each made of it, in words."""

    field: str
    mine: str
    theirs: str


def merge(base: Any, mine: Any, theirs: Any) -> tuple[Any, list[Clash]]:
    """What `mine` changed of `base`, on top of `theirs`. Where both changed the same field differently, mine is taken and the field
    is named. A list is one field."""
    clashes: list[Clash] = []
    return _merge((), base, mine, theirs, clashes), clashes


def _merge(path: Path, base: Any, mine: Any, theirs: Any, clashes: list[Clash]) -> Any:
    if _same(mine, base):
        return theirs
    if _same(theirs, base) or _same(mine, theirs):
        return mine
    if isinstance(mine, dict) and isinstance(theirs, dict):
        old = cast(dict[str, Any], base) if isinstance(base, dict) else {}
        ours, others = cast(dict[str, Any], mine), cast(dict[str, Any], theirs)
        merged: Any = {}
        for key in [*others, *(key for key in ours if key not in others)]:
            value = _merge((*path, key), old.get(key, _ABSENT), ours.get(key, _ABSENT), others.get(key, _ABSENT), clashes)
            if value is not _ABSENT:
                merged[key] = value
        return merged
    clashes.append(Clash(path_text(path), _said(mine), _said(theirs)))
    return cast(Any, mine)


def _same(one: Any, other: Any) -> bool:
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return same(one, other)


def _said(value: Any) -> str:
    return "absent" if value is _ABSENT else one_line(as_json(value), _SHOWN)
