"""What a tool is, and what the turn's runner may expect of it (K5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

Effect = Literal["read", "idempotent", "reconcilable", "unsafe"]
EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "reconcilable", "unsafe")


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool's contract: what the model is told, and how a lost receipt is treated. Pinned for a turn (K12).

    `parameters` is JSON Schema (2020-12) of an object. `effect` is one of EFFECTS; who declares nothing is `unsafe`.
    `key_ttl_s`: how long an idempotent tool honours its keys; an older call counts as unsafe. `timeout_s` bounds one attempt.
    `output_max` is in characters; a longer output is cut and marked. `code` is a digest of the code behind it, recorded only.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect = "unsafe"
    key_ttl_s: float = 86_400.0
    timeout_s: float = 60.0
    output_max: int = 20_000
    code: str = ""


class ToolContext(msgspec.Struct, frozen=True):
    """What a tool gets beside its arguments. `key` is the same in every attempt of one call and differs between calls."""

    key: str
    namespace: str
    agent: str
    session: str
    turn_id: str
    call: int
    attempt: int = 1
    features: Mapping[str, Any] = {}


class ToolError(Exception):
    """A tool's own failure: its message goes to the model, the turn goes on. Raise it for expected failures."""


class EffectUnknown(ToolError):
    """The tool cannot know whether its effect happened (the answer to a request was lost). Raise it rather than `ToolError` then:
    a call of an `unsafe` or `reconcilable` tool becomes uncertain instead of failed."""


class Outcome(msgspec.Struct, frozen=True):
    """What a `reconcilable` tool's probe found: `done` (with the output), `not_done` (run it), or `unknown` (a human decides)."""

    state: Literal["done", "not_done", "unknown"]
    output: str = ""


class Tool(Protocol):
    """One callable tool."""

    @property
    def spec(self) -> ToolSpec:
        """Its contract."""
        ...

    def effect_of(self, args: Mapping[str, Any]) -> Effect:
        """The effect class of this very call; usually `spec.effect` (`http_request` decides by method and host). Pure."""
        ...

    async def call(self, args: dict[str, Any], context: ToolContext) -> str:
        """Run. `args` have passed the schema. -> text for the model. Raises `ToolError` for expected failures; any other
        exception is a failed call too, with its class name. Cancellation must stop the work."""
        ...

    async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
        """For `reconcilable` tools: what became of the call with `context.key`? Others answer `unknown`."""
        ...


class Toolset(Protocol):
    """Tools under a name that `mcpServerRefs` can refer to."""

    @property
    def name(self) -> str:
        """Unique in a process: `stripe-readonly`, `builtin`."""
        ...

    def tools(self) -> Mapping[str, Tool]:
        """Tool name -> tool."""
        ...
