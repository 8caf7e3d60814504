"""`/v1/ns/{ns}/templates`: what agents are made from. They are written by apply."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from talon.domain.errors import NotFound
from talon.domain.ids import is_name, is_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.lookup import require_namespace
from talon.gateway.http.manifests import Manifest, shown
from talon.gateway.http.wire import Cursor, Limit, page, reply

TEMPLATES = "/v1/ns/{ns}/templates"


def router(deps: GatewayDeps) -> APIRouter:
    """The template routes."""
    api = APIRouter(tags=["templates"])
    store = deps.store

    @api.get(
        TEMPLATES,
        operation_id="listTemplates",
        summary="The templates of a namespace, by name",
        responses=doc(Manifest, 200, listed=True, refused=("namespace_not_found", "cursor_invalid")),
    )
    async def templates(ns: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        await require_namespace(store, ns)
        rows, after = await store.list_resources(ns, "AgentTemplate", cursor, limit)
        return page([shown(row) for row in rows], after)

    @api.get(
        TEMPLATES + "/{template}",
        operation_id="getTemplate",
        summary="One template",
        responses=doc(Manifest, 200, refused=("namespace_not_found", "template_not_found")),
    )
    async def get(ns: str, template: str) -> Response:
        row = await store.get_resource(ns, "AgentTemplate", template) if is_namespace(ns) and is_name(template) else None
        if row is None:
            await require_namespace(store, ns)
            raise NotFound("template_not_found", f"no template {template[:80]!r} in namespace {ns!r}")
        return reply(shown(row))

    return api
