"""What a change of resources comes to, purely: one meaning for both stores.

A store takes its locks, reads what the change is about, lets `decide` say what becomes of it, and writes that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from talon.domain.errors import Conflict
from talon.domain.resources import lineage
from talon.store.model import NewSession
from talon.store.resources import (
    Changes,
    DeleteResource,
    Identity,
    PutResource,
    ResourceEvent,
    ResourceRow,
    RevisionRow,
    SealedRow,
    Unchanged,
)
from talon.store.schedules import Fires

User = tuple[str, str, str, int]  # namespace, kind, name, generation


class Found(msgspec.Struct, frozen=True):
    """What there is, read after the locks were taken: the rows of `wanted`, the labels of those that are written, of agents with a
    definition the newest revision ever made (number, digest), the namespaces' versions, and the users of each `SameUsers`."""

    rows: Mapping[Identity, ResourceRow]
    labels: Mapping[Identity, Mapping[str, str]]
    newest: Mapping[tuple[str, str], tuple[int, str]]
    versions: Mapping[str, int]
    users: Sequence[Sequence[User]]


class Written(msgspec.Struct, frozen=True):
    """What to write. `answers` are the rows of the puts, `events` what changed in the order of versions, `described` the puts whose
    labels and refs replace the stored ones, `versions` the new counters, `schedules` what is said to the rows beside Schedules."""

    answers: list[ResourceRow]
    events: list[ResourceEvent]
    described: list[PutResource]
    revisions: list[RevisionRow]
    sealed: list[SealedRow]
    versions: dict[str, int]
    schedules: list[tuple[Fires, ResourceRow]]

    @property
    def deleted(self) -> list[ResourceRow]:
        """The rows that go."""
        return [event.row for event in self.events if event.event == "deleted"]

    @property
    def put(self) -> list[ResourceRow]:
        """The rows that are new or changed."""
        return [event.row for event in self.events if event.event != "deleted"]


def identity(what: PutResource | DeleteResource | Unchanged | ResourceRow) -> Identity:
    """Who it is about."""
    return what.namespace, what.kind, what.name


def lives_in(what: PutResource | DeleteResource) -> str:
    """The namespace that must be open to a write: for a Namespace itself, its parent ("" if it has none)."""
    return what.name.rpartition(":")[0] if what.kind == "Namespace" else what.namespace


def wanted(changes: Changes) -> set[Identity]:
    """Whose rows `decide` has to see: of everything that is written or guarded, its namespaces, and the agents of sessions."""
    names = {lives_in(put) for put in changes.puts} | {new.namespace for new in changes.sessions}
    return {
        *map(identity, changes.puts),
        *map(identity, changes.deletes),
        *map(identity, changes.unchanged),
        *(("", "Namespace", name) for given in names if given for name in lineage(given)),
        *((new.namespace, "Agent", new.agent) for new in changes.sessions),
    }


def check(changes: Changes) -> None:
    """Raise `ValueError` for a change that names one resource twice."""
    named = [*map(identity, changes.puts), *map(identity, changes.deletes)]
    if len(named) != len(set(named)):
        raise ValueError("a change puts or deletes one resource twice")


def decide(changes: Changes, found: Found, now: int) -> Written:
    """What `changes` come to at `now`. Raises `Conflict("conflict")` for a guard that fails.

    Not decided here, since it takes the store's sessions: whether what is deleted is still in use, whether a session exists.
    """
    for guard in changes.unchanged:
        row = found.rows.get(identity(guard))
        if (0 if row is None else row.generation) != guard.generation or _is_deleting(row):
            raise changed(guard, guard.generation)
    for same, users in zip(changes.same_users, found.users, strict=True):
        if tuple(users) != same.users:
            raise Conflict(
                "conflict", f"what uses {same.ref.kind} {same.ref.name!r} changed in the meantime; read it and try again"
            )
    _check_places(changes, found)
    written = Written([], [], [], [], [], {}, [])
    for put in changes.puts:
        _put(written, put, found, now)
    for gone in changes.deletes:
        row = found.rows.get(identity(gone))
        if row is None or row.generation != gone.if_generation:
            raise changed(gone, gone.if_generation)
        last = msgspec.structs.replace(row, version=_next_version(written, gone.namespace, found))
        written.events.append(ResourceEvent("deleted", last, found.labels.get(identity(gone), {})))
    return written


