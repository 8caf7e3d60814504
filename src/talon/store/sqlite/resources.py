"""Resources on SQLite, their users and their revisions, as they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from talon.store.paging import cursor_after, position_of
from talon.store.resource_apply import User
from talon.store.resources import INHERITED_KINDS, Identity, Ref, Requirement, ResourceRow, RevisionRow
from talon.store.selecting import Candidates, bounds, candidates, cursor_behind, indexed, place_after
from talon.store.sqlite import resources_sql as sql
from talon.store.sqlite.connection import Database

_LAST = 2**63 - 1


class ResourcesPart:
    """The reading part of `talon.store.resources.Resources`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get_resource(self, namespace: str, kind: str, name: str) -> ResourceRow | None:
        return await self._db.read(lambda connection: resource(connection, (namespace, kind, name)))

    async def get_resources(self, identities: Sequence[Identity]) -> list[ResourceRow]:
        def read(connection: sqlite3.Connection) -> list[ResourceRow]:
            found = (resource(connection, identity) for identity in dict.fromkeys(identities))
            return [row for row in found if row is not None]

        return await self._db.read(read)

    async def list_resources(
        self, namespace: str, kind: str, cursor: str, limit: int, selector: Sequence[Requirement] = ()
    ) -> tuple[list[ResourceRow], str]:
        everywhere = namespace == "*"
        after = place_after(namespace, cursor)
        if selector:
            return await self._db.read(lambda connection: _select(connection, kind, after, limit, selector, everywhere))
        found = await self._rows(sql.LIST_EVERYWHERE if everywhere else sql.LIST, (kind, *after, limit + 1))
        rows = [ResourceRow(*row) for row in found[:limit]]
        last = (rows[-1].namespace, rows[-1].name) if len(found) > limit else None
        return rows, cursor_behind(last, everywhere=everywhere)

    async def list_all(self, namespace: str, cursor: str, limit: int) -> tuple[list[ResourceRow], str]:
        after = position_of(cursor, str, str) or ("", "")
        found = await self._rows(sql.LIST_ALL, (namespace, *after, limit + 1))
        rows = [ResourceRow(*row) for row in found[:limit]]
        return rows, cursor_after(rows[-1].kind, rows[-1].name) if len(found) > limit else ""

    async def list_children(self, namespace: str, limit: int) -> list[str]:
        return [row[0] for row in await self._rows(sql.CHILDREN, (namespace, limit))]

    async def list_deleting(self, limit: int) -> list[ResourceRow]:
        found = [row for kind in ("Namespace", "Agent") for row in await self._rows(sql.DELETING, (kind, limit))]
        rows = [ResourceRow(*row) for row in found]
        return sorted(rows, key=lambda row: row.deleting_at_ms or 0)[:limit]

    async def users(self, namespace: str, ref: Ref, cursor: str, limit: int) -> tuple[list[User], str]:
        first, kind, name = map(str, position_of(cursor, str, str, str) or ("", "", ""))
        found = await self._db.read(lambda connection: users_of(connection, namespace, ref, (first, kind, name), limit + 1))
        return found[:limit], cursor_after(*found[limit - 1][:3]) if len(found) > limit else ""

    async def refs_of(self, identities: Sequence[Identity]) -> Mapping[Identity, tuple[Ref, ...]]:
        def read(connection: sqlite3.Connection) -> dict[Identity, tuple[Ref, ...]]:
            found = {one: tuple(Ref(*row) for row in connection.execute(sql.REFS_OF, one)) for one in identities}
            return {one: refs for one, refs in found.items() if refs}

        return await self._db.read(read)

    async def list_revisions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[RevisionRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        found = await self._rows(sql.LIST_REVISIONS, (namespace, agent, before, limit + 1))
        rows = [RevisionRow(*row) for row in found[:limit]]
        return rows, cursor_after(rows[-1].revision) if len(found) > limit else ""

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        rows = await self._rows(sql.GET_REVISION, (namespace, agent, revision))
        return RevisionRow(*rows[0]) if rows else None

    async def get_revisions(self, wanted: Sequence[tuple[str, str, int]]) -> list[RevisionRow]:
        def read(connection: sqlite3.Connection) -> list[RevisionRow]:
            found = (connection.execute(sql.GET_REVISION, one).fetchone() for one in wanted)
            return [RevisionRow(*row) for row in found if row is not None]

        return await self._db.read(read)

    async def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._db.read(lambda connection: connection.execute(statement, parameters).fetchall())


def resource(connection: sqlite3.Connection, identity: Identity) -> ResourceRow | None:
    """One resource, or None."""
    row = connection.execute(sql.GET, identity).fetchone()
    return None if row is None else ResourceRow(*row)


def labels_of(connection: sqlite3.Connection, identity: Identity) -> dict[str, str]:
    """The labels of one resource."""
    return dict(connection.execute(sql.LABELS_OF, identity))


def users_of(connection: sqlite3.Connection, namespace: str, ref: Ref, after: tuple[str, str, str], limit: int) -> list[User]:
    """Users of `ref` behind `after`, at most `limit`."""
    found: list[User] = []
    if after[0] <= namespace:
        found += connection.execute(sql.USERS, (ref.kind, ref.name, namespace, *after[1:], limit))
    if ref.kind in INHERITED_KINDS and len(found) < limit:
        start = max(after, (f"{namespace}:", "", ""))
        found += connection.execute(sql.USERS_BELOW, (ref.kind, ref.name, *start, f"{namespace};", limit - len(found)))
    return found


def _rarest(
    connection: sqlite3.Connection, kind: str, after: tuple[str, str], limit: int, labels: Sequence[Requirement], everywhere: bool
) -> Requirement | None:
    """The label that the fewest behind `after` have, of several; None of none."""
    if len(labels) < 2:
        return labels[0] if labels else None
    statement, counts = sql.LABELLED_EVERYWHERE if everywhere else sql.LABELLED, [0]
    for bound in bounds(limit):
        found = (connection.execute(statement, (kind, one.key, one.values[0], *after, bound)) for one in labels)
        counts = [len(rows.fetchall()) for rows in found]
        if min(counts) < bound:
            break
    return labels[counts.index(min(counts))]


def _select(
    connection: sqlite3.Connection,
    kind: str,
    after: tuple[str, str],
    limit: int,
    selector: Sequence[Requirement],
    everywhere: bool,
) -> tuple[list[ResourceRow], str]:
    most, label = candidates(selector, limit), _rarest(connection, kind, after, limit, indexed(selector), everywhere)
    if label is None:
        statement, arguments = (sql.FOUND_EVERYWHERE if everywhere else sql.FOUND), (kind, *after, most)
    else:
        statement = sql.LABELLED_EVERYWHERE if everywhere else sql.LABELLED
        arguments = (kind, label.key, label.values[0], *after, most)
    rows: list[tuple[str, str, str | None, str | None]] = []
    for namespace, name in connection.execute(statement, arguments).fetchall():
        labels = labels_of(connection, (namespace, kind, name))
        rows += [(namespace, name, key, value) for key, value in labels.items()] or [(namespace, name, None, None)]
    found = Candidates(rows, selector, limit, most)
    there = [resource(connection, (namespace, kind, name)) for namespace, name in found.page]
    return [row for row in there if row is not None], cursor_behind(found.last, everywhere=everywhere)
