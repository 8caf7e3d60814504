"""Resources as they are shown: the manifest as it was applied, with what Talon knows about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from talon.manifest.conditions import Condition
from talon.manifest.effective import Effective, Feature, Profile, Route
from talon.manifest.metadata import API_VERSION


class Stamp(msgspec.Struct, frozen=True):
    """What Talon writes into a shown manifest's metadata; times are RFC 3339. `deleting_at` is empty unless it is being deleted."""

    uid: str
    generation: int
    version: int
    created_at: str
    updated_at: str
    deleting_at: str = ""


def shown_manifest(body: bytes, stamp: Stamp, conditions: Sequence[Condition] = (), revision: int = 0) -> dict[str, Any]:
    """The stored manifest `body` with stamp and status, the envelope first. Applying it again changes nothing."""
    data: dict[str, Any] = msgspec.json.decode(body)
    metadata = {**data.pop("metadata"), **_stamped(stamp)}
    head = {"apiVersion": data.pop("apiVersion"), "kind": data.pop("kind"), "metadata": metadata}
    return {**head, **data, "status": _status(stamp, conditions, revision, _template(data) if head["kind"] == "Agent" else "")}


def shown_effective(
    effective: Effective, metadata: dict[str, Any], stamp: Stamp, conditions: Sequence[Condition], revision: int
) -> dict[str, Any]:
    """The agent as turns run it: an Agent manifest with a whole definition of its own, every default written out.

    `metadata` is that of the stored manifest.
    """
    spec: dict[str, Any] = {"features": effective.features}
    if effective.profile:
        spec["profile"] = effective.profile
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {**metadata, **_stamped(stamp)},
        "spec": spec,
        "definition": shown_definition(effective),
        "status": _status(stamp, conditions, revision, effective.template),
    }


def shown_definition(effective: Effective) -> dict[str, Any]:
    """The resolved definition in the documents' own words."""
    spec: dict[str, Any] = {
        "features": [_feature(one) for one in effective.declared],
        **({"modelPolicy": _model_policy(effective)} if effective.profiles else {}),
        "systemPrompt": effective.system_prompt,
        "mcpServerRefs": list(effective.tool_refs),
    }
    if effective.routing:
        spec["policies"] = {"model_routing": {f"tier_{tier}": _route(route) for tier, route in effective.routing.items()}}
    if effective.knowledge_refs:
        spec["knowledgeRefs"] = list(effective.knowledge_refs)
    if effective.allowed_tools is not None:
        spec["capabilities"] = {"allowed_tools": list(effective.allowed_tools)}
    spec["limits"] = msgspec.to_builtins(effective.limits)
    return {"customSpec": spec}


def _template(data: dict[str, Any]) -> str:
    """The name of the template that an Agent's manifest refers to, in either of its forms; nothing if it has none."""
    ref: str | dict[str, str] = data.get("spec", {}).get("templateRef", "")
    return ref if isinstance(ref, str) else ref["name"]


def _stamped(stamp: Stamp) -> dict[str, Any]:
    stamped: dict[str, Any] = {
        "uid": stamp.uid,
        "generation": stamp.generation,
        "resourceVersion": str(stamp.version),
        "createdAt": stamp.created_at,
        "updatedAt": stamp.updated_at,
    }
    return {**stamped, "deletingAt": stamp.deleting_at} if stamp.deleting_at else stamped


def _status(stamp: Stamp, conditions: Sequence[Condition], revision: int, template: str) -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": "Terminating" if stamp.deleting_at else "Active",
        "observedGeneration": stamp.generation,
        "conditions": [msgspec.to_builtins(one) for one in conditions],
    }
    if revision:
        status["revision"] = revision
    if template:
        status["template"] = template
    return status


def _feature(feature: Feature) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": feature.name, "type": feature.type, "required": feature.required}
    if feature.default is not None:
        shown["default"] = feature.default
    if feature.values:
        shown["values"] = list(feature.values)
    if feature.description:
        shown["description"] = feature.description
    return shown


def _model_policy(effective: Effective) -> dict[str, Any]:
    shown: dict[str, Any] = {"profiles": [_profile(one) for one in effective.profiles]}
    if effective.select != "order":
        shown["select"] = effective.select
    if effective.on_refusal != "end":
        shown["onRefusal"] = effective.on_refusal
    return shown


def _route(route: Route) -> dict[str, Any]:
    return {"primary": route.primary} | ({"fallback": list(route.fallback)} if route.fallback else {})


#: Fields of a profile's model: as they are written -> as they are kept.
_MODEL = {
    "temperature": "temperature",
    "maxTokens": "max_output_tokens",
    "topP": "top_p",
    "topK": "top_k",
    "stop": "stop",
    "seed": "seed",
    "thinkingLevel": "thinking",
    "toolChoice": "tool_choice",
    "parallelToolCalls": "parallel_tool_calls",
    "onBrokenStream": "on_broken_stream",
}


def _profile(profile: Profile) -> dict[str, Any]:
    model: dict[str, Any] = {"provider": profile.provider, "name": profile.model}
    for written, kept in _MODEL.items():
        value = getattr(profile, kept)
        if value not in (None, "", ()):
            model[written] = list(value) if written == "stop" else value
    if profile.answer_schema is not None:
        form = profile.answer_schema
        model["answerSchema"] = {"name": form.name, "schema": form.schema, "strict": form.strict}
    return {"name": profile.name, "model": model}
