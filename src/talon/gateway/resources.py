"""Manifests between HTTP and the store: what a plan needs is read, what it decides is written, all or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from talon.dispatch.schedules.zones import tzdata_version
from talon.domain.entries import NewEntry
from talon.domain.errors import Conflict, Defect, Invalid, NotFound, TooLarge
from talon.domain.ids import Ids
from talon.domain.resources import Identity, Ref
from talon.domain.schedules import encode_plan
from talon.manifest import catalogue, kinds
from talon.manifest.effective import decode
from talon.manifest.occurrences import plan_of
from talon.manifest.plan import plan_apply
from talon.manifest.read import Reading
from talon.manifest.resolve import load
from talon.manifest.state import ApplyPlan, Needs, PlannedSession, Put, Result, State, Stored, User
from talon.manifest.undo import restored, written_out
from talon.store.model import NewSession
from talon.store.paging import BLOB_MIN_BYTES
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource, ResourceRow, RevisionRow, SameUsers, Unchanged
from talon.store.schedules import Fires
from talon.store.sight import looking_up
from talon.vault.protocol import Sealer

#: Others may write at the same time; each time everything is read and decided again.
ATTEMPTS_MAX = 8
#: A plan asks again for what it could not know to ask for before: templates, then their users, then what these name.
ROUNDS_MAX = 8
#: How many agents may follow one template: all of them change in one transaction.
FOLLOWERS_MAX = 10_000
_PAGE = 500


class Pruned(NamedTuple):
    """What is deleted in the same transaction as an apply, and what to tell of it."""

    changes: Changes
    results: tuple[Result, ...]


Check = Callable[[ApplyPlan], None]
Prune = Callable[[ApplyPlan], Awaitable[Pruned]]
Revision = tuple[str, str, int]  # namespace, agent, revision


class Resources:
    """Resources of one store, planned and applied. `changed` is told the namespaces that were written to, `now_ms` tells
    the time, `ahead_ms` is what schedules say of it (`Fires`). Remembers immutable revisions, at most `revisions_max` of them."""

    def __init__(
        self,
        store: Store,
        ids: Ids,
        sealer: Sealer,
        changed: Callable[[Sequence[str]], None] = lambda _: None,
        revisions_max: int = 512,
        now_ms: Callable[[], int] = lambda: 0,
        ahead_ms: int = 0,
    ) -> None:
        self._now_ms, self._ahead_ms = now_ms, ahead_ms
        self._store, self._ids, self._sealer, self._changed = store, ids, sealer, changed
        self._revisions: dict[Revision, RevisionRow] = {}
        self._revisions_max = revisions_max

    async def plan(self, reading: Reading, prune: Prune | None = None) -> ApplyPlan:
        """What an apply would do now; `prune` decides what it would delete. Raises as `apply`."""
        plan, _ = await self._decided(reading, prune)
        return plan

    async def apply(
        self, reading: Reading, check: Check = lambda _: None, prune: Prune | None = None, cause: str = ""
    ) -> ApplyPlan:
        """Write what the plan says; -> the plan that was written. `check` may refuse a plan by raising; `cause` is written into
        the revisions that the manifests themselves make.

        Raises `Invalid` with every error of every document, `Conflict("terminating")`, what `prune` raises, `TooLarge` for a
        template of too many agents, or `Conflict` if others kept changing the same resources.
        """
        for attempt in itertools.count(1):
            plan, pruned = await self._decided(reading, prune)
            check(plan)
            if plan.empty and (pruned is None or pruned.empty):
                return plan
            changes = await self._changes(plan, pruned or Changes(), cause)
            try:
                await self._store.change(changes)
            except Conflict:
                if attempt == ATTEMPTS_MAX:
                    raise
                continue
            self._changed(sorted({one.namespace for one in (*changes.puts, *changes.deletes)}))
            return plan
        raise AssertionError("the last attempt returns or raises")

    async def rollback(self, row: ResourceRow, revision: int | None = None) -> ResourceRow:
        """Bring an agent back to what it was at `revision` (None: the one before the newest); -> its row, at a new revision.

        Its manifest of that time is restored if it comes to the same definition today; otherwise the definition is written out
        into the agent (decision 0008). Raises `NotFound("revision_not_found")`, and as `apply`.
        """
        wanted = row.revision - 1 if revision is None else revision
        target = await self._store.get_revision(row.namespace, row.name, wanted) if 0 < wanted <= row.revision else None
        if target is None:
            what = "nothing to go back to" if revision is None else f"no revision {revision}"
            raise NotFound("revision_not_found", f"agent {row.name!r} in namespace {row.namespace!r} has {what}")

        def same(plan: ApplyPlan) -> None:
            if plan.digests.get((row.namespace, "Agent", row.name)) != target.digest:
                raise _Differs

        cause = f"rolled back to revision {wanted}"
        try:
            await self.apply(restored(target.body), same, cause=cause)
        except (_Differs, Invalid):
            await self.apply(written_out(target.body, decode(target.effective), wanted), cause=cause)
        now = await self._store.get_resource(row.namespace, "Agent", row.name)
        if now is None:
            raise Conflict("conflict", f"agent {row.name!r} was deleted in the meantime")
        return now

    async def revision(self, row: ResourceRow) -> RevisionRow | None:
        """The newest revision of an agent; None if the row has none."""
        return (await self.revisions([row])).get((row.namespace, row.name, row.revision))

    async def revisions(self, rows: Iterable[ResourceRow]) -> Mapping[Revision, RevisionRow]:
        """The newest revisions of agents, by (namespace, agent, revision); no entry for a row that has none."""
        wanted = dict.fromkeys((row.namespace, row.name, row.revision) for row in rows if row.revision)
        found = {key: self._revisions[key] for key in wanted if key in self._revisions}
        missing = [key for key in wanted if key not in found]
        for start in range(0, len(missing), _PAGE):
            for one in await self._store.get_revisions(missing[start : start + _PAGE]):
                found[one.namespace, one.agent, one.revision] = one
        if missing:
            if len(self._revisions) + len(missing) > self._revisions_max:
                self._revisions.clear()
            self._revisions |= dict(itertools.islice(found.items(), self._revisions_max))
        return found

    async def served(self) -> catalogue.Catalogue | None:
        """What the live workers serve; None if there is none."""
        return catalogue.merge(worker.catalogue for worker in await self._store.workers())

    # --- what a plan starts from ----------------------------------------------------------------------------------------------

    async def _decided(self, reading: Reading, prune: Prune | None) -> tuple[ApplyPlan, Changes | None]:
        plan = await self._planned(reading)
        if prune is None:
            return plan, None
        pruned = await prune(plan)
        # What follows something that is applied may be among what is pruned: it goes.
        gone = {(one.namespace, one.kind, one.name) for one in pruned.changes.deletes}
        puts = tuple(put for put in plan.puts if (put.namespace, put.kind, put.name) not in gone)
        results = tuple(one for one in plan.results if (one.namespace, one.kind, one.name) not in gone)
        return msgspec.structs.replace(plan, puts=puts, results=results + pruned.results), pruned.changes

    async def _planned(self, reading: Reading) -> ApplyPlan:
        values = {one.identity: one.secret for one in reading.manifests if one.secret is not None}
        state = State(catalogue=await self.served(), now_ms=self._now_ms())
        for _ in range(ROUNDS_MAX):
            outcome = plan_apply(reading, state)
            if isinstance(outcome, ApplyPlan):
                return outcome
            state = await self._with(state, outcome, values)
        raise Defect("defect", f"a plan still asks after {ROUNDS_MAX} rounds")

    async def _with(self, state: State, needs: Needs, values: Mapping[Identity, str]) -> State:
        """`state` and what `needs` asks for."""
        resources = dict(state.resources) | dict.fromkeys(needs.resources)
        resources |= await self._stored(needs.resources)
        users = {one: await self._users(*one) for one in needs.users}
        sessions = {where: await self._store.get_session(where) for where in needs.sessions}
        same = {one: await self._sealer.same(one[0], one[2], values[one]) for one in needs.values}
        return State(
            resources,
            {**state.users, **users},
            {**state.sessions, **sessions},
            {**state.same_values, **same},
            state.catalogue,
            state.now_ms,
        )

    async def _stored(self, wanted: Sequence[Identity]) -> dict[Identity, Stored]:
        rows: list[ResourceRow] = []
        for start in range(0, len(wanted), _PAGE):
            with looking_up():
                rows += await self._store.get_resources(wanted[start : start + _PAGE])
        revisions = await self.revisions(rows)
        return {(row.namespace, row.kind, row.name): _known(row, revisions) for row in rows}

    async def _users(self, namespace: str, ref: Ref) -> tuple[User, ...]:
        found, cursor = await self._store.users(namespace, ref, "", _PAGE)
        while cursor:
            if len(found) > FOLLOWERS_MAX:
                detail = f"{ref.kind} {ref.name!r} in namespace {namespace!r} has more than {FOLLOWERS_MAX} users, the most that"
                raise TooLarge("too_large", f"{detail} change in one transaction; spread them over several templates")
            more, cursor = await self._store.users(namespace, ref, cursor, _PAGE)
            found += more
        return tuple(found)

    # --- what it comes to -----------------------------------------------------------------------------------------------------

    async def _changes(self, plan: ApplyPlan, pruned: Changes, cause: str) -> Changes:
        puts = [await self._put(one, cause if (one.namespace, one.kind, one.name) in plan.refs else "") for one in plan.puts]
        sessions = [await self._new_session(one) for one in plan.sessions]
        return Changes(
            puts=(*puts, *pruned.puts),
            deletes=pruned.deletes,
            sessions=tuple(sessions),
            unchanged=(*(Unchanged(*one.identity, one.generation) for one in plan.same), *pruned.unchanged),
            same_users=(*(SameUsers(one.namespace, one.ref, one.users) for one in plan.same_users), *pruned.same_users),
        )

    async def _put(self, put: Put, cause: str) -> PutResource:
        uid = put.uid or self._ids.uuid7()
        sealed = None if put.secret is None else await self._sealer.seal(put.namespace, put.name, uid, put.secret)
        return PutResource(
            namespace=put.namespace,
            kind=put.kind,
            name=put.name,
            uid=uid,
            if_generation=put.if_generation,
            body=put.body,
            labels=put.labels,
            refs=put.refs,
            effective=put.effective,
            digest=put.digest,
            cause=cause or put.cause,
            sealed=sealed.sealed if sealed else None,
            key_id=sealed.key_id if sealed else "",
            fires=_fires(put, self._ahead_ms),
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
            config=session.config,
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


class _Differs(Exception):
    """A restored manifest comes to another definition today."""


def _fires(put: Put, ahead_ms: int) -> Fires | None:
    """What a Schedule says to the row beside it."""
    if put.kind != "Schedule" or put.body is None:
        return None
    model = load(put.body)
    if not isinstance(model, kinds.ScheduleDoc):
        raise AssertionError("a body is of its kind")
    return Fires(encode_plan(plan_of(model.spec)), model.spec.enabled, tzdata_version(), ahead_ms)


def _known(row: ResourceRow, revisions: Mapping[Revision, RevisionRow]) -> Stored:
    revision = revisions.get((row.namespace, row.name, row.revision)) if row.kind == "Agent" else None
    return Stored(
        row.namespace,
        row.kind,
        row.name,
        row.uid,
        row.generation,
        row.body,
        decode(revision.effective) if revision else None,
        revision.digest if revision else "",
        row.deleting_at_ms is not None,
    )
