"""Deleting resources: who uses them, what goes with them, and what can only be marked and goes later (decision 0008)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from talon.domain.errors import Conflict, FieldError
from talon.domain.resources import INHERITED_KINDS, Identity, Ref, candidates
from talon.gateway.resources import ATTEMPTS_MAX
from talon.manifest.state import is_default
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, PutResource, ResourceRow, SameUsers, Unchanged

User = tuple[str, str, str, int]  # namespace, kind, name, generation
#: How many resources one request deletes at most: what goes with a resource goes in one transaction.
CASCADE_MAX = 1_000
#: How many users a refusal names.
USERS_SHOWN_MAX = 20
#: One more tells whether there are others.
_ASKED = USERS_SHOWN_MAX + 1
_PAGE = 500


@dataclass(slots=True)
class Deletion:
    """What one deletion comes to. `removed` are gone in its transaction, `marked` (agents with sessions, namespaces that hold
    something) go later. The guards keep what was looked at from changing meanwhile."""

    removed: list[ResourceRow] = field(default_factory=list[ResourceRow])
    marked: list[ResourceRow] = field(default_factory=list[ResourceRow])
    same_users: list[SameUsers] = field(default_factory=list[SameUsers])
    unchanged: list[Unchanged] = field(default_factory=list[Unchanged])

    @property
    def changes(self) -> Changes:
        """As the store takes it."""
        return Changes(
            puts=tuple(mark(row) for row in self.marked if row.deleting_at_ms is None),
            deletes=tuple(DeleteResource(row.namespace, row.kind, row.name, row.generation) for row in self.removed),
            unchanged=tuple(self.unchanged),
            same_users=tuple(self.same_users),
        )


def mark(row: ResourceRow) -> PutResource:
    """Say of a row that it is being deleted, and nothing else."""
    return PutResource(row.namespace, row.kind, row.name, row.uid, row.generation, None, deleting=True)


def identity(row: ResourceRow) -> Identity:
    """Who a row is."""
    return row.namespace, row.kind, row.name


class Deletions:
    """Deletes resources of one store; `changed` is told the namespaces that were written to."""

    def __init__(self, store: Store, changed: Callable[[Sequence[str]], None]) -> None:
        self._store, self._changed = store, changed

    async def delete(
        self, find: Callable[[], Awaitable[Sequence[ResourceRow]]], check: Callable[[ResourceRow], None], *, cascade: bool
    ) -> Deletion:
        """Delete what `find` finds and `check` does not refuse; with `cascade` its users too, all in one transaction.

        Both are asked again when others changed something meanwhile. One that is being deleted already stays `marked`.
        Raises what they raise, `Conflict("in_use")` with the users, `Conflict("conflict")` if others never stop.
        """
        for attempt in itertools.count(1):
            try:
                rows = await find()
                for row in rows:
                    check(row)
                deletion = await self.plan(rows, cascade=cascade)
                changes = deletion.changes
                if changes.empty:
                    return deletion
                written = await self._store.change(changes)
            except Conflict as refused:
                # What the store finds in use is looked at again, so that its users can be named.
                if attempt == ATTEMPTS_MAX or (refused.code == "in_use" and refused.errors):
                    raise
                continue
            now = {identity(row): row for row in written}
            deletion.marked = [now.get(identity(row), row) for row in deletion.marked]
            self._changed(sorted({row.namespace for row in (*deletion.removed, *deletion.marked)}))
            return deletion
        raise AssertionError("the last attempt returns or raises")

    async def plan(
        self, rows: Sequence[ResourceRow], *, cascade: bool, applied: Mapping[Identity, Sequence[Ref]] | None = None
    ) -> Deletion:
        """What deleting `rows` at once comes to now. `applied` are what is written in the same transaction, and what it refers to
        from then on. Raises `Conflict`."""
        deletion = Deletion()
        going = {identity(row): row for row in rows}
        queue = deque(row for row in rows if row.deleting_at_ms is None)
        deletion.marked += [row for row in rows if row.deleting_at_ms is not None]
        refused: list[tuple[ResourceRow, FieldError]] = []
        while queue:
            row = queue.popleft()
            if row.kind == "Namespace":
                users, more = await self._within(row), await self._children(row)
                waits = bool(users)
            else:
                found = [user for user in await self._users(row, deletion) if user[:3] not in going]
                if applied:
                    found = [user for user in found if user[:3] not in applied] + _will_use(row, applied)
                users = _named(row, found)
                more = await self._rows(found) if cascade else []
                sessions = await self._sessions(row)
                users, waits = users + sessions, bool(sessions)
            if users and not cascade:
                refused += [(row, user) for user in users]
                continue
            fresh = [one for one in more if identity(one) not in going]
            going |= {identity(one): one for one in fresh}
            if len(going) > CASCADE_MAX:
                raise _too_many(row)
            queue.extend(one for one in fresh if one.deleting_at_ms is None)
            (deletion.marked if waits else deletion.removed).append(row)
        if refused:
            raise _in_use(refused)
        return deletion

    async def users(self, row: ResourceRow, cursor: str, limit: int) -> tuple[list[User], str]:
        """A page of those that refer to `row`. A page may be empty though others follow."""
        ref = Ref(row.kind, row.name)
        found, after = await self._store.users(row.namespace, ref, cursor, limit)
        meant, _ = await self._meant(row, found)
        return meant, after

    async def _users(self, row: ResourceRow, deletion: Deletion) -> list[User]:
        """All of them; that they stay these is guarded."""
        ref = Ref(row.kind, row.name)
        found, cursor = await self._store.users(row.namespace, ref, "", _PAGE)
        while cursor:
            if len(found) > CASCADE_MAX:
                raise _too_many(row)
            more, cursor = await self._store.users(row.namespace, ref, cursor, _PAGE)
            found += more
        meant, nearer = await self._meant(row, found)
        deletion.same_users.append(SameUsers(row.namespace, ref, tuple(found)))
        deletion.unchanged += nearer
        return meant

    async def _meant(self, row: ResourceRow, users: Sequence[User]) -> tuple[list[User], list[Unchanged]]:
        """Those of `users` that mean `row` and not one of the same name that is nearer to them, and guards for these."""
        if row.kind not in INHERITED_KINDS:
            return list(users), []
        nearer: dict[str, list[Identity]] = {}
        for namespace in {user[0] for user in users if user[0] != row.namespace}:
            places = candidates(namespace, Ref(row.kind, row.name))
            nearer[namespace] = list(itertools.takewhile(lambda place: place[0] != row.namespace, places))
        wanted = sorted({place for places in nearer.values() for place in places})
        there = {identity(one): one for one in await self._store.get_resources(wanted)} if wanted else {}
        meant = [user for user in users if not any(place in there for place in nearer.get(user[0], ()))]
        return meant, [Unchanged(*identity(one), one.generation) for one in there.values() if one.deleting_at_ms is None]

    async def _rows(self, users: Sequence[User]) -> list[ResourceRow]:
        rows: list[ResourceRow] = []
        for start in range(0, len(users), _PAGE):
            rows += await self._store.get_resources([user[:3] for user in users[start : start + _PAGE]])
        if {(*identity(row), row.generation) for row in rows} != set(users):
            raise Conflict("conflict", "what uses it changed in the meantime; try again")
        return rows

    async def _sessions(self, row: ResourceRow) -> list[FieldError]:
        """Some of an agent's living sessions."""
        if row.kind != "Agent":
            return []
        sessions, _ = await self._store.list_sessions(row.namespace, row.name, "", _ASKED)
        return [FieldError(f"Session/{one.agent}/{one.id}", f"is a session of it, {one.state}") for one in sessions]

    async def _within(self, row: ResourceRow) -> list[FieldError]:
        """Some of what a namespace holds."""
        if is_default(row.name):
            raise Conflict(
                "in_use",
                "namespace 'default' always exists and cannot be deleted",
                (FieldError("Namespace/default", "always exists"),),
            )
        children = await self._store.list_children(row.name, _ASKED)
        inside = [FieldError(f"Namespace/{name}", "is below it") for name in children]
        rows, _ = await self._store.list_all(row.name, "", _ASKED)
        inside += [FieldError(f"{one.kind}/{one.name}", "is in the namespace") for one in rows]
        sessions, _ = await self._store.list_sessions(row.name, "", "", _ASKED)
        inside += [FieldError(f"Session/{one.agent}/{one.id}", f"is in the namespace, {one.state}") for one in sessions]
        return inside

    async def _children(self, row: ResourceRow) -> list[ResourceRow]:
        names = await self._store.list_children(row.name, CASCADE_MAX + 1)
        return await self._store.get_resources([("", "Namespace", name) for name in names]) if names else []


