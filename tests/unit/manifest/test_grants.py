"""Conditions say `Resolved` of an agent exactly where a worker would grant its tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from talon.manifest.catalogue import Catalogue
from talon.manifest.effective import Effective, Profile
from talon.manifest.grants import grants
from talon.tools.protocol import Tool
from talon.tools.python import tool
from talon.tools.registry import Registry

TOOLSETS, TOOLS = ["builtin", "alpha", "beta"], ["look", "send", "now"]


@tool(effect="read")
def look() -> str:
    """Look."""
    return ""


@dataclass
class Named:
    """A toolset with tools of given names."""

    name: str
    names: tuple[str, ...]

    def tools(self) -> Mapping[str, Tool]:
        return dict.fromkeys(self.names, look)


served = st.dictionaries(
    st.sampled_from(TOOLSETS), st.lists(st.sampled_from(TOOLS), unique=True, max_size=3).map(tuple), max_size=3
)
references = st.sampled_from([*TOOLS, "gone", *(f"{one}/{name}" for one in TOOLSETS for name in TOOLS), "gone/look"])


@given(served, st.lists(st.sampled_from([*TOOLSETS, "gone"]), max_size=3), st.none() | st.lists(references, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_unresolved_here_is_refused_there(
    toolsets: dict[str, tuple[str, ...]], refs: list[str], allowed: list[str] | None
) -> None:
    registry = Registry([Named(name, names) for name, names in toolsets.items()])
    granted = registry.resolve(refs, allowed)
    effective = Effective(
        namespace="n",
        name="a",
        system_prompt="",
        profiles=(Profile("p", "x", "y"),),
        tool_refs=tuple(refs),
        allowed_tools=None if allowed is None else tuple(allowed),
    )
    found = grants(effective, Catalogue(toolsets))
    assert sorted(found.refs + found.tools) == sorted(granted.unresolved)
    assert found.resolved == (not granted.unresolved)
