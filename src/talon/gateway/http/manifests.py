"""Manifests over HTTP: how they look in answers, and reading them from bodies."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from starlette.requests import Request

from talon.domain.errors import FieldError, Invalid
from talon.gateway.api.reading import INLINE_MAX, read_documents
from talon.gateway.api.schedules import ScheduleStatus
from talon.gateway.http.bodies import JSON_TYPES, PATCH_TYPES, YAML_TYPES, read_bytes
from talon.manifest.conditions import Condition
from talon.manifest.document import Document
from talon.manifest.parse import parse
from talon.manifest.plan import invalid
from talon.manifest.read import Expected, Reading

Unset = msgspec.UnsetType


class ManifestMetadata(msgspec.Struct, frozen=True):
    """Who a resource is. `uid`, `generation`, `resourceVersion` and the times are Talon's; `deletingAt` is there while it is being
    deleted."""

    name: str
    uid: str
    generation: int
    resourceVersion: str  # noqa: N815 - manifests keep the documents' spelling
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815
    deletingAt: str | Unset = msgspec.UNSET  # noqa: N815
    namespace: str | Unset = msgspec.UNSET
    labels: dict[str, str] | Unset = msgspec.UNSET
    annotations: dict[str, str] | Unset = msgspec.UNSET


class ManifestStatus(msgspec.Struct, frozen=True):
    """What Talon knows of a resource now. `conditions` are about generation `observedGeneration`; `revision` and `template` are an
    agent's, `schedule` is a schedule's."""

    phase: Literal["Active", "Terminating"]
    observedGeneration: int  # noqa: N815
    conditions: list[Condition]
    revision: int | Unset = msgspec.UNSET
    template: str | Unset = msgspec.UNSET
    schedule: ScheduleStatus | Unset = msgspec.UNSET


class Manifest(msgspec.Struct, frozen=True):
    """A resource: the manifest as it was applied, with its status. It can be applied again as it is. A Secret's value is not in
    it."""

    apiVersion: Literal["talon.dev/v1alpha1"]  # noqa: N815
    kind: Literal["Namespace", "AgentTemplate", "Agent", "Schedule", "Knowledge", "McpServer", "McpBinding", "Secret"]
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
    # Of nothing at all the other form says better what is missing.
    form: Literal["json", "yaml"] = "json" if media in JSON_TYPES and data else "yaml"
    return await read_documents(data, form, expected)


async def read_patch(request: Request) -> Document:
    """The body as a JSON merge patch (RFC 7396). Raises `Malformed` | `TooLarge` | `Invalid` | 415."""
    data, _ = await read_bytes(request, PATCH_TYPES)
    if not data.lstrip(b" \t\r\n").startswith(b"{"):  # a list would be several manifests, and nothing none
        message = "must be a JSON object with the fields to change"
        raise Invalid("invalid", f"the body {message}", (FieldError("body", message),))
    (found,) = await asyncio.to_thread(parse, data, "json") if len(data) > INLINE_MAX else parse(data, "json")
    document = found.by_itself()
    if document.problems:
        raise invalid(list(document.problems))
    return document
