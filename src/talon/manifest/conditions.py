"""The conditions of resources, computed whenever they are read: what workers serve, and what a name refers to, changes without
anybody changing the resource."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from talon.domain.models import Models
from talon.domain.resources import Identity, Ref, candidates
from talon.manifest import kinds
from talon.manifest.catalogue import Catalogue
from talon.manifest.choosing import DATA_TIERS, Wanted, choose, task_of
from talon.manifest.effective import Effective
from talon.manifest.grants import grants
from talon.manifest.references import refs

#: What each kind is waiting for; a Secret and a Namespace wait for nothing.
NOT_YET = {
    "Knowledge": "it is stored and checked; this version gives no knowledge to agents",
    "McpServer": "it is stored and checked; this version does not connect to MCP servers",
    "McpBinding": "it is stored and checked; this version does not connect to MCP servers",
}


class Condition(msgspec.Struct, frozen=True):
    """One statement about a resource. `ReferencesResolved`: what it names exists. `Ready` (agents): a turn could run now. `Active`
    (the others): it has its effect. `status` is `Unknown` while no worker is there to tell."""

    type: Literal["ReferencesResolved", "Ready", "Active"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def wanted(model: kinds.Doc, namespace: str, effective: Effective | None = None) -> tuple[Identity, ...]:
    """What must be looked up before the conditions of a resource can be told. `effective` is an agent's."""
    return tuple(dict.fromkeys(one for ref in _references(model, effective) for one in candidates(namespace, ref)))


def conditions(
    model: kinds.Doc,
    namespace: str,
    found: Collection[Identity],
    catalogue: Catalogue | None,
    *,
    effective: Effective | None = None,
    has_value: bool = False,
    error: str = "",
    over: bool = False,
) -> tuple[Condition, ...]:
    """The conditions of a resource. `found` are those of `wanted` that exist, `catalogue` is what the live workers serve,
    `effective` an agent's, `has_value` a Secret's; `error` is why a Schedule could not be fired when it was last tried,
    `over` whether it stands at no time any more."""
    if model.kind == "Namespace":
        return ()
    if effective is not None:
        resolved = _resolved(effective, found, catalogue)
        return resolved, _ready(effective, resolved, found, catalogue)
    resolved = _found(_missing(refs(model), namespace, found, catalogue))
    if isinstance(model, kinds.ScheduleDoc):
        return resolved, _fires(enabled=model.spec.enabled, error=error, over=over)
    if model.kind in NOT_YET:
        return resolved, Condition("Active", "False", "NotImplemented", NOT_YET[model.kind])
    if model.kind == "Secret":
        message = "it has no value: talon secret set gives it one"
        return resolved, Condition("Active", "True", "Active") if has_value else Condition("Active", "False", "NoValue", message)
    return (resolved,)


def _fires(*, enabled: bool, error: str, over: bool) -> Condition:
    if error:
        return Condition("Active", "False", "CannotFire", f"it is due and could not be fired, and is tried again: {error}")
    if not enabled:
        return Condition("Active", "False", "Paused", "it is paused: enabled is false")
    if over:
        return Condition("Active", "False", "Over", "it has fired for the last time: no later time is left")
    return Condition("Active", "True", "Active")


def unresolved(effective: Effective, found: Collection[Identity], catalogue: Catalogue | None) -> dict[str, str]:
    """Field -> what its names do not resolve to; a turn is refused for each (`unresolved_reference`). What only a worker knows is
    left out while none is there."""
    if catalogue is None:
        return _unknown_knowledge(effective, found)
    reasons: dict[str, str] = {}
    granted = grants(effective, catalogue)
    if missing := [name for name in granted.refs if not stored_as("McpServer", name, effective.namespace, found)]:
        reasons["mcpServerRefs"] = f"mcpServerRefs: no running worker serves {', '.join(missing)}"
    if granted.tools:
        reasons["capabilities.allowed_tools"] = f"allowed_tools: {', '.join(granted.tools)}: not one tool that is served"
    return reasons | _unknown_knowledge(effective, found)


def _unknown_knowledge(effective: Effective, found: Collection[Identity]) -> dict[str, str]:
    missing = [name for name in effective.knowledge_refs if not stored_as("Knowledge", name, effective.namespace, found)]
    message = f"knowledgeRefs: no Knowledge {', '.join(missing)} in namespace {effective.namespace}"
    return {"knowledgeRefs": message} if missing else {}


def not_yet(effective: Effective, found: Collection[Identity], catalogue: Catalogue) -> dict[str, str]:
    """Field -> what its names resolve to that this version stores and cannot use: a turn is refused for each."""
    reasons: dict[str, str] = {}
    servers = [stored_as("McpServer", name, effective.namespace, found) for name in grants(effective, catalogue).refs]
    if names := ", ".join(filter(None, servers)):
        reasons["mcpServerRefs"] = f"mcpServerRefs: {names}: {NOT_YET['McpServer']}"
    known = [stored_as("Knowledge", name, effective.namespace, found) for name in effective.knowledge_refs]
    if names := ", ".join(filter(None, known)):
        reasons["knowledgeRefs"] = f"knowledgeRefs: {names}: {NOT_YET['Knowledge']}"
    return reasons


