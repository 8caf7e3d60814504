"""Which tools an agent may use, by the names that workers publish: the workers' own rule, for those who only look."""

from __future__ import annotations

import msgspec

from talon.manifest.catalogue import BUILTIN, Catalogue
from talon.manifest.effective import Effective


class Grants(msgspec.Struct, frozen=True):
    """`refs` and `tools` are what could not be resolved: toolsets that nobody serves, tools that no granted toolset has or that
    more than one has."""

    refs: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether a turn would not be refused for its tools."""
        return not self.refs and not self.tools


def grants(effective: Effective, catalogue: Catalogue) -> Grants:
    """With references: all tools of those toolsets, or those of them that `allowed_tools` names. Without: the tools that
    `allowed_tools` names, a bare name first among the built-in ones. `toolset/tool` says which. Neither: none."""
    missing = tuple(dict.fromkeys(ref for ref in effective.tool_refs if ref not in catalogue.toolsets))
    if missing:
        return Grants(missing)
    if not effective.tool_refs and not effective.allowed_tools:
        return Grants()
    within = tuple(dict.fromkeys(effective.tool_refs)) or tuple(catalogue.toolsets)
    if effective.allowed_tools is None:
        wanted = [f"{toolset}/{tool}" for toolset in within for tool in catalogue.toolsets[toolset]]
    else:
        wanted = list(dict.fromkeys(effective.allowed_tools))
    unresolved: dict[str, None] = {}
    granted: dict[str, str] = {}
    for reference in wanted:
        found = _find(reference, within, catalogue, builtin_first=not effective.tool_refs)
        if len(found) != 1:
            unresolved[reference] = None
            continue
        toolset, _, name = found[0].partition("/")
        if granted.setdefault(name, toolset) != toolset:
            unresolved[name] = None
    return Grants((), tuple(unresolved))


def _find(reference: str, within: tuple[str, ...], catalogue: Catalogue, builtin_first: bool) -> list[str]:
    """The tools that `reference` may mean, as `toolset/tool`."""
    toolset, slash, name = reference.rpartition("/")
    if slash:
        return [reference] if toolset in within and name in catalogue.toolsets[toolset] else []
    if builtin_first and reference in catalogue.toolsets.get(BUILTIN, ()):
        return [f"{BUILTIN}/{reference}"]
    return [f"{one}/{reference}" for one in within if reference in catalogue.toolsets[one]]
