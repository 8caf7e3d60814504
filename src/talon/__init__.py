"""Talon: the runtime for AI agents that have to keep working.

Importing this package is cheap and has no side effects. What users of the Python API need is here:
`tool` marks a typed function as a tool of an agent (see `talon.tools.python`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talon.tools.python import ToolContext, tool

__version__ = "0.1.0"
__all__ = ["ToolContext", "__version__", "tool"]


def __getattr__(name: str) -> object:
    if name in ("tool", "ToolContext"):
        from talon.tools import python

        return getattr(python, name)
    raise AttributeError(f"module 'talon' has no attribute {name!r}")
