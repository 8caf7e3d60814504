"""What an apply starts from and what it comes to: the rooms above read the one from a store and write the other to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from talon.domain.entries import NewEntry
from talon.domain.resources import Identity, Ref
from talon.domain.session import SessionRow
from talon.manifest.catalogue import Catalogue
from talon.manifest.diff import FieldChange
from talon.manifest.effective import Effective
from talon.manifest.occurrences import FireTime
from talon.manifest.read import DEFAULT_NAMESPACE

User = tuple[str, str, str, int]  # namespace, kind, name, generation


class Stored(msgspec.Struct, frozen=True):
    """A stored resource. For an Agent `effective` and `digest` are those of its newest revision. `deleting`: it goes."""

    namespace: str
    kind: str
    name: str
    uid: str
    generation: int
    body: bytes
    effective: Effective | None = None
    digest: str = ""
    deleting: bool = False


class State(msgspec.Struct, frozen=True):
    """What is known of the store: what was looked for and is not there is None. `users` are those of a reference from a namespace
    and below it; `same_values` says of Secrets whether the value that their manifest gives is the stored one. `catalogue` is what
    the live workers serve (None: no worker), `now_ms` the time (0: nobody says)."""

    resources: Mapping[Identity, Stored | None] = {}
    users: Mapping[tuple[str, Ref], tuple[User, ...]] = {}
    sessions: Mapping[Identity, SessionRow | None] = {}
    same_values: Mapping[Identity, bool] = {}
    catalogue: Catalogue | None = None
    now_ms: int = 0


class Needs(msgspec.Struct, frozen=True):
    """What a plan must know besides the state that it was given: add it to the state and plan again. `sessions` are
    (namespace, agent, id)."""

    resources: tuple[Identity, ...] = ()
    users: tuple[tuple[str, Ref], ...] = ()
    sessions: tuple[Identity, ...] = ()
    values: tuple[Identity, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the state was enough."""
        return not (self.resources or self.users or self.sessions or self.values)


class Put(msgspec.Struct, frozen=True):
    """A resource to write. `uid` is empty for a new one; `body` None leaves the body and its generation alone. `secret` is the new
    value of a Secret, in clear."""

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
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Put({self.kind} {self.namespace}/{self.name} from {self.if_generation})"


class Same(msgspec.Struct, frozen=True):
    """A guard: a resource is still at this generation (0: absent)."""

    identity: Identity
    generation: int


class SameUsers(msgspec.Struct, frozen=True):
    """A guard: `ref` still has exactly these users in `namespace` and below it."""

    namespace: str
    ref: Ref
    users: tuple[User, ...]


class PlannedSession(msgspec.Struct, frozen=True):
    """A session to create."""

    namespace: str
    agent: str
    id: str
    metadata: bytes
    features: bytes
    profile: str
    history: tuple[NewEntry, ...]
    config: bytes = b"{}"


Action = Literal["created", "changed", "unchanged", "deleted"]


class Result(msgspec.Struct, frozen=True):
    """What an apply does to one resource. `document` is 0 for what no document names: a namespace that had to be made, an agent
    that follows its template, what is pruned (`cause` says so). `fires`: the next times of a Schedule that is new or changed."""

    document: int
    kind: str
    namespace: str
    name: str
    action: Action
    changes: tuple[FieldChange, ...] = ()
    cause: str = ""
    fires: tuple[FireTime, ...] = ()


class Warn(msgspec.Struct, frozen=True):
    """Something to know that is no error."""

    field: str
    message: str


class ApplyPlan(msgspec.Struct, frozen=True):
    """All that an apply would write, and what to tell the user. Nothing to write: `puts` and `sessions` are empty.

    `same` and `same_users` are what it was decided on and must still be so when it is written. `refs` are what the applied
    resources refer to from then on, `digests` those of the definitions that the applied agents come to.
    """

    results: tuple[Result, ...]
    puts: tuple[Put, ...] = ()
    sessions: tuple[PlannedSession, ...] = ()
    warnings: tuple[Warn, ...] = ()
    same: tuple[Same, ...] = ()
    same_users: tuple[SameUsers, ...] = ()
    refs: Mapping[Identity, tuple[Ref, ...]] = {}
    digests: Mapping[Identity, str] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing would be written."""
        return not self.puts and not self.sessions


def bare_namespace(name: str) -> dict[str, Any]:
    """The manifest of a namespace that nobody wrote one for."""
    return {"apiVersion": "talon.dev/v1alpha1", "kind": "Namespace", "metadata": {"name": name}}


def is_default(namespace: str) -> bool:
    """Whether it is the namespace that always exists."""
    return namespace == DEFAULT_NAMESPACE
