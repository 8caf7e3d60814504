"""What changed between two manifests, field by field."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from talon.manifest.document import Path, path_text

_ABSENT: Final = object()


class FieldChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field. `before` is unset for a new one, `after` for one that is gone."""

    field: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


def same(before: Any, after: Any) -> bool:
    """Whether two JSON values are the same manifest; the order of fields means nothing, `1` and `1.0` and `true` differ."""
    return msgspec.json.encode(before, order="deterministic") == msgspec.json.encode(after, order="deterministic")


def changes(before: Any, after: Any) -> tuple[FieldChange, ...]:
    """The fields that differ, in the order of `after`, then those that are gone."""
    return tuple(_changes((), before, after))


def _changes(path: Path, before: Any, after: Any) -> list[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast(dict[str, Any], before), cast(dict[str, Any], after)
        keys: list[str | int] = [*new, *(key for key in old if key not in new)]
        return [change for key in keys for change in _changes((*path, key), old.get(str(key), _ABSENT), new.get(str(key), _ABSENT))]
    if isinstance(before, list) and isinstance(after, list):
        olds, news = cast(list[Any], before), cast(list[Any], after)
        out: list[FieldChange] = []
        for at in range(max(len(olds), len(news))):
            out += _changes((*path, at), olds[at] if at < len(olds) else _ABSENT, news[at] if at < len(news) else _ABSENT)
        return out
    if before is _ABSENT:
        return [FieldChange(path_text(path), after=after)]
    if after is _ABSENT:
        return [FieldChange(path_text(path), before=before)]
    return [] if same(before, after) else [FieldChange(path_text(path), before, after)]
