"""Label selectors, the same for both stores: what an index finds of one, and what is looked at while reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from talon.store.paging import cursor_after, position_of
from talon.store.resources import Requirement

#: How many candidates one page of a list looks at, where an index does not tell which match. The page may then be short, or empty,
#: with a cursor.
CANDIDATES_MAX = 2_000


def indexed(selector: Sequence[Requirement]) -> list[Requirement]:
    """The requirements that an index answers: each `in` with one value."""
    return [one for one in selector if one.operator == "in" and len(one.values) == 1]


def bounds(limit: int) -> Iterator[int]:
    """How far to count what several labels are on, until one of them is on fewer: about what a page of `limit` reads anyway at
    first, `CANDIDATES_MAX` at last. Then the rarest one's are the candidates, and reading them costs no more than there are."""
    bound = limit + 1
    while bound < CANDIDATES_MAX:
        yield bound
        bound *= 4
    yield CANDIDATES_MAX


def candidates(selector: Sequence[Requirement], limit: int) -> int:
    """How many candidates to read for a page of `limit`: all match if the index answers the whole selector."""
    return limit + 1 if len(selector) == 1 and indexed(selector) else max(limit + 1, CANDIDATES_MAX)


def meets(labels: Mapping[str, str], selector: Sequence[Requirement]) -> bool:
    """Whether `labels` meet all of `selector`."""
    return all(_meets(labels.get(one.key), one) for one in selector)


class Candidates:
    """A page of `limit` out of at most `most` candidates.

    `rows` are (namespace, name, label key or None, label value) in the list's order, one row for each label that the selector asks
    about. `page` are the places that match. `last` is the place behind which the list goes on, None at its end.
    """

    def __init__(self, rows: Iterable[Iterable[Any]], selector: Sequence[Requirement], limit: int, most: int) -> None:
        found: dict[tuple[str, str], dict[str, str]] = {}
        for namespace, name, key, value in rows:
            labels = found.setdefault((namespace, name), {})
            if key is not None:
                labels[key] = value
        matching = [place for place, labels in found.items() if meets(labels, selector)]
        self.page = matching[:limit]
        self.last: tuple[str, str] | None = None
        if len(matching) > limit:
            self.last = self.page[-1]
        elif len(found) == most:
            self.last = next(reversed(found))


def place_after(namespace: str, cursor: str) -> tuple[str, str]:
    """Where a list of `namespace` ("*": of all) goes on behind `cursor`: (namespace, name)."""
    if namespace == "*":
        after = position_of(cursor, str, str) or ("", "")
        return str(after[0]), str(after[1])
    (name,) = position_of(cursor, str) or ("",)
    return namespace, str(name)


def cursor_behind(place: tuple[str, str] | None, *, everywhere: bool) -> str:
    """The cursor of what follows `place`; "" for None."""
    if place is None:
        return ""
    return cursor_after(*place) if everywhere else cursor_after(place[1])


def _meets(value: str | None, one: Requirement) -> bool:
    if one.operator == "exists":
        return value is not None
    if one.operator == "absent":
        return value is None
    return (value in one.values) == (one.operator == "in")
