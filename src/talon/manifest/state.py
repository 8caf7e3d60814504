"""What an apply starts from and what it comes to: the rooms above read the one from a store and write the other to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from talon.domain.entries import NewEntry
from talon.domain.resources import Identity
from talon.domain.session import SessionRow
from talon.manifest.catalogue import Catalogue
from talon.manifest.diff import FieldChange
from talon.manifest.effective import Effective
from talon.manifest.read import DEFAULT_NAMESPACE, Manifest


class Stored(msgspec.Struct, frozen=True):
    """A stored resource. For an Agent `effective` and `digest` are those of its newest revision."""

    namespace: str
    kind: str
    name: str
    uid: str
    generation: int
    body: bytes
    effective: Effective | None = None
    digest: str = ""


class State(msgspec.Struct, frozen=True):
    """What is stored of everything that a reading touches (`touched`), and what the live workers serve (None: no worker)."""

    resources: Mapping[Identity, Stored] = {}
    sessions: Mapping[Identity, SessionRow] = {}
    catalogue: Catalogue | None = None


class Touched(msgspec.Struct, frozen=True):
    """What to read from the store before planning: these resources, all agents of the namespaces in `dependents` (a template
    there is applied), and these sessions as (namespace, agent, id)."""

    resources: tuple[Identity, ...]
    dependents: tuple[str, ...]
    sessions: tuple[tuple[str, str, str], ...]


def touched(manifests: Sequence[Manifest]) -> Touched:
    """What the plan for `manifests` depends on, each once."""
    resources: dict[Identity, None] = {}
    dependents: dict[str, None] = {}
    sessions: dict[tuple[str, str, str], None] = {}
    for manifest in manifests:
        namespace, model = manifest.namespace or manifest.name, manifest.model
        resources["", "Namespace", namespace] = None
        if model.kind == "Session":
            resources[namespace, "Agent", model.spec.agent] = None
            sessions[namespace, model.spec.agent, manifest.name] = None
            continue
        resources[manifest.identity] = None
        if model.kind == "AgentTemplate":
            dependents[namespace] = None
        elif model.kind == "Agent" and model.spec.template_ref is not None:
            resources[namespace, "AgentTemplate", model.spec.template_ref.name] = None
    return Touched(tuple(resources), tuple(dependents), tuple(sessions))


class Put(msgspec.Struct, frozen=True):
    """A resource to write. `uid` is empty for a new one; `body` None leaves the body and its generation alone."""

    namespace: str
    kind: str
    name: str
    uid: str
    if_generation: int
    body: bytes | None
    effective: bytes | None = None
    digest: str = ""
    cause: str = ""


class PlannedSession(msgspec.Struct, frozen=True):
    """A session to create."""

    namespace: str
    agent: str
    id: str
    metadata: bytes
    features: bytes
    profile: str
    history: tuple[NewEntry, ...]


Action = Literal["created", "changed", "unchanged"]


class Result(msgspec.Struct, frozen=True):
    """What an apply does to one resource. `document` is 0 for what no document names: a namespace that had to be made, an agent
    that follows its template (`cause` says so)."""

    document: int
    kind: str
    namespace: str
    name: str
    action: Action
    changes: tuple[FieldChange, ...] = ()
    cause: str = ""


class Warn(msgspec.Struct, frozen=True):
    """Something to know that is no error."""

    field: str
    message: str


class ApplyPlan(msgspec.Struct, frozen=True):
    """All that an apply would write, and what to tell the user. Nothing to write: `puts` and `sessions` are empty."""

    results: tuple[Result, ...]
    puts: tuple[Put, ...] = ()
    sessions: tuple[PlannedSession, ...] = ()
    warnings: tuple[Warn, ...] = ()

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
