"""`…/export`: a namespace as manifests that apply again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from talon.gateway.api.collections import NAMESPACES, require
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.manifest.dump import export_of
from talon.manifest.kinds import KINDS
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

_YAML = {"application/yaml": {"schema": {"description": "YAML, one document for each resource."}}}
#: Resources written at a time.
_PAGE = 100


def router(deps: GatewayDeps) -> APIRouter:
    """The export route."""
    api = APIRouter(tags=["namespaces"])

    @api.get(
        "/v1/ns/{ns}/export",
        operation_id="exportNamespace",
        summary="A namespace and what is in it as manifests that apply again; without sessions, and without the values of secrets",
        responses=doc(None, 200, refused=("namespace_not_found",), content=_YAML),
    )
    async def export(ns: str) -> Response:
        row = await require(deps.store, NAMESPACES, "", ns)
        return StreamingResponse(_documents(deps.store, row), media_type="application/yaml")

    return api


async def _documents(store: Store, namespace: ResourceRow) -> AsyncGenerator[str]:
    """The namespace, then kind by kind: nothing stands before what it refers to. What changes meanwhile may be in it or not."""
    yield export_of([namespace.body])
    for kind in KINDS:
        cursor = ""
        while kind not in ("Namespace", "Session"):
            rows, cursor = await store.list_resources(namespace.name, kind, cursor, _PAGE)
            bodies = [row.body for row in rows if row.deleting_at_ms is None]
            if bodies:
                yield await asyncio.to_thread(export_of, bodies)  # takes a millisecond each
            if not cursor:
                break
