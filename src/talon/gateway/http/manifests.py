"""Manifests over HTTP: reading bodies, showing rows, and what OpenAPI says of both."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from starlette.requests import Request

from talon.domain.errors import Malformed
from talon.gateway.http.bodies import JSON_TYPES, YAML_TYPES, read_bytes
from talon.gateway.http.docs import ref
from talon.gateway.resources import Resources
from talon.gateway.times import rfc3339
from talon.manifest import kinds
from talon.manifest.catalogue import Catalogue
from talon.manifest.conditions import Condition, conditions
from talon.manifest.effective import decode
from talon.manifest.parse import parse
from talon.manifest.read import Expected, Reading, read
from talon.manifest.views import Stamp, shown_effective, shown_manifest
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

#: Bodies above this are parsed beside the event loop.
_INLINE_MAX = 16 * 1024
Unset = msgspec.UnsetType


class ManifestMetadata(msgspec.Struct, frozen=True):
    """Who a resource is. `uid`, `generation` and the times are Talon's."""

    name: str
    uid: str
    generation: int
    createdAt: str  # noqa: N815 - manifests keep the documents' spelling
    updatedAt: str  # noqa: N815
    namespace: str | Unset = msgspec.UNSET
    labels: dict[str, str] | Unset = msgspec.UNSET
    annotations: dict[str, str] | Unset = msgspec.UNSET


class ManifestStatus(msgspec.Struct, frozen=True):
    """What Talon knows of a resource now. `revision` and `template` are an agent's."""

    conditions: list[Condition]
    revision: int | Unset = msgspec.UNSET
    template: str | Unset = msgspec.UNSET


class Manifest(msgspec.Struct, frozen=True):
    """A resource: the manifest as it was applied, with its status. It can be applied again as it is."""

    apiVersion: Literal["talon.dev/v1alpha1"]  # noqa: N815
    kind: Literal["Namespace", "AgentTemplate", "Agent"]
    metadata: ManifestMetadata
    status: ManifestStatus
    spec: dict[str, Any] | Unset = msgspec.UNSET
    definition: dict[str, Any] | Unset = msgspec.UNSET


async def read_manifests(request: Request) -> Reading:
    """The body's documents, JSON or YAML, one or many. Raises `Malformed` | `TooLarge` | 415; what is wrong in a document stays
    in the reading."""
    return await _read(request, None)


async def read_manifest(request: Request, expected: Expected) -> Reading:
    """The one document of the body; what the route says may be left out of it. Raises as `read_manifests`, and `Malformed` for
    more than one."""
    return await _read(request, expected)


async def _read(request: Request, expected: Expected | None) -> Reading:
    data, media = await read_bytes(request, (*JSON_TYPES, *YAML_TYPES))
    form: Literal["json", "yaml"] = "json" if media in JSON_TYPES else "yaml"

    def work() -> Reading:
        documents = parse(data, form)
        if expected is not None and len(documents) > 1:
            raise Malformed("malformed", f"{len(documents)} documents; this route takes one, POST /v1/apply takes many")
        return read(documents, expected)

    return work() if len(data) <= _INLINE_MAX else await asyncio.to_thread(work)


def stamp(row: ResourceRow) -> Stamp:
    """What Talon writes into a shown manifest's metadata."""
    return Stamp(row.uid, row.generation, rfc3339(row.created_at_ms), rfc3339(row.updated_at_ms))


def shown(row: ResourceRow) -> dict[str, Any]:
    """A namespace or template as it is shown."""
    return shown_manifest(row.body, stamp(row))


class AgentViews:
    """Agents as they are shown. What workers serve is asked once for all agents of an answer."""

    def __init__(self, store: Store, resources: Resources, catalogue: Catalogue | None) -> None:
        self._store, self._resources, self._catalogue = store, resources, catalogue
        self._templates: dict[tuple[str, str], bool] = {}

    @classmethod
    async def now(cls, store: Store, resources: Resources) -> AgentViews:
        """With what is served now."""
        return cls(store, resources, await resources.served())

    async def shown(self, row: ResourceRow, effective: bool = False) -> dict[str, Any]:
        """The manifest as it was applied, or the agent as turns run it; with its conditions."""
        revision = await self._resources.revision(row)
        if revision is None:
            return shown_manifest(row.body, stamp(row))
        agent = decode(revision.effective)
        found = conditions(agent, await self._has_template(row.namespace, agent.template), self._catalogue)
        if not effective:
            return shown_manifest(row.body, stamp(row), found, row.revision, agent.template)
        metadata: dict[str, Any] = msgspec.json.decode(row.body)["metadata"]
        return shown_effective(agent, metadata, stamp(row), found, row.revision)

    async def _has_template(self, namespace: str, name: str) -> bool:
        if not name:
            return True
        key = (namespace, name)
        if key not in self._templates:
            self._templates[key] = await self._store.get_resource(namespace, "AgentTemplate", name) is not None
        return self._templates[key]


def manifest_doc(*models: type, many: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that takes manifests of `models`, as JSON or YAML, one or (`many`) a list of them."""
    refs = [ref(model) for model in models]
    one: dict[str, Any] = refs[0] if len(refs) == 1 else {"oneOf": refs}
    schema = {"oneOf": [*refs, {"type": "array", "minItems": 1, "items": one}]} if many else one
    text = "Manifests as YAML, one or many documents." if many else "The manifest as YAML."
    content = {
        "application/json": {"schema": schema},
        "application/yaml": {"schema": {"type": "string", "description": text}},
    }
    return {"requestBody": {"required": True, "content": content}}


ALL_DOCS = (kinds.NamespaceDoc, kinds.TemplateDoc, kinds.AgentDoc, kinds.SessionDoc, kinds.BareSession)
