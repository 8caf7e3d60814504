"""`/v1/ns/{ns}/templates`: what agents are made from. They are written by apply."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from talon.domain.errors import Conflict, FieldError, NotFound
from talon.domain.ids import is_name, is_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.lookup import require_namespace
from talon.gateway.http.manifests import Manifest, shown
from talon.gateway.http.wire import Cursor, Limit, page, reply
from talon.gateway.http.writing import remove
from talon.gateway.resources import Resources
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

TEMPLATES = "/v1/ns/{ns}/templates"
_SHOWN_MAX = 5


def router(deps: GatewayDeps) -> APIRouter:
    """The template routes."""
    api = APIRouter(tags=["templates"])
    store, resources = deps.store, Resources(deps.store, deps.ids)

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
        return reply(shown(await _require(store, ns, template)))

    @api.delete(
        TEMPLATES + "/{template}",
        operation_id="deleteTemplate",
        status_code=204,
        summary="Delete a template that no agent is made from",
        responses=doc(None, 204, refused=("namespace_not_found", "template_not_found", "in_use", "conflict")),
    )
    async def delete(ns: str, template: str) -> Response:
        await remove(store, lambda: _require(store, ns, template), lambda row: _refuse_while_used(resources, row))
        return Response(status_code=204)

    return api


async def _require(store: Store, namespace: str, template: str) -> ResourceRow:
    valid = is_namespace(namespace) and is_name(template)
    row = await store.get_resource(namespace, "AgentTemplate", template) if valid else None
    if row is None:
        await require_namespace(store, namespace)
        raise NotFound("template_not_found", f"no template {template[:80]!r} in namespace {namespace!r}")
    return row


async def _refuse_while_used(resources: Resources, row: ResourceRow) -> None:
    """Raise `Conflict("in_use")` with some of the agents that are made from it."""
    users = await resources.agents_from(row.namespace, row.name)
    if users:
        names = ", ".join(users[:_SHOWN_MAX]) + (", …" if len(users) > _SHOWN_MAX else "")
        errors = tuple(FieldError(f"agents/{name}", "is made from the template") for name in users[:_SHOWN_MAX])
        raise Conflict("in_use", f"template {row.name!r} is used by agents: {names}; change or delete them first", errors)
