"""Resources, their users and their revisions, as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from talon.store.paging import cursor_after, position_of
from talon.store.postgres import resources_sql as sql
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import transpose
from talon.store.resource_apply import User
from talon.store.resources import INHERITED_KINDS, Identity, Ref, Requirement, ResourceRow, RevisionRow
from talon.store.selecting import Candidates, bounds, candidates, cursor_behind, indexed, place_after

_REVISION_LAST = 2**31 - 1


class PostgresResources:
    """The reading part of `Resources`."""

    _db: Database

    async def get_resource(self, namespace: str, kind: str, name: str) -> ResourceRow | None:
        row = await self._db.reads.fetchrow(sql.GET, kind, namespace, name)
        return None if row is None else ResourceRow(*row)

    async def get_resources(self, identities: Sequence[Identity]) -> list[ResourceRow]:
        return await self._db.reads.run(lambda connection: rows_of(connection, identities), again=True)

    async def list_resources(
        self, namespace: str, kind: str, cursor: str, limit: int, selector: Sequence[Requirement] = ()
    ) -> tuple[list[ResourceRow], str]:
        everywhere = namespace == "*"
        after = place_after(namespace, cursor)
        if selector:
            return await self._select(kind, after, limit, selector, everywhere)
        if everywhere:
            found = await self._db.reads.fetch(sql.LIST_EVERYWHERE, kind, *after, limit + 1)
        else:
            found = await self._db.reads.fetch(sql.LIST, kind, *after, limit + 1)
        rows = [ResourceRow(*row) for row in found]
        last = (rows[limit - 1].namespace, rows[limit - 1].name) if len(rows) > limit else None
        return rows[:limit], cursor_behind(last, everywhere=everywhere)

    async def _select(
        self, kind: str, after: tuple[str, str], limit: int, selector: Sequence[Requirement], everywhere: bool
    ) -> tuple[list[ResourceRow], str]:
        most, label = candidates(selector, limit), await self._rarest(kind, after, limit, indexed(selector), everywhere)
        arguments = () if label is None else (label.key, label.values[0])
        keys = [one.key for one in selector]
        rows = await self._db.reads.fetch(sql.CANDIDATES[label is not None, everywhere], kind, most, keys, *after, *arguments)
        found = Candidates(rows, selector, limit, most)
        there = {(row.namespace, row.name): row for row in await self.get_resources([(n, kind, name) for n, name in found.page])}
        return [there[place] for place in found.page if place in there], cursor_behind(found.last, everywhere=everywhere)

    async def _rarest(
        self, kind: str, after: tuple[str, str], limit: int, labels: Sequence[Requirement], everywhere: bool
    ) -> Requirement | None:
        """The label that the fewest behind `after` have, of several; None of none."""
        if len(labels) < 2:
            return labels[0] if labels else None
        keys, values, counts = [one.key for one in labels], [one.values[0] for one in labels], [0]
        for bound in bounds(limit):
            counts = [row[0] for row in await self._db.reads.fetch(sql.COUNTED[everywhere], kind, keys, values, *after, bound)]
            if min(counts) < bound:
                break
        return labels[counts.index(min(counts))]

    async def list_all(self, namespace: str, cursor: str, limit: int) -> tuple[list[ResourceRow], str]:
        after = position_of(cursor, str, str) or ("", "")
        rows = [ResourceRow(*row) for row in await self._db.reads.fetch(sql.LIST_ALL, namespace, *after, limit + 1)]
        return rows[:limit], cursor_after(rows[limit - 1].kind, rows[limit - 1].name) if len(rows) > limit else ""

    async def list_children(self, namespace: str, limit: int) -> list[str]:
        return [row[0] for row in await self._db.reads.fetch(sql.CHILDREN, namespace, limit)]

    async def list_deleting(self, limit: int) -> list[ResourceRow]:
        return [ResourceRow(*row) for row in await self._db.pool.fetch(sql.DELETING, limit)]

    async def users(self, namespace: str, ref: Ref, cursor: str, limit: int) -> tuple[list[User], str]:
        after = position_of(cursor, str, str, str) or ("", "", "")
        found = await self._db.reads.run(
            lambda connection: users_of(connection, namespace, ref, tuple(map(str, after)), limit + 1), again=True
        )
        return found[:limit], cursor_after(*found[limit - 1][:3]) if len(found) > limit else ""

    async def refs_of(self, identities: Sequence[Identity]) -> Mapping[Identity, tuple[Ref, ...]]:
        refs: dict[Identity, tuple[Ref, ...]] = {}
        for namespace, kind, name, *to in await self._db.reads.fetch(sql.REFS_OF, paths(identities)):
            refs[namespace, kind, name] = (*refs.get((namespace, kind, name), ()), Ref(*to))
        return refs

    async def list_revisions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[RevisionRow], str]:
        (before,) = position_of(cursor, int) or (_REVISION_LAST,)
        found = await self._db.reads.fetch(sql.LIST_REVISIONS, namespace, agent, min(int(before), _REVISION_LAST), limit + 1)
        rows = [RevisionRow(*row) for row in found]
        return rows[:limit], cursor_after(rows[limit - 1].revision) if len(rows) > limit else ""

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        row = await self._db.reads.fetchrow(sql.GET_REVISION, namespace, agent, revision)
        return None if row is None else RevisionRow(*row)

    async def get_revisions(self, wanted: Sequence[tuple[str, str, int]]) -> list[RevisionRow]:
        if not wanted:
            return []
        return [RevisionRow(*row) for row in await self._db.reads.fetch(sql.GET_REVISIONS, *transpose(wanted, 3))]


async def rows_of(connection: Connection, identities: Iterable[Identity]) -> list[ResourceRow]:
    """Those of `identities` that exist."""
    named = transpose(identities, 3)
    return [ResourceRow(*row) for row in await connection.fetch(sql.GET_MANY, *named)] if named[0] else []


async def users_of(connection: Connection, namespace: str, ref: Ref, after: tuple[str, ...], limit: int) -> list[User]:
    """Users of `ref` behind `after`, at most `limit`."""
    below = ref.kind in INHERITED_KINDS
    found = await connection.fetch(sql.USERS[below], ref.kind, ref.name, namespace, *after, limit)
    return [(row[0], row[1], row[2], row[3]) for row in found]


def paths(identities: Iterable[Identity]) -> list[str]:
    """`namespace/kind/name` of each, as the indexes of labels and refs have it."""
    return ["/".join(identity) for identity in identities]
