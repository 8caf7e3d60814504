"""What goes over HTTP: parameters that are known, pages, JSON bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response
from starlette.types import Scope

from talon.domain.errors import FieldError, Invalid


def only_known(given: Iterable[str], known: Collection[str]) -> None:
    """Raise `Invalid` for query parameters that the route does not read: a misspelt one must not be dropped in silence."""
    unknown = sorted(name for name in given if name not in known)
    if unknown:
        errors = tuple(FieldError(name, "unknown query parameter") for name in unknown)
        words = ", ".join(sorted(known)) or "none"
        raise Invalid("invalid", f"unknown query parameter {unknown[0]!r}; known here: {words}", errors)


def query_of(scope: Scope, *known: str) -> dict[str, str]:
    """The query of a bare route that reads the parameters `known`. Raises `Invalid` for others."""
    if not scope["query_string"]:
        return {}
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    only_known(given, known)
    return given


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` (a msgspec Struct, or what JSON knows) as a JSON response."""
    return Response(msgspec.json.encode(value), status_code=status, headers=headers, media_type="application/json")


def page(items: list[Any], cursor: str, version: str | None = None) -> Response:
    """A list's page: `{items, next_cursor}`; `next_cursor` is null at the end. `version` is that from which a watch of what is
    listed goes on, where it can be watched."""
    body: dict[str, Any] = {"items": items, "next_cursor": cursor or None}
    return reply(body if version is None else {**body, "resource_version": version})
