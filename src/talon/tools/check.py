"""May a call that the model asks for be made at all? The pure half of the gate (`talon.tools.gate`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from talon.tools.protocol import Effect, Tool, ToolSpec
from talon.tools.text import clean, said

if TYPE_CHECKING:
    # Imported where schemas are compiled: a process that has only Talon's own tools, and calls none, does without.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

ARGUMENTS_MAX = 262_144  # characters of JSON
REPEATS_MAX = 3
_SHOWN_MAX = 20  # violations, or known tools, named in one message
_VALUE_MAX = 200  # characters of one violation: the validator quotes the offending value


class Past(msgspec.Struct, frozen=True):
    """An earlier call of the same turn. `failed`: it was denied, or its receipt is a failure."""

    name: str
    arguments: str
    failed: bool


class Ok(msgspec.Struct, frozen=True):
    """The call may be made with `args`; `effect` is the class of this very call."""

    args: dict[str, Any]
    effect: Effect


class Denied(msgspec.Struct, frozen=True):
    """The call is not made; the model is told `message`. `reason`: unknown_tool | too_large | malformed | invalid | repeated."""

    reason: str
    message: str


def check(
    specs: Mapping[str, ToolSpec],
    name: str,
    arguments: str,
    history: Sequence[Past] = (),
    tools: Mapping[str, Tool] | None = None,
) -> Ok | Denied:
    """May the model's call of `name` with the JSON text `arguments` be made? Pure: the same question gives the same answer.

    `specs` are the turn's pinned tools, `history` its earlier calls in order, `tools` the living code that knows the effect of this
    very call (without it the pinned effect counts). Empty `arguments` mean no arguments: several providers send that.
    Denied: over `ARGUMENTS_MAX` characters; the identical call has failed `REPEATS_MAX` times since it last succeeded; an unknown
    tool; no JSON object; a violation of the schema (all of them are named, by path).
    """
    if len(arguments) > ARGUMENTS_MAX:
        return Denied(
            "too_large", f"the arguments of {_quote(name)} have {len(arguments)} characters, at most {ARGUMENTS_MAX} are allowed"
        )
    failures = _failures(name, arguments, history)
    if failures >= REPEATS_MAX:
        return Denied(
            "repeated", f"{_quote(name)} has failed {failures} times with these same arguments; change them, or go on without it"
        )
    spec = specs.get(name)
    if spec is None:
        known = ", ".join(sorted(specs)[:_SHOWN_MAX]) or "none"
        more = f" and {len(specs) - _SHOWN_MAX} more" if len(specs) > _SHOWN_MAX else ""
        return Denied("unknown_tool", f"there is no tool {_quote(name)}; the tools are: {known}{more}")
    try:
        args = _decode(arguments)
    except (ValueError, RecursionError) as error:
        return Denied("malformed", f"the arguments of {name!r} are not JSON: {error}")
    if not isinstance(args, dict):
        return Denied("malformed", f"the arguments of {name!r} must be a JSON object, not {_short(arguments)}")
    args = cast(dict[str, Any], args)
    violations = _violations(spec, args)
    if violations:
        return Denied("invalid", f"the arguments of {name!r} do not fit its schema: " + "; ".join(violations))
    tool = (tools or {}).get(name)
    return Ok(args, spec.effect if tool is None else effect_of(tool, args))


def check_schema(spec: ToolSpec) -> str:
    """What is wrong with a tool's `parameters` as JSON Schema of an object; empty if nothing is."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(spec.parameters)
    except SchemaError as error:
        return f"{error.json_path}: {_short(error.message)}"
    return "" if spec.parameters.get("type") == "object" else "it must describe an object (`type: object`)"


def effect_of(tool: Tool, args: dict[str, Any]) -> Effect:
    """The effect class of this very call, also of a tool that fails to say it."""
    try:
        return tool.effect_of(args)
    except Exception:  # noqa: BLE001 - a tool that cannot say what it does is taken for the worst
        return "unsafe"


def _failures(name: str, arguments: str, history: Sequence[Past]) -> int:
    """How often this very call has failed since it last succeeded."""
    same_tool = [past for past in history if past.name == name]
    if len(same_tool) < REPEATS_MAX:
        return 0
    wanted, failures = _canonical(arguments), 0
    for past in reversed(same_tool):
        if _canonical(past.arguments) != wanted:
            continue
        if not past.failed:
            break
        failures += 1
    return failures


def _decode(arguments: str) -> Any:
    return msgspec.json.decode(clean(arguments)) if arguments.strip() else {}


def _canonical(arguments: str) -> bytes:
    """The same for arguments that mean the same JSON, whatever their spacing and the order of their fields."""
    try:
        return msgspec.json.encode(_decode(arguments), order="sorted")
    except (ValueError, RecursionError):
        return clean(arguments).encode()


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Draft202012Validator:
    """Compiled once per schema. The empty registry keeps a `$ref` from being fetched over the network."""
    from jsonschema import Draft202012Validator
    from referencing import Registry as References

    return Draft202012Validator(msgspec.json.decode(schema), registry=References())


def _violations(spec: ToolSpec, args: dict[str, Any]) -> list[str]:
    """Every violation by path, shortened. A schema that cannot be evaluated is a violation: nothing passes unchecked."""
    try:
        validator = _validator(msgspec.json.encode(spec.parameters))
        errors = cast("Iterator[ValidationError]", validator.iter_errors(args))  # pyright: ignore[reportUnknownMemberType]
        found = sorted(errors, key=lambda error: error.json_path)
    except RecursionError:
        return ["they are nested too deeply"]
    except Exception as error:  # noqa: BLE001 - an unresolvable $ref or a broken pattern of somebody's schema
        return [f"the schema cannot be evaluated ({_short(said(error))})"]
    lines = [f"{_path(error)}: {_reason(error)}" for error in found[:_SHOWN_MAX]]
    return [*lines, f"and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else lines


def _path(error: ValidationError) -> str:
    return error.json_path.removeprefix("$.").replace("$", "arguments", 1) if error.absolute_path else "arguments"


def _reason(error: ValidationError) -> str:
    """What is wrong; for a union the complaint of each branch, since "not valid under any" helps nobody."""
    if error.context:
        return " or ".join(dict.fromkeys(_short(inner.message) for inner in error.context[:4]))
    return _short(error.message)


def _quote(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_MAX else f"{text[: _VALUE_MAX // 2]} … {text[-_VALUE_MAX // 2 :]}"
