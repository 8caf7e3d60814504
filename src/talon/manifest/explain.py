"""What a field is: read from the schema, so that it says what is checked."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from talon.domain.errors import FieldError, Invalid
from talon.manifest.complaints import nearest
from talon.manifest.document import shown
from talon.manifest.kinds import DOCS, KINDS
from talon.manifest.schemas import Schema, schema

PATH_MAX = 512
_PLACE = re.compile(r"\[[0-9]+\]|\.[0-9]+(?=\.|$)")


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field in one line. `type` is in words (`list of text`), `required` whether it must be written."""

    name: str
    type: str
    required: bool = False
    description: str = ""


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind or a field of one. `path` is as it is written, without places in lists. `default` is unset where there is none;
    `values` are the only ones allowed, `examples` some that are; `rules` are the bounds in words; `fields` is what stands below."""

    kind: str
    path: str
    type: str
    description: str = ""
    required: bool = False
    default: Any = msgspec.UNSET
    values: tuple[Any, ...] = ()
    examples: tuple[Any, ...] = ()
    rules: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()


def explain(path: str) -> Explanation:
    """What `KIND` or `KIND.field.field` is (`Schedule.spec.cron`); free mappings are stepped through without a key. A place in a
    list (`documents[0].content`, as errors name it) may be left out.

    The kind may be written in any case. Raises `Invalid` for what there is not, with what may be meant.
    """
    if len(path) > PATH_MAX:
        raise _unknown(path, f"has {len(path)} characters; at most {PATH_MAX}")
    first, *fields = _PLACE.sub("", path).split(".")
    kind = next((known for known in DOCS if known.casefold() == first.casefold()), "")
    if not kind:
        raise _unknown(path, f"unknown kind {shown(first)!r}{nearest(first, KINDS)}")
    whole = schema(kind) or {}
    at: Schema = whole
    required, walked = True, kind
    for name in fields:
        inside = _inside(whole, at)
        properties: dict[str, Schema] = inside.get("properties", {})
        if name not in properties:
            what = f"{walked} has no field {shown(name)!r}{nearest(name, properties)}" if properties else f"{walked} has no fields"
            raise _unknown(path, what)
        at, required, walked = properties[name], name in inside.get("required", ()), f"{walked}.{name}"
    return _explanation(whole, at, kind, walked, required)


def _explanation(whole: Schema, at: Schema, kind: str, path: str, required: bool) -> Explanation:
    target, inside = _resolved(whole, at), _inside(whole, at)
    below = inside.get("properties", {})
    forced = inside.get("required", ())
    return Explanation(
        kind=kind,
        path=path,
        type=type_of(whole, at),
        description=str(at.get("description") or target.get("description", "")),
        required=required and path != kind,
        default=at.get("default", msgspec.UNSET),
        values=tuple(target.get("enum", ())) or ((target["const"],) if "const" in target else ()),
        examples=tuple(target.get("examples", ())),
        rules=tuple(_rules(target)),
        fields=tuple(
            Field(name, type_of(whole, one), name in forced, str(one.get("description", ""))) for name, one in below.items()
        ),
    )


def type_of(whole: Schema, at: Schema) -> str:
    """The type in words: `text`, `list of Model`, `mapping to text or SecretRef`."""
    if "$ref" in at:
        return str(at["$ref"]).rpartition("/")[2]
    forms = at.get("anyOf") or at.get("oneOf")
    if forms:
        return " or ".join(type_of(whole, one) for one in forms)
    if "enum" in at or "const" in at:
        return " | ".join(str(value) for value in at.get("enum", [at.get("const")]))
    if at.get("type") == "array":
        return f"list of {type_of(whole, at['items'])}" if at.get("items") else "list"
    if at.get("type") == "object" and "properties" not in at:
        values = _values(at)
        return f"mapping to {type_of(whole, values[0])}" if values else "mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping"}
    return words.get(str(at.get("type")), "anything")


def _rules(at: Schema) -> list[str]:
    """Bounds in words."""
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "maxItems": "at most {} items",
        "maxProperties": "at most {} entries",
        "pattern": "matches {}",
    }
    said = [text.format(at[key]) for key, text in words.items() if key in at]
    empty = ["not empty"] if 1 in (at.get("minLength"), at.get("minItems")) else []
    return empty + said + (["never shown"] if at.get("writeOnly") else [])


def _resolved(whole: Schema, at: Schema) -> Schema:
    """What `at` refers to, or itself."""
    return whole["$defs"][str(at["$ref"]).rpartition("/")[2]] if "$ref" in at else at


def _inside(whole: Schema, at: Schema) -> Schema:
    """The mapping whose fields stand below `at`: through lists, free mappings and the form with fields among several."""
    found = _resolved(whole, at)
    while "properties" not in found:
        forms: list[Schema] = found.get("anyOf") or found.get("oneOf") or []
        items: list[Schema] = [found["items"]] if found.get("items") else []
        inner = items or _values(found) or [one for one in forms if "$ref" in one]
        if not inner:
            return {}
        found = _resolved(whole, inner[0])
    return found


def _values(at: Schema) -> list[Schema]:
    """What the values of a free mapping are; none where anything may stand there."""
    named: Schema = at.get("patternProperties", {})
    return list(named.values())


def _unknown(path: str, why: str) -> Invalid:
    return Invalid("invalid", why, (FieldError("path", why, shown(path)),))
