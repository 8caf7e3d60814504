"""Resources as the API shows them: who one is, and the part of it that people write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from talon.cli.kinds import Item

#: What Talon writes into metadata.
STAMPS = frozenset({"uid", "generation", "resourceVersion", "createdAt", "updatedAt", "deletingAt"})


def label(item: Item) -> str:
    """`Agent acme/customer-support`."""
    metadata: dict[str, Any] = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{item['kind']} {namespace + '/' if namespace else ''}{metadata['name']}"


def writable(item: Item) -> Item:
    """The manifest without status and without what Talon writes into metadata."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in STAMPS}
    return {key: metadata if key == "metadata" else value for key, value in item.items() if key != "status"}


def changed(item: Item, changes: Sequence[Mapping[str, Any]]) -> Item:
    """The manifest after the field changes that an apply tells of (`{field, before, after}`)."""
    after = deepcopy(item)
    gone: list[tuple[str | int, ...]] = []
    for change in changes:
        path = path_of_field(str(change["field"]))
        if "after" in change:
            _put(after, path, change["after"])
        else:
            gone.append(path)
    for path in reversed(gone):  # of a list the last first, so that the others keep their places
        _take(after, path)
    return after


def path_of_field(field: str) -> tuple[str | int, ...]:
    """`spec.list[0]["a.b"]` as its parts."""
    parts: list[str | int] = []
    for name, index, quoted in _PART.findall(field):
        parts.append(int(index) if index else quoted or name)
    return tuple(parts)


_PART = re.compile(r'\.?([A-Za-z0-9_-]+)|\[(\d+)\]|\["(.*?)"\]')


def _put(item: Any, path: Sequence[str | int], value: Any) -> None:
    for part, following in pairwise(path):
        if isinstance(part, str) and part not in item:
            item[part] = [] if isinstance(following, int) else {}
        item = item[part]
    last = path[-1]
    if isinstance(last, int) and last >= len(item):
        item.append(value)
    else:
        item[last] = value


def _take(item: Any, path: Sequence[str | int]) -> None:
    for part in path[:-1]:
        item = item[part]
    del item[path[-1]]
