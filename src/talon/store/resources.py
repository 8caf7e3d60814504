"""Manifests as rows: what a store keeps of resources, how they change, and how changes are watched.

Every namespace has a counter. A change takes the counters of the namespaces that it writes (those of their ancestors shared), in
one order, to its commit, and gives each row that it writes the next number of its namespace: its *version*. So versions of a
namespace become visible in their order, and who has read up to one misses nothing (decision 0008). Namespaces themselves live
in "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from talon.domain.resources import INHERITED_KINDS, Identity, Ref, Requirement
from talon.store.model import NewSession
from talon.store.schedules import Fires

__all__ = ["INHERITED_KINDS", "Identity", "Ref", "Requirement"]


class ResourceRow(msgspec.Struct, frozen=True):
    """A stored manifest. `namespace` is "" for kind Namespace. `body` is the manifest as canonical JSON bytes (what the user
    applied, defaults not filled in, without a Secret's value). `generation` grows with every change of `body`, `version` with every
    change of the row. `revision` is the newest revision of an Agent, 0 for other kinds. `deleting_at_ms` is set while it is being
    deleted: what depends on it is ended first."""

    namespace: str
    kind: str
    name: str
    uid: str
    generation: int
    revision: int
    version: int
    body: bytes
    created_at_ms: int
    updated_at_ms: int
    deleting_at_ms: int | None = None


class ResourceEvent(msgspec.Struct, frozen=True):
    """One change of one row. `row` is as it was written; of a deleted one, the last, with the version of its deletion.

    `labels_before` are those that the row had before this change (kept beside the change; empty for an added one): with them a
    watch by labels tells what begins or stops to match, without knowing what it told before.
    """

    event: Literal["added", "modified", "deleted"]
    row: ResourceRow
    labels_before: Mapping[str, str] = {}


class RevisionRow(msgspec.Struct, frozen=True):
    """One immutable revision of an agent. `effective` is the resolved definition as JSON bytes, `body` the agent's manifest at that
    moment; `cause` says what made it."""

    namespace: str
    agent: str
    revision: int
    effective: bytes
    digest: str
    cause: str
    body: bytes
    created_at_ms: int


class PutResource(msgspec.Struct, frozen=True):
    """Create (`if_generation` 0) or replace (`if_generation` = the generation that was read) a resource.

    `labels` and `refs` are those of `body`, for selectors and users; they replace the stored ones when `body` is given.
    For an Agent `effective` is its resolved definition; a new revision is made when its `digest` differs from the newest one's.
    `body` None keeps the body, labels, refs and generation: only the effective definition (or the sealed value) changed.
    `sealed` is a Secret's encrypted value (None keeps the stored one), `key_id` the key that its own key is wrapped with; a new
    one counts as a change of the body. `fires` is what the change says to a Schedule's runtime row. `deleting` marks the row as
    being deleted. A put that would leave the row as it is writes nothing, and makes no version.
    """

    namespace: str
    kind: str
    name: str
    uid: str
    if_generation: int
    body: bytes | None
    labels: Mapping[str, str] = {}
    refs: tuple[Ref, ...] = ()
    effective: bytes | None = None
    digest: str = ""
    cause: str = ""
    sealed: bytes | None = None
    key_id: str = ""
    fires: Fires | None = None
    deleting: bool = False


class DeleteResource(msgspec.Struct, frozen=True):
    """Remove a resource that is still at `if_generation`, with its labels, refs and sealed value. Revisions stay readable for ever.

    An Agent that has living sessions, and a Namespace that holds anything, is not removed: `Conflict("in_use")`.
    """

    namespace: str
    kind: str
    name: str
    if_generation: int


class Unchanged(msgspec.Struct, frozen=True):
    """A guard: the resource is still at this generation (0: absent), and not being deleted."""

    namespace: str
    kind: str
    name: str
    generation: int


class SameUsers(msgspec.Struct, frozen=True):
    """A guard: those that refer to `ref` from `namespace`, and for an inherited kind from below it, are still exactly these, at
    these generations: sorted (namespace, kind, name, generation), as `users` gives them."""

    namespace: str
    ref: Ref
    users: tuple[tuple[str, str, str, int], ...]


class Changes(msgspec.Struct, frozen=True):
    """All or nothing. A guard that fails (`if_generation`, `unchanged`, `same_users`, a session that meanwhile exists) raises
    `Conflict("conflict")` and nothing is written: read again, decide again. What is written into a namespace that does not exist
    (and is not created here), or that is being deleted, raises `Conflict("conflict")` too; deletes, and puts that only mark
    (`deleting`), excepted."""

    puts: tuple[PutResource, ...] = ()
    deletes: tuple[DeleteResource, ...] = ()
    sessions: tuple[NewSession, ...] = ()
    unchanged: tuple[Unchanged, ...] = ()
    same_users: tuple[SameUsers, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing would be written."""
        return not (self.puts or self.deletes or self.sessions)


class SealedRow(msgspec.Struct, frozen=True):
    """An encrypted value as it is kept. `key_id` names the key that its own key is wrapped with (decision 0008)."""

    namespace: str
    name: str
    uid: str
    key_id: str
    sealed: bytes


class UseRow(msgspec.Struct, frozen=True):
    """One use of a Secret's value: `used_by` says by whom (`provider/openai`, `worker/NAME`), `purpose` what for."""

    namespace: str
    name: str
    used_by: str
    purpose: str
    at_ms: int


class Resources(Protocol):
    """Resources, their revisions, their users and their history. Lists are paged by an opaque cursor ("" starts; "" comes back at
    the end); a cursor that cannot be read raises `Invalid("cursor_invalid")`. Every read is bounded, and costs the same among ten
    resources and among a hundred thousand."""

    async def get_resource(self, namespace: str, kind: str, name: str) -> ResourceRow | None:
        """One resource, or None."""
        ...

    async def get_resources(self, identities: Sequence[Identity]) -> list[ResourceRow]:
        """Those of `identities` that exist, in no order: one query for all."""
        ...

    async def list_resources(
        self, namespace: str, kind: str, cursor: str, limit: int, selector: Sequence[Requirement] = ()
    ) -> tuple[list[ResourceRow], str]:
        """Resources of a kind by name, with labels that meet all of `selector`; of all namespaces, by namespace and name, if
        `namespace` is "*". A selector with an `in` of one value is found by index, of several by that of the label that the fewest
        have; any other is filtered while reading, at most `talon.store.selecting.CANDIDATES_MAX` a page: a page may be short, or
        empty, and the list still go on at its cursor."""
        ...

    async def list_all(self, namespace: str, cursor: str, limit: int) -> tuple[list[ResourceRow], str]:
        """Everything in a namespace, by kind and name (sessions are not resources)."""
        ...

    async def list_children(self, namespace: str, limit: int) -> list[str]:
        """Names of the namespaces directly or further below `namespace`, by name, at most `limit`."""
        ...

    async def users(self, namespace: str, ref: Ref, cursor: str, limit: int) -> tuple[list[tuple[str, str, str, int]], str]:
        """(namespace, kind, name, generation) of those that name `ref` in `namespace` and, for an inherited kind, anywhere below
        it, sorted. Whether one of the same name is nearer to a user is not looked at."""
        ...

    async def refs_of(self, identities: Sequence[Identity]) -> Mapping[Identity, tuple[Ref, ...]]:
        """What these resources refer to (an entry for each that refers to something)."""
        ...

    async def versions(self, namespaces: Sequence[str]) -> Mapping[str, int]:
        """namespace -> its newest version (0 for one that nothing was ever written to): one query for a whole gateway's poll."""
        ...

    async def read_events(self, namespace: str, after: int, limit: int, kind: str = "") -> tuple[list[ResourceEvent], int]:
        """-> (changes with version > `after`, oldest first, of one kind if given; the version up to which these are all).

        Raises `Gone("version_gone")` when changes after `after` are no longer kept, and `Invalid("version_ahead")` when `after` is
        beyond the namespace's newest.
        """
        ...

    async def list_revisions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[RevisionRow], str]:
        """Revisions of an agent, newest first."""
        ...

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        """One revision; readable for ever, also after the agent is gone."""
        ...

    async def get_revisions(self, wanted: Sequence[tuple[str, str, int]]) -> list[RevisionRow]:
        """Those of `wanted` (namespace, agent, revision) that exist, in no order: one query for all."""
        ...

    async def change(self, changes: Changes) -> list[ResourceRow]:
        """Write all of `changes` or nothing; -> the rows of its `puts`. Raises `Conflict("conflict")` when a guard fails,
        `Conflict("in_use")` when what is deleted holds something, `ValueError` when it names a resource twice.

        A loss of the database in the middle raises `Unavailable`, and all was written or nothing: which, is not known. The guards
        make a repetition safe: of a change that was written it raises `Conflict`, and whoever reads again sees it.
        """
        ...

    async def list_deleting(self, limit: int) -> list[ResourceRow]:
        """Namespaces and agents that are being deleted, longest first."""
        ...

    async def forget_events(self) -> int:
        """Drop what watches no longer need: changes older than `EVENTS_KEEP_MS`, and of each namespace all but the newest
        `EVENTS_KEEP_MAX`; uses of secrets older than `USES_KEEP_MS`; -> how many."""
        ...

    async def get_sealed(self, namespace: str, name: str) -> SealedRow | None:
        """A Secret's encrypted value, or None if it has none or does not exist."""
        ...

    async def have_values(self, secrets: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these Secrets, as (namespace, name), that have a value: one query for all."""
        ...

    async def list_sealed(self, not_key_id: str, after: tuple[str, str], limit: int) -> list[SealedRow]:
        """Values whose key is wrapped with another key than this one, by namespace and name, those after `after` (("", "") starts):
        one that cannot be opened must not stand in the way of the others."""
        ...

    async def reseal(self, old: SealedRow, new: SealedRow) -> bool:
        """Put `new` in the place of `old` unless somebody changed it since; not a change of the resource. -> whether it was."""
        ...

    async def record_use(self, use: UseRow) -> None:
        """Remember that a value was read (`at_ms` is the store's own)."""
        ...

    async def list_uses(self, namespace: str, name: str, cursor: str, limit: int) -> tuple[list[UseRow], str]:
        """Uses of a Secret, newest first."""
        ...


#: How much history is kept for watches, and of secrets' uses.
EVENTS_KEEP_MS = 24 * 3600 * 1000
EVENTS_KEEP_MAX = 10_000
USES_KEEP_MS = 90 * 24 * 3600 * 1000
