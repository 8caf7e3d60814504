"""Resources of a collection: where they are, and listing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from talon.access.roles import Principal
from talon.domain.errors import FieldError, Invalid
from talon.domain.resources import Requirement
from talon.gateway.api.collections import NAMESPACES, Collection
from talon.gateway.api.lookup import require_namespace, require_open
from talon.gateway.api.namespaces import list_visible
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

_VERSION_DIGITS_MAX = 18


class Listed(NamedTuple):
    """A page: rows, the cursor behind them ("" at the end), and the version from which a watch of what is listed goes on, the same
    on all pages of a list."""

    rows: Sequence[ResourceRow]
    cursor: str
    version: int


async def place_of(store: Store, collection: Collection, namespace: str, *, to_write: bool = False) -> str:
    """The namespace that holds `collection` there, which must exist, and `to_write` must not be ending; "" for namespaces
    themselves. Raises `NotFound`, `Conflict("terminating")`."""
    if collection is NAMESPACES:
        return ""
    await (require_open if to_write else require_namespace)(store, namespace)
    return namespace


async def list_resources(
    store: Store, collection: Collection, namespace: str, who: Principal, selector: Sequence[Requirement], cursor: str, limit: int
) -> Listed:
    """A page of a collection; of namespaces those that `who` sees. Raises `Invalid("cursor_invalid")`."""
    version, inner = await _from(store, namespace, cursor)
    if collection is NAMESPACES:
        rows, behind = await list_visible(store, who, inner, limit, selector)
    else:
        rows, behind = await store.list_resources(namespace, collection.kind, inner, limit, selector)
    return Listed(rows, f"{version}.{behind}" if behind else "", version)


async def _from(store: Store, namespace: str, cursor: str) -> tuple[int, str]:
    """-> (the version that all pages of this list name, the store's cursor). The version is read before the first row is: what
    changes while pages are read is told again by a watch from there."""
    version, dot, inner = cursor.partition(".")
    if cursor and not (dot and version.isascii() and version.isdecimal() and len(version) <= _VERSION_DIGITS_MAX):
        raise _bad_cursor(cursor)
    if cursor:
        return int(version), inner
    return (await store.versions([namespace])).get(namespace, 0), ""


def _bad_cursor(cursor: str) -> Invalid:
    shown = cursor if len(cursor) <= 80 else cursor[:77] + "..."
    field = FieldError("cursor", "not a cursor of this list", shown)
    return Invalid("cursor_invalid", f"the cursor {shown!r} is not one that this list gave; start without a cursor", (field,))
