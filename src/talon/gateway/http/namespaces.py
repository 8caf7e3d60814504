"""`/v1/namespaces`: where everything else lives. `default` is always there."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import Conflict, FieldError, NotFound
from talon.domain.ids import is_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.manifests import Manifest, manifest_doc, read_manifest, shown
from talon.gateway.http.wire import Cursor, Limit, page, reply
from talon.gateway.http.writing import create, remove
from talon.gateway.resources import Resources
from talon.manifest import kinds
from talon.manifest.read import Expected
from talon.manifest.state import is_default
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

NAMESPACES = "/v1/namespaces"
_SHOWN_MAX = 5


def router(deps: GatewayDeps) -> APIRouter:
    """The namespace routes."""
    api = APIRouter(tags=["namespaces"])
    store, resources = deps.store, Resources(deps.store, deps.ids)

    @api.get(
        NAMESPACES,
        operation_id="listNamespaces",
        summary="The namespaces, by name",
        responses=doc(Manifest, 200, listed=True, refused=("cursor_invalid",)),
    )
    async def namespaces(limit: Limit = 50, cursor: Cursor = "") -> Response:
        rows, after = await store.list_resources("", "Namespace", cursor, limit)
        return page([shown(row) for row in rows], after)

    @api.post(
        NAMESPACES,
        operation_id="createNamespace",
        status_code=201,
        summary="Create a namespace",
        responses=doc(Manifest, 201, 200, refused=("already_exists", "conflict"), links="namespace"),
        openapi_extra=manifest_doc(kinds.NamespaceDoc),
    )
    async def create_one(request: Request) -> Response:
        reading = await read_manifest(request, Expected("Namespace"))
        created, row = await create(store, resources, reading)
        return reply(shown(row), 201 if created else 200, {"Location": f"{NAMESPACES}/{row.name}"} if created else None)

    @api.get(
        NAMESPACES + "/{ns}",
        operation_id="getNamespace",
        summary="One namespace",
        responses=doc(Manifest, 200, refused=("namespace_not_found",), links="namespace"),
    )
    async def get(ns: str) -> Response:
        return reply(shown(await _require(store, ns)))

    @api.delete(
        NAMESPACES + "/{ns}",
        operation_id="deleteNamespace",
        status_code=204,
        summary="Delete an empty namespace",
        responses=doc(None, 204, refused=("namespace_not_found", "in_use", "conflict")),
    )
    async def delete(ns: str) -> Response:
        if is_default(ns):
            raise Conflict("in_use", "namespace 'default' always exists and cannot be deleted")
        await remove(store, lambda: _require(store, ns), lambda _: _refuse_unless_empty(store, ns))
        return Response(status_code=204)

    return api


async def _require(store: Store, name: str) -> ResourceRow:
    row = await store.get_resource("", "Namespace", name) if is_namespace(name) else None
    if row is None:
        raise NotFound("namespace_not_found", f"no namespace {name[:80]!r}")
    return row


async def _refuse_unless_empty(store: Store, namespace: str) -> None:
    """Raise `Conflict("in_use")` with some of what is in it."""
    inside: list[FieldError] = []
    for kind in ("AgentTemplate", "Agent"):
        rows, more = await store.list_resources(namespace, kind, "", _SHOWN_MAX)
        inside += [FieldError(f"{kind}/{row.name}", "is in the namespace") for row in rows]
        if more:
            inside.append(FieldError(kind, f"and more than these {_SHOWN_MAX}"))
    sessions, more = await store.list_sessions(namespace, "", "", _SHOWN_MAX)
    inside += [FieldError(f"Session/{row.agent}/{row.id}", f"is in the namespace, {row.state}") for row in sessions]
    if more:
        inside.append(FieldError("Session", f"and more than these {_SHOWN_MAX}"))
    if inside:
        names = ", ".join(one.field for one in inside if "/" in one.field)
        raise Conflict("in_use", f"namespace {namespace!r} is not empty: {names}; delete what is in it first", tuple(inside))
