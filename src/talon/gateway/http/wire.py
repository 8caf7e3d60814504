"""What goes over HTTP: pages and JSON bytes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Query
from starlette.responses import Response

#: What the setting gateway.page_max may be at most; the front of all lists refuses what is above the setting.
LIMIT_MAX = 1000
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many items at most.")]
Cursor = Annotated[str, Query(description="`next_cursor` of the page before; empty starts.")]


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` (a msgspec Struct, or what JSON knows) as a JSON response."""
    return Response(msgspec.json.encode(value), status_code=status, headers=headers, media_type="application/json")


def page(items: list[Any], cursor: str, version: str | None = None) -> Response:
    """A list's page: `{items, next_cursor}`; `next_cursor` is null at the end. `version` is that from which a watch of what is
    listed goes on, where it can be watched."""
    body: dict[str, Any] = {"items": items, "next_cursor": cursor or None}
    return reply(body if version is None else {**body, "resource_version": version})
