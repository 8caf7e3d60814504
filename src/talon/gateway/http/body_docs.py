"""What OpenAPI says of bodies that are manifests: the kinds' own schemas, less what the route says already."""

from __future__ import annotations

from typing import Any

from talon.gateway.http.bodies import PATCH_TYPES
from talon.gateway.http.docs import REF, ref
from talon.manifest import kinds

_Json = dict[str, Any]
#: What a route knows of the one manifest in its body.
_KNOWN = frozenset({"apiVersion", "kind", "metadata"})
_YAML = {"type": "string", "minLength": 1}


def manifests_doc() -> _Json:
    """The `requestBody` of a route that takes whole manifests of all kinds, as JSON (alone or in a list) or YAML."""
    refs = [ref(kinds.DOCS[kind]) for kind in kinds.KINDS] + [ref(kinds.BareSession), ref(kinds.BareSchedule)]
    schema = {"anyOf": [*refs, {"type": "array", "minItems": 1, "items": {"anyOf": refs}}]}
    return _body(schema, "Manifests as YAML, one or many documents.")


def manifest_doc(kind: str, *, named: bool) -> _Json:
    """The `requestBody` of a route that takes one manifest of `kind`. What the route says may be left out, the name too if it is
    `named` there; and instead of `metadata` there may be `name`, `ns`, `labels` and `annotations`."""
    model = kinds.DOCS[kind]
    ref(model)  # its parts get into the document
    whole = model.model_json_schema(ref_template=REF.replace("{name}", "{model}"))
    properties: _Json = whole["properties"]
    metadata: _Json = dict(whole["$defs"][properties["metadata"]["$ref"].rpartition("/")[2]])
    own: _Json = metadata["properties"]
    required = [name for name in whole.get("required", ()) if name not in _KNOWN]
    if named:
        metadata.pop("required", None)
    enveloped = _closed({**properties, "metadata": metadata}, required if named else ["metadata", *required])
    short = {
        "name": own["name"],
        "labels": own["labels"],
        "annotations": own["annotations"],
        **({"ns": own["namespace"]} if "namespace" in own else {}),
        **{name: schema for name, schema in properties.items() if name != "metadata"},
    }
    return _body({"anyOf": [enveloped, _closed(short, ["name", *required])]}, "The manifest as YAML.")


def patch_doc(kind: str) -> _Json:
    """The `requestBody` of a route that takes a merge patch of a manifest of `kind`."""
    text = f"Fields of the {kind}'s manifest to change; null takes one away (RFC 7396)."
    schema = {"type": "object", "description": text}
    return {"requestBody": {"required": True, "content": {media: {"schema": schema} for media in PATCH_TYPES}}}


def _closed(properties: _Json, required: list[str]) -> _Json:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def _body(schema: _Json, text: str) -> _Json:
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": {**_YAML, "description": text}}}
    return {"requestBody": {"required": True, "content": content}}
