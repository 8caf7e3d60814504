"""Manifests between HTTP and the store: what a plan needs is read, what it decides is written, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from talon.domain.entries import NewEntry
from talon.domain.errors import Conflict
from talon.domain.ids import Ids
from talon.manifest import catalogue
from talon.manifest.effective import Effective, decode
from talon.manifest.plan import plan_apply, plan_follow
from talon.manifest.read import Identity, Reading
from talon.manifest.resolve import load, template_of
from talon.manifest.state import ApplyPlan, PlannedSession, Put, State, Stored, Touched, touched
from talon.store.model import NewSession
from talon.store.paging import BLOB_MIN_BYTES
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource, ResourceRow, RevisionRow

#: Others may write at the same time; each time everything is read and decided again.
ATTEMPTS_MAX = 8
_PAGE = 500


class Resources:
    """Resources of one store, planned and applied. Remembers immutable revisions, at most `revisions_max` of them."""

    def __init__(self, store: Store, ids: Ids, revisions_max: int = 512) -> None:
        self._store, self._ids = store, ids
        self._revisions: dict[tuple[str, str, int], RevisionRow] = {}
        self._revisions_max = revisions_max

    async def plan(self, reading: Reading) -> ApplyPlan:
        """What an apply would do now. Raises `Invalid` with every error of every document."""
        return plan_apply(reading, await self._state(touched(reading.manifests)))

    async def apply(self, reading: Reading, check: Callable[[ApplyPlan], None] = lambda _: None) -> ApplyPlan:
        """Write what the plan says; -> the plan that was written. `check` may refuse a plan by raising.

        Raises `Invalid`, or `Conflict` if others kept changing the same resources.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            plan = await self.plan(reading)
            check(plan)
            if plan.empty:
                return plan
            try:
                await self._store.change(await self._changes(plan))
            except Conflict:
                if attempt == ATTEMPTS_MAX:
                    raise
                continue
            await self._follow(touched(reading.manifests))
            return plan
        raise AssertionError("the last attempt returns or raises")

    async def _follow(self, wanted: Touched) -> None:
        """Agents follow their templates: of two who applied one of each at the same moment, the later one sees both here."""
        for _ in range(ATTEMPTS_MAX):
            puts = plan_follow(await self._state(wanted))
            if not puts:
                return
            try:
                await self._store.change(Changes(puts=tuple(self._put(one) for one in puts)))
            except Conflict:
                continue

    async def revision(self, row: ResourceRow) -> RevisionRow | None:
        """The newest revision of an agent; None if the row has none."""
        key = (row.namespace, row.name, row.revision)
        known = self._revisions.get(key)
        if known is None:
            known = await self._store.get_revision(*key) if row.revision else None
            if known is None:
                return None
            if len(self._revisions) >= self._revisions_max:
                self._revisions.clear()
            self._revisions[key] = known
        return known

    async def agents_from(self, namespace: str, template: str) -> list[str]:
        """The names of the agents that are made from a template."""
        agents = [(row.name, load(row.body)) for row in await self._agents_of(namespace)]
        return [name for name, model in agents if model.kind == "Agent" and template_of(model) == template]

    async def served(self) -> catalogue.Catalogue | None:
        """What the live workers serve; None if there is none."""
        return catalogue.merge(worker.catalogue for worker in await self._store.workers())

    # --- what a plan starts from ----------------------------------------------------------------------------------------------

    async def _state(self, wanted: Touched) -> State:
        rows: dict[Identity, ResourceRow] = {}
        for namespace in wanted.dependents:
            for row in await self._agents_of(namespace):
                rows[row.namespace, row.kind, row.name] = row
        for namespace, kind, name in wanted.resources:
            if (namespace, kind, name) not in rows:
                row = await self._store.get_resource(namespace, kind, name)
                if row is not None:
                    rows[namespace, kind, name] = row
        sessions = {where: row for where in wanted.sessions if (row := await self._store.get_session(where)) is not None}
        stored = {identity: await self._stored(row) for identity, row in rows.items()}
        return State(stored, sessions, await self.served())

    async def _agents_of(self, namespace: str) -> list[ResourceRow]:
        found, cursor = await self._store.list_resources(namespace, "Agent", "", _PAGE)
        while cursor:
            more, cursor = await self._store.list_resources(namespace, "Agent", cursor, _PAGE)
            found += more
        return found

    async def _stored(self, row: ResourceRow) -> Stored:
        revision = await self.revision(row)
        effective: Effective | None = decode(revision.effective) if revision else None
        digest = revision.digest if revision else ""
        return Stored(row.namespace, row.kind, row.name, row.uid, row.generation, row.body, effective, digest)

    # --- what it comes to -----------------------------------------------------------------------------------------------------

    async def _changes(self, plan: ApplyPlan) -> Changes:
        sessions = [await self._new_session(one) for one in plan.sessions]
        return Changes(puts=tuple(self._put(one) for one in plan.puts), sessions=tuple(sessions))

    def _put(self, put: Put) -> PutResource:
        return PutResource(
            namespace=put.namespace,
            kind=put.kind,
            name=put.name,
            uid=put.uid or self._ids.uuid7(),
            if_generation=put.if_generation,
            body=put.body,
            effective=put.effective,
            digest=put.digest,
            cause=put.cause,
        )

    async def _new_session(self, session: PlannedSession) -> NewSession:
        return NewSession(
            uid=self._ids.uuid7(),
            namespace=session.namespace,
            agent=session.agent,
            id=session.id,
            metadata=session.metadata,
            features=session.features,
            profile=session.profile,
            history=await self._spilled(session.namespace, session.history),
        )

    async def _spilled(self, namespace: str, entries: Sequence[NewEntry]) -> tuple[NewEntry, ...]:
        """The entries, large payloads put into blobs first (kernel §4). A blob that nothing comes to name is collected later."""
        out: list[NewEntry] = []
        for entry in entries:
            if len(entry.payload) > BLOB_MIN_BYTES:
                digest = await self._store.put_blob(namespace, entry.payload)
                entry = msgspec.structs.replace(entry, payload=b"", blob=digest)
            out.append(entry)
        return tuple(out)
