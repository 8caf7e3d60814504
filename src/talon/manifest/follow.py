"""Agents follow their templates: when one changes, or comes to stand nearer than another of its name, those that are made from it
are resolved again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from talon.domain.errors import FieldError
from talon.domain.resources import Identity, Ref
from talon.manifest import kinds
from talon.manifest.document import path_text
from talon.manifest.effective import Effective
from talon.manifest.lookup import Lookup
from talon.manifest.read import Manifest
from talon.manifest.resolve import Resolved, load, resolve
from talon.manifest.state import Put, Same, SameUsers, Stored


@dataclass(slots=True)
class Followed:
    """What becomes of the stored agents of a template. `same_users` and `same` guard that they are all, and that it is theirs."""

    same_users: SameUsers
    puts: list[Put] = field(default_factory=list[Put])
    agents: dict[Identity, Effective] = field(default_factory=dict[Identity, Effective])
    same: list[Same] = field(default_factory=list[Same])
    errors: list[FieldError] = field(default_factory=list[FieldError])


def follow(manifest: Manifest, template: kinds.TemplateDoc, look: Lookup, applied: Collection[Identity]) -> Followed:
    """Resolve the agents that `manifest`, a template that is written, is the nearest one for. Those in `applied` are resolved from
    their own manifests."""
    ref = Ref("AgentTemplate", manifest.name)
    users = look.users(manifest.namespace, ref)
    followed = Followed(SameUsers(manifest.namespace, ref, users))
    for *who, _ in users:
        namespace, kind, name = who
        agent = (namespace, kind, name)
        nearest = look.nearest(namespace, ref)
        if agent in applied or nearest is None:
            continue
        followed.same += look.guards(namespace, ref, nearest)
        if nearest != manifest.identity:
            continue
        stored = look.stored(agent)
        model = load(stored.body) if stored is not None and not stored.deleting else None
        if stored is not None and isinstance(model, kinds.AgentDoc):
            _one(followed, manifest, template, stored, model)
    return followed


def _one(followed: Followed, manifest: Manifest, template: kinds.TemplateDoc, stored: Stored, model: kinds.AgentDoc) -> None:
    resolved = resolve(model, stored.namespace, template.definition)
    if not isinstance(resolved, Resolved):
        for path, message, value in resolved:
            text = f"Agent {stored.namespace}/{stored.name} uses this template and would break: {path_text(path)}: {message}"
            followed.errors.append(manifest.document.error(("definition",), text, value))
        return
    followed.agents[stored.namespace, "Agent", stored.name] = resolved.effective
    if resolved.digest != stored.digest:
        followed.puts.append(_revised(stored, resolved))


def _revised(stored: Stored, resolved: Resolved) -> Put:
    """A new revision of an agent whose own manifest stays as it is."""
    return Put(
        stored.namespace,
        "Agent",
        stored.name,
        stored.uid,
        stored.generation,
        None,
        effective=resolved.body,
        digest=resolved.digest,
        cause=f"template {resolved.effective.template} changed",
    )
