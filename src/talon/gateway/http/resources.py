"""Resources of every kind over HTTP: list, watch, create, read, replace, change, delete, users. One set of routes a collection."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import FieldError, Invalid
from talon.gateway.api.collections import AGENTS, COLLECTIONS, NAMESPACES, Collection, require
from talon.gateway.api.permits import allow_documents
from talon.gateway.api.resources import list_resources, place_of
from talon.gateway.api.views import Views
from talon.gateway.api.watching import Wanted
from talon.gateway.api.writing import Writing
from talon.gateway.deps import GatewayDeps
from talon.gateway.http import resource_docs
from talon.gateway.http.manifests import read_manifest, read_patch
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.preconditions import Preconditions, etag
from talon.gateway.http.resource_docs import User
from talon.gateway.http.visit import who_asks
from talon.gateway.http.watching import WatchResponse, version_asked
from talon.gateway.http.wire import page, reply
from talon.manifest.read import Expected
from talon.manifest.selectors import parse_selector
from talon.store.resources import ResourceRow

SelectorText = Annotated[str, Query(max_length=4096, description="Only with these labels: `app=x,tier!=y,env in (a,b),!old`.")]
Watching = Annotated[bool, Query(description="Answer with the changes as they come, as server-sent events.")]
Version = Annotated[str, Query(description="With `watch`: the changes after this version; empty: from now on.")]
Cascade = Annotated[bool, Query(description="Delete what uses it too, and end its sessions.")]
EffectiveView = Annotated[bool, Query(description="The agent as turns run it: template, overrides and defaults in one definition.")]


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of all collections."""
    api = APIRouter()
    for collection in COLLECTIONS:
        routes = Routes(deps, collection)
        get = routes.get_agent if collection is AGENTS else routes.get
        handlers = {
            "list": routes.list,
            "create": routes.create,
            "get": get,
            "put": routes.put,
            "patch": routes.patch,
            "delete": routes.delete,
            "users": routes.users,
        }
        resource_docs.add(api, collection, handlers)
    return api


class Routes:
    """The routes of one collection."""

    def __init__(self, deps: GatewayDeps, collection: Collection) -> None:
        self._deps, self._collection, self._store = deps, collection, deps.store
        self._views, self._writing = Views(deps), Writing(deps, collection)

    async def list(
        self,
        request: Request,
        limit: Limit = 50,
        cursor: Cursor = "",
        label_selector: SelectorText = "",
        watch: Watching = False,
        resource_version: Version = "",
    ) -> Response:
        """`GET` of the collection."""
        namespace = await self._namespace(request)
        selector, after = parse_selector(label_selector), version_asked(request, resource_version)
        if watch:
            _refuse(request, ("limit", "cursor"), "is not read with watch=true")
            wanted = Wanted(namespace, self._collection.kind, selector, who_asks(request))
            return await WatchResponse.begin(self._deps, wanted, after)
        _refuse(request, ("resource_version",), "is read with watch=true only")
        listed = await list_resources(self._store, self._collection, namespace, who_asks(request), selector, cursor, limit)
        return page(await self._views.shown(listed.rows), listed.cursor, str(listed.version))

    async def create(self, request: Request) -> Response:
        """`POST` to the collection."""
        namespace = await self._namespace(request, to_write=True)
        reading = await read_manifest(request, Expected(self._collection.kind, namespace))
        allow_documents(who_asks(request), reading)
        created, row = await self._writing.create(reading)
        return await self._answer(row, created=created)

    async def get(self, request: Request) -> Response:
        """`GET` of one."""
        return await self._get(request, effective=False)

    async def get_agent(self, request: Request, effective: EffectiveView = False) -> Response:
        """`GET` of one agent."""
        return await self._get(request, effective=effective)

    async def put(self, request: Request) -> Response:
        """`PUT` of one."""
        conditions = Preconditions(request)
        namespace, name = await self._namespace(request, to_write=True), self._name(request)
        reading = await read_manifest(request, Expected(self._collection.kind, namespace, name))
        created, row = await self._writing.replace(reading, conditions.check)
        return await self._answer(row, created=created)

    async def patch(self, request: Request) -> Response:
        """`PATCH` of one."""
        conditions = Preconditions(request)
        await self._namespace(request, to_write=True)
        patch = await read_patch(request)
        row = await self._writing.patch(lambda: self._require(request), patch, conditions.check)
        return await self._answer(row, created=False)

    async def delete(self, request: Request, cascade: Cascade = False) -> Response:
        """`DELETE` of one."""
        conditions = Preconditions(request)
        marked = await self._writing.delete(lambda: self._require(request), conditions.check, cascade=cascade)
        if marked is None:
            return Response(status_code=204)
        return reply(await self._views.one(marked), 202, {"ETag": etag(marked)})

    async def users(self, request: Request, limit: Limit = 50, cursor: Cursor = "") -> Response:
        """`GET` of those that refer to one."""
        row = await self._require(request)
        found, after = await self._deps.plane.deletions.users(row, cursor, limit)
        return page([User(*user) for user in found], after)

    # --- what they share ------------------------------------------------------------------------------------------------------

    async def _get(self, request: Request, *, effective: bool) -> Response:
        row = await self._require(request)
        headers = {"ETag": etag(row)}
        if Preconditions(request).unmodified(row):
            return Response(status_code=304, headers=headers)
        return reply(await self._views.one(row, effective=effective), headers=headers)

    async def _answer(self, row: ResourceRow, *, created: bool) -> Response:
        headers = {"ETag": etag(row)}
        if created:
            headers["Location"] = self._collection.location(row)
        return reply(await self._views.one(row), 201 if created else 200, headers)

    async def _namespace(self, request: Request, *, to_write: bool = False) -> str:
        """The namespace of the path, which must exist, and `to_write` must not be ending; "" for namespaces themselves."""
        return await place_of(self._store, self._collection, request.path_params.get("ns", ""), to_write=to_write)

    def _name(self, request: Request) -> str:
        return request.path_params[self._collection.place]

    async def _require(self, request: Request) -> ResourceRow:
        namespace = "" if self._collection is NAMESPACES else request.path_params["ns"]
        return await require(self._store, self._collection, namespace, self._name(request))


def _refuse(request: Request, names: tuple[str, ...], why: str) -> None:
    wrong = [name for name in names if name in request.query_params]
    if wrong:
        raise Invalid("invalid", f"{wrong[0]} {why}", tuple(FieldError(name, why) for name in wrong))
