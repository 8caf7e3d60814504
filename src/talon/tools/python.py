"""Python functions as tools.

    from typing import Annotated
    from talon import ToolContext, tool

    @tool(effect="idempotent")
    def issue_credit(account: Annotated[str, "The account's id"], cents: int, context: ToolContext) -> dict[str, str]:
        '''Credit an account. Money moves at once.

        Args:
            cents: How much, in cents.
        '''
        return billing.credit(account, cents, idempotency_key=context.key)

The annotations make the JSON Schema, the docstring's first paragraph the description; what an argument means is said by
`Annotated[..., "text"]` or under `Args:`. A parameter annotated `ToolContext` receives the context and is not shown to the model.
Undeclared effect means `unsafe` (K5). The decorated function can still be called as before.

A `def` runs in a thread of a bounded pool, an `async def` on the worker's event loop, where it must not block. Either is given up
after `timeout_s`; an `async def` is then cancelled, but **a thread cannot be killed**: a `def` that is given up goes on in the
background until it returns. Give its own I/O a time limit that is shorter than `timeout_s`.

A module of `@tool` functions is a toolset; `talon.tools.registry` says how it gets its name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

import msgspec
from pydantic import BaseModel

from talon.tools.protocol import EFFECTS, Effect, EffectUnknown, Outcome, ToolContext, ToolError, ToolSpec
from talon.tools.signature import Signature, read
from talon.tools.threads import THREADS

__all__ = ["EffectUnknown", "Outcome", "PythonTool", "ToolContext", "ToolError", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

#: What every provider accepts as the name of a function.
TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
Probe = Callable[..., Outcome | Awaitable[Outcome]]


class PythonTool(Generic[P, R]):
    """A function as a `talon.tools.protocol.Tool`; what `@tool` makes. Calling it calls the function itself."""

    def __init__(self, function: Callable[P, R], spec: ToolSpec, signature: Signature, probe: _Probe | None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._spec = spec
        self._signature = signature
        self._probe = probe

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function as it was written: no schema, no thread, no time limit."""
        return self.function(*args, **kwargs)

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def effect_of(self, args: Mapping[str, Any]) -> Effect:
        return self._spec.effect

    async def call(self, args: dict[str, Any], context: ToolContext) -> str:
        values = self._signature.convert(args)
        if self._signature.context:
            values[self._signature.context] = context
        return to_text(await _invoke(self.function, values))

    async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
        if self._probe is None:
            return Outcome("unknown")
        values = self._signature.convert(args)
        wanted = {name: value for name, value in values.items() if name in self._probe.names}
        if self._probe.context:
            wanted[self._probe.context] = context
        found = await _invoke(self._probe.function, wanted)
        if not isinstance(found, Outcome):
            raise TypeError(f"the probe of {self._spec.name!r} returned {type(found).__name__}; it must return an Outcome")
        return found


class _Probe(msgspec.Struct, frozen=True):
    """A probe and the arguments of the call that it wants to see."""

    function: Probe
    names: frozenset[str]
    context: str


@overload
def tool(function: Callable[P, R], /) -> PythonTool[P, R]: ...
@overload
def tool(
    *,
    effect: Effect = "unsafe",
    name: str = "",
    timeout_s: float = 60.0,
    key_ttl_s: float | None = None,
    output_max: int = 20_000,
    probe: Probe | None = None,
) -> Callable[[Callable[P, R]], PythonTool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: Effect = "unsafe",
    name: str = "",
    timeout_s: float = 60.0,
    key_ttl_s: float | None = None,
    output_max: int = 20_000,
    probe: Probe | None = None,
) -> Any:
    """Make a typed function a tool, as `@tool` or `@tool(...)`.

    `effect`: what may happen when the call is made again after a crash (K5): `read` changes nothing; `idempotent` does it once per
    `ToolContext.key`, honoured for `key_ttl_s` seconds (a day); `reconcilable` has a `probe` that finds out what became of a
    call; `unsafe` is never repeated without a human. `name` defaults to the function's. `timeout_s` bounds one attempt,
    `output_max` (characters) what the model gets of the result.

    The function returns a str or anything that JSON can carry (dataclasses, models, dates, …), which becomes compact JSON; it
    raises `ToolError` for failures that the model should read, and `EffectUnknown` when it cannot know whether it took effect.
    `probe(context, …)` takes the `ToolContext` and those of the tool's arguments that it names, and returns an `Outcome`.

    Raises `TypeError` when the module is imported, naming the function and what is wrong with it.
    """

    def make(function: Callable[P, R]) -> PythonTool[P, R]:
        tool_name = name or getattr(function, "__name__", "")
        what = f"tool {tool_name!r}"
        _check(what, tool_name, function, effect, timeout_s, key_ttl_s, output_max, probe)
        description, signature = read(function, what)
        spec = ToolSpec(
            name=tool_name,
            description=description,
            parameters=signature.parameters,
            effect=effect,
            key_ttl_s=86_400.0 if key_ttl_s is None else key_ttl_s,
            timeout_s=timeout_s,
            output_max=output_max,
            code=_digest(function, probe),
        )
        return PythonTool(function, spec, signature, _read_probe(probe, signature, what) if probe else None)

    return make(function) if function is not None else make