def changed(what: PutResource | DeleteResource | Unchanged, generation: int) -> Conflict:
    """The answer to a guard that fails."""
    named = f"{what.kind} {what.name!r}" + (f" in namespace {what.namespace!r}" if what.namespace else "")
    was = f"is not at generation {generation} any more" if generation else "exists already"
    return Conflict("conflict", f"{named} {was}; read it and try again")


def session_exists(new: NewSession) -> Conflict:
    """The answer for a session of a change that meanwhile exists."""
    return Conflict("conflict", f"session {new.id!r} of agent {new.agent!r} was created in the meantime; read it and try again")


def in_use(kind: str, name: str) -> Conflict:
    """The answer to the deletion of an agent with living sessions, or of a namespace that holds something."""
    why = "has sessions" if kind == "Agent" else "is not empty"
    return Conflict("in_use", f"{kind} {name!r} {why}; delete what is in it first, or all together (cascade=true)")


def _put(written: Written, put: PutResource, found: Found, now: int) -> None:
    old = found.rows.get(identity(put))
    if put.if_generation != (0 if old is None else old.generation) or (old is None and put.body is None):
        raise changed(put, put.if_generation)
    if _is_deleting(old) and not put.deleting:
        raise Conflict("conflict", f"{put.kind} {put.name!r} is being deleted; wait until it is gone")
    body = old.body if old is not None and put.body is None else put.body or b""
    new = ResourceRow(put.namespace, put.kind, put.name, put.uid, 1, 0, 0, body, now, now)
    if old is not None:
        generation = old.generation + (body != old.body or put.sealed is not None)
        new = msgspec.structs.replace(old, generation=generation, body=body)
    new = msgspec.structs.replace(
        new,
        revision=_revision(written, put, new, found, now),
        deleting_at_ms=now if put.deleting and new.deleting_at_ms is None else new.deleting_at_ms,
    )
    if old is not None and new == old:
        written.answers.append(old)
        return
    new = msgspec.structs.replace(new, version=_next_version(written, put.namespace, found), updated_at_ms=now)
    written.answers.append(new)
    written.events.append(ResourceEvent("modified" if old else "added", new, found.labels.get(identity(put), {})))
    if put.body is not None:
        written.described.append(put)
    if put.fires is not None:
        written.schedules.append((put.fires, new))
    if put.sealed is not None:
        written.sealed.append(SealedRow(put.namespace, put.name, new.uid, put.key_id, put.sealed))


def _revision(written: Written, put: PutResource, row: ResourceRow, found: Found, now: int) -> int:
    """The revision that `put` leaves the agent at: a new one if its definition differs from the newest ever made."""
    if put.effective is None:
        return row.revision
    newest, digest = found.newest.get((put.namespace, put.name), (0, ""))
    if newest and digest == put.digest:
        return newest
    made = RevisionRow(put.namespace, put.name, newest + 1, put.effective, put.digest, put.cause, row.body, now)
    written.revisions.append(made)
    return made.revision


def _next_version(written: Written, namespace: str, found: Found) -> int:
    version = written.versions.get(namespace, found.versions.get(namespace, 0)) + 1
    written.versions[namespace] = version
    return version


def _check_places(changes: Changes, found: Found) -> None:
    """Nothing begins in a namespace that is absent, or that is being deleted with one above it; no session without its agent."""
    created = {identity(put) for put in changes.puts if not put.deleting}
    ending = {identity(put) for put in changes.puts if put.deleting} | set(map(identity, changes.deletes))

    def is_open(place: Identity) -> bool:
        row = found.rows.get(place)
        return place not in ending and (place in created if row is None else not _is_deleting(row))

    def check_place(namespace: str, *, must_exist: bool) -> None:
        for name in lineage(namespace) if namespace else ():
            place = ("", "Namespace", name)
            there = place in created or place in found.rows
            if (there and not is_open(place)) or (not there and must_exist and name == namespace):
                why = "is being deleted" if there else "does not exist"
                raise Conflict("conflict", f"namespace {name!r} {why}; nothing can be written in it")

    for put in changes.puts:
        if not put.deleting:
            check_place(lives_in(put), must_exist=put.kind != "Namespace")
    for new in changes.sessions:
        check_place(new.namespace, must_exist=True)
        if not is_open((new.namespace, "Agent", new.agent)):
            raise Conflict("conflict", f"agent {new.agent!r} in {new.namespace!r} does not exist, or is being deleted")


def _is_deleting(row: ResourceRow | None) -> bool:
    return row is not None and row.deleting_at_ms is not None
