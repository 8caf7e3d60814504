"""The conditions of an agent, computed whenever they are read: what workers serve changes without anybody changing the agent."""

from __future__ import annotations

from typing import Literal

import msgspec

from talon.manifest.catalogue import BUILTIN, Catalogue
from talon.manifest.effective import Effective
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


def unresolved_refs(effective: Effective, catalogue: Catalogue) -> tuple[str, ...]:
    """The names in `mcpServerRefs` that nobody serves; a turn on them is refused (`unresolved_reference`)."""
    return tuple(ref for ref in effective.tool_refs if ref not in catalogue.toolsets)


def unserved_tools(effective: Effective, catalogue: Catalogue) -> tuple[str, ...]:
    """The names in `allowed_tools` that no granted toolset has: they will never be offered to the model."""
    granted = effective.tool_refs or (BUILTIN,)
    served = {tool for name in granted for tool in catalogue.toolsets.get(name, ())}
    return tuple(tool for tool in effective.allowed_tools or () if tool not in served)


def unserved_providers(effective: Effective, catalogue: Catalogue) -> tuple[str, ...]:
    """The providers of the agent's profiles that no live worker has."""
    names = dict.fromkeys(profile.provider for profile in chosen_profiles(effective))
    return tuple(name for name in names if name not in catalogue.providers)


def _resolved(effective: Effective, template_exists: bool, catalogue: Catalogue | None) -> Condition:
    missing: list[str] = []
    if effective.template and not template_exists:
        missing.append(f"templateRef: no template {effective.template!r} in namespace {effective.namespace!r}")
    if catalogue is None:
        if not missing and effective.tool_refs:
            return Condition(
                "Resolved", "Unknown", "NoWorker", f"mcpServerRefs: {', '.join(effective.tool_refs)}: no worker is running"
            )
    elif refs := unresolved_refs(effective, catalogue):
        missing.append(f"mcpServerRefs: no running worker serves {', '.join(refs)}")
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