def to_text(value: object) -> str:
    """A result as text for the model: a str as it is, else compact JSON. Raises `TypeError` where there is no JSON form."""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value, enc_hook=_encode_unknown).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the call was made, but its result cannot be written as JSON: {error}") from None


def _encode_unknown(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"an object of type {type(value).__name__} has no JSON form")


async def _invoke(function: Callable[..., Any], values: dict[str, Any]) -> object:
    """Call an `async def` here and a `def` in a thread; a `def` that returns an awaitable is awaited here."""
    if inspect.iscoroutinefunction(function):
        return cast(object, await function(**values))
    result = await THREADS.run(functools.partial(function, **values))
    return cast(object, await result) if inspect.isawaitable(result) else result


def _check(
    what: str,
    name: str,
    function: Callable[..., Any],
    effect: str,
    timeout_s: float,
    key_ttl_s: float | None,
    output_max: int,
    probe: Probe | None,
) -> None:
    """Refuse declarations that cannot be meant. Raises `TypeError`."""
    if not TOOL_NAME.fullmatch(name):
        raise TypeError(f"{what}: a tool's name has 1 to 64 characters of A-Z a-z 0-9 _ - and begins with a letter or _")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{what}: a generator cannot be a tool; return the whole result")
    if effect not in EFFECTS:
        raise TypeError(f"{what}: effect {effect!r} is none of {', '.join(EFFECTS)}")
    if effect == "reconcilable" and probe is None:
        raise TypeError(f"{what}: a reconcilable tool needs `probe=`, a function that finds out what became of a call")
    if effect != "reconcilable" and probe is not None:
        raise TypeError(f"{what}: only a reconcilable tool has a probe; this one is {effect}")
    if effect != "idempotent" and key_ttl_s is not None:
        raise TypeError(f"{what}: only an idempotent tool honours keys for `key_ttl_s`; this one is {effect}")
    for limit, value in (("timeout_s", timeout_s), ("key_ttl_s", key_ttl_s), ("output_max", output_max)):
        if value is not None and value <= 0:
            raise TypeError(f"{what}: {limit} is {value!r}; it must be above 0")


def _read_probe(probe: Probe, signature: Signature, what: str) -> _Probe:
    """Which arguments `probe` wants. Raises `TypeError` if it wants one that the tool does not have."""
    _, own = read(probe, f"the probe of {what}")
    for name in own.codecs:
        if name not in signature.codecs:
            raise TypeError(f"the probe of {what} wants {name!r}, which is no parameter of the tool")
        if name in own.parameters["required"] and name not in signature.parameters["required"]:
            raise TypeError(f"the probe of {what} needs {name!r}, which the tool may be called without; give it a default too")
    return _Probe(probe, frozenset(own.codecs), own.context)


def _digest(*functions: Callable[..., Any] | None) -> str:
    """SHA-256 of the functions' source; of their byte code where there is no source (a prompt, a frozen program)."""
    digest = hashlib.sha256()
    for function in functions:
        if function is None:
            continue
        try:
            digest.update(inspect.getsource(function).encode())
        except (OSError, TypeError):
            code = getattr(inspect.unwrap(function), "__code__", None)
            digest.update(code.co_code + repr(code.co_names).encode() if code else type(function).__qualname__.encode())
    return digest.hexdigest()