def _will_use(row: ResourceRow, applied: Mapping[Identity, Sequence[Ref]]) -> list[User]:
    """Those of `applied` that mean `row`."""
    ref = Ref(row.kind, row.name)
    found: list[User] = []
    for who, refs in applied.items():
        if ref in refs:
            places = candidates(who[0], ref)
            nearest = next((place for place in places if place in applied or place == identity(row)), None)
            if nearest == identity(row):
                found.append((*who, 0))
    return found


def _named(row: ResourceRow, users: Sequence[User]) -> list[FieldError]:
    where = [f"{kind}/{name}" if namespace == row.namespace else f"{namespace}/{kind}/{name}" for namespace, kind, name, _ in users]
    return [FieldError(one, f"refers to {row.kind} {row.name}") for one in where]


def _in_use(refused: Sequence[tuple[ResourceRow, FieldError]]) -> Conflict:
    first = refused[0][0]
    shown = [user for _, user in refused[:USERS_SHOWN_MAX]]
    names = ", ".join(user.field for user in shown) + (" and others" if len(refused) > len(shown) else "")
    detail = f"{first.kind} {first.name!r} is in use: {names}; delete or change them first, or delete with cascade=true"
    return Conflict("in_use", detail, tuple(shown))


def _too_many(row: ResourceRow) -> Conflict:
    detail = f"more than {CASCADE_MAX} resources would go with {row.kind} {row.name!r}, the most of one request; delete some first"
    return Conflict("in_use", detail, (FieldError(f"{row.kind}/{row.name}", f"used by more than {CASCADE_MAX}"),))
