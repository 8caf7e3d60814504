"""`If-Match` and `If-None-Match` (RFC 9110 §13) over a resource's version."""

from __future__ import annotations

import re

from starlette.requests import Request

from talon.domain.errors import FieldError, Invalid, PreconditionFailed
from talon.store.resources import ResourceRow

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST = re.compile(rf"{_TAG.pattern}([ \t]*,[ \t]*{_TAG.pattern})*")


def etag(row: ResourceRow) -> str:
    """`"42"`: the row's version. What Talon computes when it shows a resource (conditions) does not count."""
    return f'"{row.version}"'


class Preconditions:
    """What a request says about the resource that it means. A header that cannot be read raises `Invalid`."""

    def __init__(self, request: Request) -> None:
        self._match = _tags(request, "if-match")
        self._none_match = _tags(request, "if-none-match")

    def check(self, row: ResourceRow | None) -> None:
        """Raise `PreconditionFailed` unless the resource is as the request wants it to be; `row` None: there is none."""
        if self._match is not None and not self._matches(self._match, row, weak=False):
            now = "it does not exist" if row is None else f"it is at {etag(row)} now"
            raise PreconditionFailed("precondition_failed", f"If-Match does not hold: {now}; read it again, then decide again")
        if self._none_match is not None and self._matches(self._none_match, row, weak=True):
            now = "it exists" if row is None else f"it is at {etag(row)}"
            raise PreconditionFailed("precondition_failed", f"If-None-Match does not hold: {now}")

    def unmodified(self, row: ResourceRow) -> bool:
        """Whether a reader knows it as it is (304). Raises `PreconditionFailed` as `check` does for If-Match."""
        if self._match is not None and not self._matches(self._match, row, weak=False):
            raise PreconditionFailed("precondition_failed", f"If-Match does not hold: it is at {etag(row)} now")
        return self._none_match is not None and self._matches(self._none_match, row, weak=True)

    @staticmethod
    def _matches(tags: list[tuple[bool, str]] | None, row: ResourceRow | None, *, weak: bool) -> bool:
        if row is None or tags is None:
            return False
        return not tags or any(tag == str(row.version) and (weak or not is_weak) for is_weak, tag in tags)


def _tags(request: Request, header: str) -> list[tuple[bool, str]] | None:
    """The (weak, tag) pairs of a header; empty for `*`; None if it is not there."""
    values = request.headers.getlist(header)
    if not values:
        return None
    text = ", ".join(values).strip()
    if text == "*":
        return []
    if _LIST.fullmatch(text) is None:
        name = "If-Match" if header == "if-match" else "If-None-Match"
        message = f'must be * or entity tags as this API gives them (ETag: "42"), not {text[:80]!r}'
        raise Invalid("invalid", f"{name} {message}", (FieldError(name, message),))
    return [(part[1] is not None, part[2]) for part in _TAG.finditer(text)]
