"""The namespaces that somebody sees: as many reads as he has grants, not as there are namespaces."""

from __future__ import annotations

from collections.abc import Sequence

from talon.access.roles import Principal
from talon.domain.resources import Requirement
from talon.gateway.api.permits import visible
from talon.store.paging import cursor_after, position_of
from talon.store.protocols import Store
from talon.store.resources import ResourceRow


async def list_visible(
    store: Store, who: Principal, cursor: str, limit: int, selector: Sequence[Requirement] = ()
) -> tuple[list[ResourceRow], str]:
    """-> (a page of the namespaces that `who` sees, by name; the cursor behind it). No cursor names one that he does not see.

    Raises `Invalid("cursor_invalid")`.
    """
    roots = visible(who)
    if roots is None:
        return await store.list_resources("", "Namespace", cursor, limit, selector)
    (after,) = position_of(cursor, str) or ("",)
    found: list[ResourceRow] = []
    for first, beyond in _spans(roots):
        if beyond <= str(after):
            continue
        # The place before `first` is that of no namespace: what follows it begins with `first`.
        place = max(str(after), first[:-1] + chr(ord(first[-1]) - 1) + chr(0x7F))
        while len(found) <= limit:
            rows, more = await store.list_resources("", "Namespace", cursor_after(place), limit + 1 - len(found), selector)
            inside = [row for row in rows if row.name < beyond]
            found += inside
            if len(inside) < len(rows) or not more:
                break
            place = rows[-1].name
    return found[:limit], cursor_after(found[limit - 1].name) if len(found) > limit else ""


def _spans(roots: Sequence[str]) -> list[tuple[str, str]]:
    """The names at and below `roots` as spans [first, beyond) in the order of names: those of `a` are not all together, for `a-b`
    stands between `a` and `a:b`."""
    return sorted(span for root in roots for span in ((root, f"{root}\0"), (f"{root}:", f"{root};")))
