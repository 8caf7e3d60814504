"""The conditions of an agent, computed whenever they are read: what workers serve changes without anybody changing the agent."""

from __future__ import annotations

from typing import Literal

import msgspec

from talon.manifest.catalogue import Catalogue
from talon.manifest.effective import Effective
from talon.manifest.grants import grants
from talon.manifest.resolve import chosen_profiles


class Condition(msgspec.Struct, frozen=True):
    """One statement about a resource. `status` is `Unknown` while no worker is there to tell."""

    type: Literal["Resolved", "Ready"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def conditions(effective: Effective, template_exists: bool, catalogue: Catalogue | None) -> tuple[Condition, Condition]:
    """`Resolved`: everything that the agent refers to exists. `Ready`: a turn could run now.

    `template_exists` is whether the template that the agent came from is still there; `catalogue` what the live workers serve.
    """
    resolved = _resolved(effective, template_exists, catalogue)
    return resolved, _ready(effective, resolved, catalogue)


def unresolved(effective: Effective, catalogue: Catalogue) -> dict[str, str]:
    """Field -> what its names do not resolve to; a turn is refused for each (`unresolved_reference`)."""
    found = grants(effective, catalogue)
    reasons: dict[str, str] = {}
    if found.refs:
        reasons["mcpServerRefs"] = f"mcpServerRefs: no running worker serves {', '.join(found.refs)}"
    if found.tools:
        reasons["capabilities.allowed_tools"] = f"allowed_tools: {', '.join(found.tools)}: not one tool that is served"
    return reasons


def unserved_providers(effective: Effective, catalogue: Catalogue) -> tuple[str, ...]:
    """The providers of the agent's profiles that no live worker has."""
    names = dict.fromkeys(profile.provider for profile in chosen_profiles(effective))
    return tuple(name for name in names if name not in catalogue.providers)


def _resolved(effective: Effective, template_exists: bool, catalogue: Catalogue | None) -> Condition:
    missing: list[str] = []
    if effective.template and not template_exists:
        missing.append(f"templateRef: no template {effective.template!r} in namespace {effective.namespace!r}")
    wants_tools = effective.tool_refs or effective.allowed_tools
    if catalogue is not None:
        missing += unresolved(effective, catalogue).values()
    elif wants_tools and not missing:
        return Condition("Resolved", "Unknown", "NoWorker", "no worker is running that could serve mcpServerRefs and allowed_tools")
    if missing:
        return Condition("Resolved", "False", "UnresolvedReference", "; ".join(missing))
    return Condition("Resolved", "True", "Resolved")


def _ready(effective: Effective, resolved: Condition, catalogue: Catalogue | None) -> Condition:
    if resolved.status == "False":
        return Condition("Ready", "False", resolved.reason, resolved.message)
    if catalogue is None:
        return Condition("Ready", "Unknown", "NoWorker", "no worker is running: turns wait for one")
    unserved = unserved_providers(effective, catalogue)
    if all(profile.provider in unserved for profile in chosen_profiles(effective)):
        return Condition("Ready", "False", "NoProvider", f"no running worker has the provider {', '.join(unserved)}")
    return Condition("Ready", "True", "Ready", f"without the provider {', '.join(unserved)}" if unserved else "")
