"""Toolsets from Python modules: named in `tools.modules`, or offered by installed packages.

A module's toolset holds the `@tool` functions that are defined in it (or, for a package, below it) and is named after the module's
last part, underscores becoming dashes: `toolsets.stripe_readonly` serves `stripe-readonly`. A module-level `TOOLSET = "…"` names
it otherwise.

A package offers a toolset by an entry point in the group `talon.toolsets`: such a module, an object with the `Toolset` protocol, or
a function without arguments that makes one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec

from talon.domain.errors import FieldError, Invalid
from talon.tools.protocol import Tool, Toolset
from talon.tools.python import PythonTool
from talon.tools.text import said

ENTRY_POINTS = "talon.toolsets"
_MACHINERY = (str(Path(__file__).parent), importlib.__file__, "<frozen ")
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


class PythonToolset(msgspec.Struct, frozen=True):
    """A named group of tools, fixed: the `Toolset` protocol in its plainest form."""

    name: str
    members: dict[str, Tool]

    def tools(self) -> Mapping[str, Tool]:
        return self.members


def import_modules(modules: Sequence[str], search_path: Sequence[Path | str]) -> list[Toolset]:
    """The toolsets of `modules`, which are looked for on `search_path` too, after everything installed.

    `search_path` stays on `sys.path`, for what the modules import later. Python imports a module once: a changed one needs a new
    process. Raises `Invalid` for a module that is not there, fails when it is imported (with file and line) or has no tool.
    """
    for directory in map(str, search_path):
        if directory not in sys.path:
            sys.path.append(directory)
    found: list[Toolset] = []
    for index, name in enumerate(modules):
        where = f"tools.modules[{index}]"
        module = _import(name, where, f"the installed packages and {', '.join(map(str, search_path)) or 'nowhere else'}")
        found.append(_toolset_of(module, where))
    return found


def import_installed() -> list[Toolset]:
    """The toolsets that installed packages offer. Raises `Invalid` as `import_modules` does, naming the entry point."""
    found: list[Toolset] = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        where = f"entry point {point.name!r} of {point.dist.name if point.dist else 'an unknown package'}"
        module = _import(point.module, where, "the installed packages")
        try:
            offered: Any = point.load() if point.attr else module
            toolset = offered if isinstance(offered, ModuleType) or hasattr(offered, "tools") else offered()
        except Exception as error:  # noqa: BLE001 - somebody's package; whatever it raises, the user must learn whose it was
            raise _invalid(where, f"{where}: {point.value!r} cannot be loaded: {_cause(error)}", point.value) from None
        found.append(_toolset_of(toolset, where) if isinstance(toolset, ModuleType) else toolset)
    return found


def _import(name: str, where: str, searched: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything when it is imported
        gone = error.name if isinstance(error, ModuleNotFoundError) else None
        if gone and (name == gone or name.startswith(f"{gone}.")):
            raise _invalid(where, f"{where}: there is no module {name!r}; looked in {searched}", name) from None
        raise _invalid(where, f"{where}: module {name!r} cannot be imported: {_cause(error)}", name) from None


def _cause(error: BaseException) -> str:
    """Class, message, and where in the user's own code it happened; of a library's code only where no other was running."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_MACHINERY)]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
    place = (own[-1].filename, own[-1].lineno) if own else None
    message = said(error)
    if isinstance(error, SyntaxError) and error.filename:
        place, message = (error.filename, error.lineno), error.msg
    return f"{type(error).__name__}: {message}" + (f" ({place[0]}, line {place[1]})" if place else "")


def _toolset_of(module: ModuleType, where: str) -> Toolset:
    name = getattr(module, "TOOLSET", None) or module.__name__.rpartition(".")[2].replace("_", "-").lower()
    tools: dict[str, Tool] = {}
    for value in vars(module).values():
        if not isinstance(value, PythonTool):
            continue
        tool = cast("PythonTool[..., Any]", value)
        home = str(getattr(tool, "__module__", ""))
        if home != module.__name__ and not home.startswith(f"{module.__name__}."):
            continue  # imported from elsewhere: it belongs to the toolset of its own module
        if tools.setdefault(tool.spec.name, tool) is not tool:
            raise _invalid(
                where,
                f"{where}: module {module.__name__!r} has two tools named {tool.spec.name!r}; rename one (`@tool(name=…)`)",
                name,
            )
    if not tools:
        file = getattr(module, "__file__", None) or "a namespace package"
        raise _invalid(
            where, f"{where}: module {module.__name__!r} ({file}) defines no tool; mark a function with `@tool`", module.__name__
        )
    return PythonToolset(name, tools)


def _invalid(field: str, detail: str, value: Any) -> Invalid:
    return Invalid("invalid", detail, (FieldError(field, detail, value),))
