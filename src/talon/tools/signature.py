"""A function's parameters as JSON Schema, and the way from JSON arguments to the Python values that they mean.

pydantic does the work; what it does not know (msgspec Structs, `typing.TypedDict` before Python 3.12) msgspec does.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol, Union, cast, get_args, get_origin, get_type_hints

import msgspec
import pydantic
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from talon.tools.docstring import describe
from talon.tools.protocol import ToolContext, ToolError

_REF = "#/$defs/{name}"
_MSGSPEC_REF = "#/$defs/msgspec.{name}"  # apart from pydantic's definitions, which may have the same names


class _Schemas(GenerateJsonSchema):
    """Without the titles that pydantic makes of field names: the model is told each name once."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Codec(Protocol):
    def convert(self, value: Any) -> Any: ...
    def to_json(self, value: Any) -> Any: ...


class _PydanticCodec:
    def __init__(self, annotation: Any) -> None:
        self.adapter = pydantic.TypeAdapter[Any](annotation)

    def convert(self, value: Any) -> Any:
        try:
            return self.adapter.validate_python(value)
        except pydantic.ValidationError as error:
            wrong = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}".removeprefix(": ") for e in error.errors()]
            raise ValueError("; ".join(wrong)) from None

    def to_json(self, value: Any) -> Any:
        return self.adapter.dump_python(value, mode="json")


class _MsgspecCodec:
    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def convert(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self.annotation)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    def to_json(self, value: Any) -> Any:
        return msgspec.to_builtins(value)


class Signature(msgspec.Struct, frozen=True):
    """`parameters` is JSON Schema (2020-12) of an object. `context` names the parameter for the `ToolContext`, or is empty."""

    parameters: dict[str, Any]
    context: str
    codecs: dict[str, _Codec]

    def convert(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that have passed the schema, as Python values. A type may ask more than its schema can say (a date, a
        validator): then `ToolError` names every wrong argument. Unknown names are left out; defaults are the function's."""
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for name, codec in self.codecs.items():
            if name not in args:
                continue
            try:
                values[name] = codec.convert(args[name])
            except (ValueError, RecursionError) as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise ToolError("wrong arguments: " + " | ".join(wrong))
        return values


def read(function: Callable[..., Any], what: str) -> tuple[str, Signature]:
    """-> (description, signature) of `function`. `what` names it in errors. Raises `TypeError` for what cannot be a parameter of a
    tool: no annotation, `*args`, positional-only, a type that JSON cannot carry, an annotation that cannot be resolved."""
    description, documented = describe(function.__doc__)
    hints = _hints(function, what)
    context, codecs = "", dict[str, _Codec]()
    required: list[str] = []
    extras: dict[str, dict[str, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{what}: parameter {parameter} cannot be given by name; a tool's parameters are all given by name")
        if name not in hints:
            raise TypeError(f"{what}: parameter {name!r} has no annotation; say its type, as in `{name}: str`")
        if _is_context(hints[name]):
            if context:
                raise TypeError(f"{what}: both {context!r} and {name!r} are a ToolContext; one is enough")
            context = name
            continue
        codecs[name] = _codec(hints[name], f"{what}: parameter {name!r}")
        extras[name] = _extras(parameter, codecs[name], _annotated_text(hints[name]) or documented.get(name, ""), what)
        if parameter.default is parameter.empty:
            required.append(name)
    return description, Signature(_schema(codecs, extras, required), context, codecs)


def _hints(function: Callable[..., Any], what: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{what}: an annotation cannot be resolved: {error}; import or define it at the module's top, outside TYPE_CHECKING"
        ) from None


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return ToolContext in get_args(hint)
    return hint is ToolContext


def _annotated_text(hint: Any) -> str:
    """The first plain string in `Annotated[...]`."""
    if get_origin(hint) is not Annotated:
        return ""
    return next((item for item in get_args(hint)[1:] if isinstance(item, str)), "")


def _codec(hint: Any, what: str) -> _Codec:
    try:
        codec = _PydanticCodec(hint)
        codec.adapter.json_schema()  # some types can be validated but not described
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        try:
            msgspec.json.schema_components([hint], ref_template=_MSGSPEC_REF)
        except (TypeError, RuntimeError):
            first = str(error).partition("\n")[0]
            raise TypeError(f"{what}: type {hint!r} cannot be given as JSON: {first}") from None
        return _MsgspecCodec(hint)
    return codec


def _extras(parameter: inspect.Parameter, codec: _Codec, text: str, what: str) -> dict[str, Any]:
    """What the schema says of a parameter beside its type: description and default."""
    extras: dict[str, Any] = {"description": text} if text else {}
    if parameter.default is not parameter.empty:
        try:
            extras["default"] = codec.to_json(parameter.default)
        except Exception as error:  # noqa: BLE001 - encoders raise what they like; all of it is the author's mistake
            raise TypeError(f"{what}: the default of {parameter.name!r} cannot be written as JSON: {error}") from None
    return extras


def _schema(codecs: Mapping[str, _Codec], extras: Mapping[str, dict[str, Any]], required: list[str]) -> dict[str, Any]:
    """One object schema of all parameters, with the definitions that they share."""
    by_pydantic = {name: codec.adapter for name, codec in codecs.items() if isinstance(codec, _PydanticCodec)}
    by_msgspec = {name: codec.annotation for name, codec in codecs.items() if isinstance(codec, _MsgspecCodec)}
    described, shared = pydantic.TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in by_pydantic.items()],
        ref_template=_REF.replace("name", "model"),
        schema_generator=_Schemas,
    )
    schemas: dict[str, Any] = {name: schema for (name, _), schema in described.items()}
    defs = cast(dict[str, Any], shared.get("$defs", {}))
    found, components = msgspec.json.schema_components(by_msgspec.values(), ref_template=_MSGSPEC_REF)
    schemas.update(zip(by_msgspec, found, strict=True))
    defs.update({f"msgspec.{name}": schema for name, schema in components.items()})
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {name: {**schemas[name], **extras[name]} for name in codecs},
        "required": required,
        "additionalProperties": False,
    }
    if defs:
        parameters["$defs"] = defs
    return parameters