def stored_as(kind: str, name: str, namespace: str, found: Collection[Identity]) -> str:
    """`McpServer acme/stripe`: what a name means among the stored resources; nothing if it means none of them."""
    one = next((one for one in candidates(namespace, Ref(kind, name)) if one in found), None)
    return f"{kind} {one[0]}/{name}" if one else ""


class Unserved(msgspec.Struct, frozen=True):
    """What of an agent's models no live worker can ask. `blocked`: tier of data -> why no model is left for it. `left_out`: models
    that others stand in for, each with the reason."""

    blocked: dict[int, str]
    left_out: tuple[str, ...]


def unserved(effective: Effective, catalogue: Catalogue) -> Unserved:
    """Found as turns find their models: by the routes of all tiers of data, and by the profiles where there is none."""
    models, blocked, left_out = Models(catalogue.models), dict[int, str](), dict[str, None]()
    for tier in DATA_TIERS if effective.routing else (0,):
        choice = choose(effective, Wanted(task=task_of(effective), data_tier=tier), catalogue.providers, models)
        if choice.problem:
            blocked[tier] = choice.problem
        left_out |= dict.fromkeys(choice.left_out)
    return Unserved(blocked, tuple(left_out))


def _references(model: kinds.Doc, effective: Effective | None) -> tuple[Ref, ...]:
    """What a resource depends on; an agent's servers and knowledge are those of its resolved definition."""
    if effective is None:
        return refs(model)
    template = [Ref("AgentTemplate", effective.template)] if effective.template else []
    servers = [Ref("McpServer", name) for name in effective.tool_refs]
    return (*template, *servers, *(Ref("Knowledge", name) for name in effective.knowledge_refs))


def _missing(
    wanted: Iterable[Ref], namespace: str, found: Collection[Identity], catalogue: Catalogue | None
) -> list[tuple[Ref, bool]]:
    """The references that mean nothing stored, and whether a worker's toolset could be meant."""
    missing: list[tuple[Ref, bool]] = []
    for ref in wanted:
        if any(one in found for one in candidates(namespace, ref)):
            continue
        if ref.kind == "McpServer" and catalogue is not None and ref.name in catalogue.toolsets:
            continue
        missing.append((ref, ref.kind == "McpServer" and catalogue is None))
    return missing


def _found(missing: Sequence[tuple[Ref, bool]]) -> Condition:
    names = ", ".join(f"{ref.kind} {ref.name}" for ref, perhaps in missing if not perhaps)
    if names:
        return Condition("ReferencesResolved", "False", "UnresolvedReference", f"{names}: does not exist")
    if missing:
        names = ", ".join(ref.name for ref, _ in missing)
        return Condition("ReferencesResolved", "Unknown", "NoWorker", f"no worker is running that could serve {names}")
    return Condition("ReferencesResolved", "True", "Resolved")


def _resolved(effective: Effective, found: Collection[Identity], catalogue: Catalogue | None) -> Condition:
    missing: list[str] = []
    if effective.template and not stored_as("AgentTemplate", effective.template, effective.namespace, found):
        missing.append(f"templateRef: no template {effective.template!r} in namespace {effective.namespace!r}")
    missing += unresolved(effective, found, catalogue).values()
    if missing:
        return Condition("ReferencesResolved", "False", "UnresolvedReference", "; ".join(missing))
    if catalogue is None and (effective.tool_refs or effective.allowed_tools):
        message = "no worker is running that could serve mcpServerRefs and allowed_tools"
        return Condition("ReferencesResolved", "Unknown", "NoWorker", message)
    return Condition("ReferencesResolved", "True", "Resolved")


def _ready(effective: Effective, resolved: Condition, found: Collection[Identity], catalogue: Catalogue | None) -> Condition:
    if resolved.status == "False":
        return Condition("Ready", "False", resolved.reason, resolved.message)
    if catalogue is None:
        return Condition("Ready", "Unknown", "NoWorker", "no worker is running: turns wait for one")
    if waiting := not_yet(effective, found, catalogue):
        return Condition("Ready", "False", "NotImplemented", "; ".join(waiting.values()))
    lacking = unserved(effective, catalogue)
    if 0 in lacking.blocked:  # nothing classifies data yet: turns work on tier 0
        return Condition("Ready", "False", "NoProvider", lacking.blocked[0])
    others = [f"data of tier {tier}: {why}" for tier, why in lacking.blocked.items()]
    return Condition("Ready", "True", "Ready", "; ".join([*others, *(f"without {one}" for one in lacking.left_out)]))
