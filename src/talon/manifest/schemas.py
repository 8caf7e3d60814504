"""JSON Schemas (2020-12) of what may be written, for editors and for whoever generates manifests: made from the models themselves.

What a schema cannot say (a cron expression that never fires, two fields that exclude each other, what is stored) is refused when it
is applied.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from talon.manifest import kinds

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: The name of the schema that every document of a file has: any kind, and the forms without an envelope.
ANY: Final = "Manifest"
NAMES: Final = (*kinds.KINDS, ANY)
#: The forms without an envelope, with the fields that tell them apart.
_BARE: Final[tuple[tuple[type[BaseModel], tuple[str, ...]], ...]] = (
    (kinds.BareSession, ("id", "agent")),
    (kinds.BareSchedule, ("name", "spec")),
)


@functools.cache
def schema(name: str) -> Schema | None:
    """The schema of a kind, or of any manifest (`ANY`); None for any other name. It is shared: do not change it."""
    if name == ANY:
        return _any()
    model = kinds.DOCS.get(name)
    return None if model is None else {"$schema": DIALECT, **model.model_json_schema(), "title": name}


def _any() -> Schema:
    """One that tells the kinds apart by `kind`, so that an editor complains about the kind that is meant and no other."""
    models = (*kinds.DOCS.values(), *(model for model, _ in _BARE))
    _, made = models_json_schema([(model, "validation") for model in models])  # at once: parts that several have are made once
    branches: list[Schema] = []
    for kind, model in kinds.DOCS.items():
        branches.append({"if": {"required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": _ref(model)})
    for model, fields in _BARE:
        bare: Schema = {"required": list(fields), "not": {"anyOf": [{"required": ["kind"]}, {"required": ["metadata"]}]}}
        if model is kinds.BareSession:  # its own metadata is free-form
            bare["not"] = {"required": ["kind"]}
        branches.append({"if": bare, "then": _ref(model)})
    known = [{"required": ["kind"]}, *({"required": list(fields)} for _, fields in _BARE)]
    return {
        "$schema": DIALECT,
        "title": ANY,
        "description": "Any resource of Talon; sessions and schedules also without an envelope.",
        "type": "object",
        "properties": {"kind": {"description": "What it is.", "enum": list(kinds.KINDS)}},
        "anyOf": known,
        "allOf": branches,
        "$defs": dict(sorted(made["$defs"].items())),
    }


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": f"#/$defs/{model.__name__}"}
