"""Talon: the runtime for AI agents that have to keep working.

Importing this package is cheap and has no side effects. What users of the Python API need is here:
`tool` marks a typed function as a tool of an agent; `ToolContext`, `ToolError`, `EffectUnknown` and `Outcome` are what it
receives, raises and returns (see `talon.tools.python`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talon.tools.python import EffectUnknown, Outcome, ToolContext, ToolError, tool

__version__ = "0.1.0"
__all__ = ["EffectUnknown", "Outcome", "ToolContext", "ToolError", "__version__", "tool"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from talon.tools import python

        return getattr(python, name)
    raise AttributeError(f"module 'talon' has no attribute {name!r}")
