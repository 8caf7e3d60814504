"""The toolsets of a process, and what of them an agent is granted.

Two toolsets may have tools of the same name. `toolset/tool` always means one of them; a bare name must mean exactly one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from talon.domain.errors import FieldError, Invalid
from talon.domain.ids import is_name
from talon.tools.check import check_schema
from talon.tools.loader import import_installed, import_modules
from talon.tools.protocol import Tool, Toolset, ToolSpec

BUILTIN = "builtin"


class Pinned(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as a turn began with it (K12), with the toolset that its code is found by."""

    toolset: str
    spec: ToolSpec


class Granted(msgspec.Struct, frozen=True):
    """What an agent may use, by the name that the model is told: the contracts, and the code as far as it is here.

    `unresolved` are the references and names that mean nothing here (or, a bare name, more than one thing): a turn on them is
    refused. `detail` says so in a sentence for the user.
    """

    pinned: dict[str, Pinned]
    tools: dict[str, Tool]
    unresolved: tuple[str, ...] = ()
    detail: str = ""

    @property
    def specs(self) -> dict[str, ToolSpec]:
        """Name -> contract, sorted by name: the same order in every attempt, for the provider's prompt cache."""
        return {name: pinned.spec for name, pinned in self.pinned.items()}


class Registry:
    """The toolsets of this process, fixed once made."""

    def __init__(self, toolsets: Iterable[Toolset], ours: Iterable[Toolset] = ()) -> None:
        """Raises `Invalid` for two toolsets of one name, a name that is none, and a tool whose schema is no JSON Schema. Those of
        `ours`, which come with Talon, are known to be some."""
        self._toolsets: dict[str, Toolset] = {}
        self._tools: dict[str, dict[str, Tool]] = {}
        for toolset in ours:
            self._add(toolset)
        for toolset in toolsets:
            self._add(toolset)
            for name, tool in self._tools[toolset.name].items():
                if wrong := check_schema(tool.spec):
                    name = f"{toolset.name}/{name}"
                    raise _invalid("tools", f"the parameters of {name} are no JSON Schema: {wrong}", name)

    def _add(self, toolset: Toolset) -> None:
        name = toolset.name
        if not is_name(name):
            raise _invalid("tools", f"{name!r} cannot name a toolset: a-z, 0-9 and dashes, at most 63 characters", name)
        if name in self._toolsets:
            raise _invalid(
                "tools", f"two toolsets are named {name!r}; give one of them another name (`TOOLSET = …` in its module)", name
            )
        self._toolsets[name] = toolset
        self._tools[name] = dict(sorted(toolset.tools().items()))

    def resolve(self, refs: Sequence[str] = (), allowed: Sequence[str] | None = None) -> Granted:
        """What an agent with `mcpServerRefs` = `refs` and `capabilities.allowed_tools` = `allowed` may use.

        - With refs: all tools of those toolsets; where `allowed` is given, only those named there, each to be found in one of them.
        - Without refs: the tools that `allowed` names. A bare name is one of toolset `builtin`, or else of the one toolset that has
          it; `toolset/tool` is one of any toolset.
        - Without either: none.
        """
        missing = tuple(dict.fromkeys(ref for ref in refs if ref not in self._tools))
        if missing:
            # Names in `allowed` may belong to the missing toolset: only the cause is named.
            return Granted({}, {}, missing, f"no toolset {_list(missing)} is served here; served are: {_list(sorted(self._tools))}")
        if not refs and not allowed:
            return Granted({}, {})
        within = list(dict.fromkeys(refs)) or list(self._tools)
        if allowed is None:
            wanted = [f"{toolset}/{tool}" for toolset in within for tool in self._tools[toolset]]
        else:
            wanted = list(dict.fromkeys(allowed))
        return self._grant(wanted, within, prefer_builtin=not refs)

    def _grant(self, wanted: Sequence[str], within: Sequence[str], prefer_builtin: bool) -> Granted:
        pinned, tools = dict[str, Pinned](), dict[str, Tool]()
        unresolved: list[str] = []
        reasons: list[str] = []
        for reference in wanted:
            found = self._find(reference, within, prefer_builtin)
            if len(found) != 1:
                unresolved.append(reference)
                reasons.append(
                    f"tool {reference!r} is in {_list(found)}; say which" if found else f"there is no tool {reference!r}"
                )
                continue
            toolset, _, name = found[0].partition("/")
            if name in pinned and pinned[name].toolset != toolset:
                unresolved.append(name)
                reasons.append(
                    f"tool {name!r} is granted twice, by {pinned[name].toolset!r} and {toolset!r}; name one in allowed_tools"
                )
                continue
            tools[name] = self._tools[toolset][name]
            pinned[name] = Pinned(toolset, msgspec.structs.replace(tools[name].spec, name=name, code=""))
        if unresolved:
            return Granted({}, {}, tuple(dict.fromkeys(unresolved)), "; ".join(reasons))
        return Granted(dict(sorted(pinned.items())), tools)

    def _find(self, reference: str, within: Sequence[str], prefer_builtin: bool) -> list[str]:
        """The tools that `reference` may mean, as `toolset/tool`."""
        toolset, slash, name = reference.rpartition("/")
        if slash:
            return [reference] if toolset in within and name in self._tools[toolset] else []
        if prefer_builtin and reference in self._tools.get(BUILTIN, {}):
            return [f"{BUILTIN}/{reference}"]
        return [f"{toolset}/{reference}" for toolset in within if reference in self._tools[toolset]]

    def bind(self, pinned: Iterable[Pinned]) -> Granted:
        """A turn's pinned tools with the code that is here now; a tool whose code is gone has a contract and no code, and its calls
        fail as `missing`."""
        granted = {pin.spec.name: pin for pin in pinned}
        found = {name: self._tools.get(pin.toolset, {}).get(name) for name, pin in granted.items()}
        return Granted(granted, {name: tool for name, tool in found.items() if tool is not None})

    def catalogue(self) -> dict[str, list[dict[str, Any]]]:
        """Toolset -> its tools, as JSON values: what a worker publishes of what it can serve."""
        return {
            toolset: [
                {"name": name, "description": t.spec.description, "parameters": t.spec.parameters, "effect": t.spec.effect}
                for name, t in tools.items()
            ]
            for toolset, tools in self._tools.items()
        }

    async def close(self) -> None:
        """Close the toolsets that hold something open (a `close` coroutine function of theirs)."""
        for toolset in self._toolsets.values():
            close = cast("Callable[[], Awaitable[None]] | None", getattr(toolset, "close", None))
            if close is not None:
                await close()


def load_toolsets(modules: Sequence[str], search_path: Sequence[Path | str] = (), ours: Iterable[Toolset] = ()) -> Registry:
    """Import `modules` (found on `search_path` too, after everything installed) and the installed entry points; with `ours` (the
    built-in ones) they make the registry. Imports are cached by Python: a changed module needs a new process.

    Raises `Invalid` for a module that is not there, fails when it is imported (with file and line) or has no tools.
    """
    return Registry([*import_modules(modules, search_path), *import_installed()], ours)


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _invalid(field: str, detail: str, value: Any) -> Invalid:
    return Invalid("invalid", detail, (FieldError(field, detail, value),))
