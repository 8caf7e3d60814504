"""`talon.v1.Resources` and `talon.v1.Namespaces`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from talon.domain.errors import NotFound, PreconditionFailed
from talon.gateway.api.applying import Applying, How
from talon.gateway.api.collections import BY_KIND, NAMESPACES, Collection, require
from talon.gateway.api.permits import At, allow_documents
from talon.gateway.api.reading import read_documents
from talon.gateway.api.resources import list_resources, place_of
from talon.gateway.api.views import Views
from talon.gateway.api.watching import version_of
from talon.gateway.api.writing import Check, Writing
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc import shapes
from talon.gateway.grpc.call import Call, Method, limit_of
from talon.gateway.grpc.watching import Watches
from talon.manifest.read import Expected
from talon.manifest.selectors import parse_selector
from talon.store.resources import ResourceRow
from talon.v1 import talon_pb2 as pb

Act = Literal["create", "get", "list", "delete"]
#: What a request with a kind names.
OfKind = pb.WriteResourceRequest | pb.GetResourceRequest | pb.ListResourcesRequest | pb.DeleteResourceRequest | pb.WatchRequest


def resources(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Resources`."""
    served, watches = Resources(deps), Watches(deps)
    return {
        "Create": _of_kind("create", pb.WriteResourceRequest, _at, served.create, changes=True),
        "Get": _of_kind("get", pb.GetResourceRequest, _at_one, served.get),
        "List": _of_kind("list", pb.ListResourcesRequest, _at, served.list),
        "Apply": Method(("apply",), pb.ApplyRequest, _nowhere, served.apply, changes=True),
        "Watch": _of_kind("list", pb.WatchRequest, _at, watches.watch, streams=True),
        "Delete": _of_kind("delete", pb.DeleteResourceRequest, _at_one, served.delete, changes=True),
    }


def namespaces(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Namespaces`: those of `Resources` by other words."""
    served = Resources(deps)

    async def create(call: Call, message: pb.CreateNamespaceRequest) -> pb.Resource:
        metadata: dict[str, Any] = {"name": message.name}
        for field, given in (("labels", message.labels), ("annotations", message.annotations)):
            if given:
                metadata[field] = dict(given)
        manifest = msgspec.json.encode({"metadata": metadata}).decode()
        return await served.create(call, pb.WriteResourceRequest(kind="Namespace", manifest_json=manifest))

    async def get(call: Call, message: pb.GetNamespaceRequest) -> pb.Resource:
        return await served.get(call, pb.GetResourceRequest(kind="Namespace", name=message.name))

    async def listed(call: Call, message: pb.ListNamespacesRequest) -> pb.ListResourcesResponse:
        wanted = pb.ListResourcesRequest(
            kind="Namespace", limit=message.limit, cursor=message.cursor, label_selector=message.label_selector
        )
        return await served.list(call, wanted)

    async def delete(call: Call, message: pb.DeleteNamespaceRequest) -> pb.DeleteResponse:
        wanted = pb.DeleteResourceRequest(kind="Namespace", name=message.name, cascade=message.cascade)
        return await served.delete(call, wanted)

    return {
        "Create": Method(("createNamespace",), pb.CreateNamespaceRequest, _nowhere, create, changes=True),
        "Get": Method(("getNamespace",), pb.GetNamespaceRequest, _at_name, get),
        "List": Method(("listNamespaces",), pb.ListNamespacesRequest, _nowhere, listed),
        "Delete": Method(("deleteNamespace",), pb.DeleteNamespaceRequest, _at_name, delete, changes=True),
    }


def collection_of(kind: str) -> Collection:
    """The collection of a kind as manifests spell it. Raises `NotFound("kind_not_found")`."""
    found = BY_KIND.get(kind)
    if found is None:
        raise NotFound("kind_not_found", f"no kind {kind[:80]!r}; there are {', '.join(BY_KIND)}")
    return found


def _of_kind(act: Act, request: Any, at: Any, handler: Any, **how: bool) -> Method:
    """A method whose operation depends on the kind that its request names."""

    def named(collection: Collection) -> str:
        return act + (collection.many if act == "list" else collection.one)

    operations = tuple(named(one) for one in BY_KIND.values())
    return Method(operations, request, at, handler, which=lambda message: named(collection_of(message.kind)), **how)


def _at(message: OfKind) -> At:
    return At(message.namespace)


def _at_one(message: pb.GetResourceRequest | pb.DeleteResourceRequest) -> At:
    return At(message.name if message.kind == "Namespace" else message.namespace)


def _at_name(message: pb.GetNamespaceRequest | pb.DeleteNamespaceRequest) -> At:
    return At(message.name)


def _nowhere(_: object) -> At:
    return At()


class Resources:
    """What is answered; all but watches."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps, self._store = deps, deps.store
        self._views, self._applying = Views(deps), Applying(deps)
        self._writing = {kind: Writing(deps, collection) for kind, collection in BY_KIND.items()}

    async def create(self, call: Call, message: pb.WriteResourceRequest) -> pb.Resource:
        """`create…`."""
        collection = collection_of(message.kind)
        namespace = await place_of(self._store, collection, message.namespace, to_write=True)
        data = message.manifest_json.encode()
        reading = await read_documents(data, "json" if data else "yaml", Expected(collection.kind, namespace))
        allow_documents(call.who, reading)
        _, row = await self._writing[message.kind].create(reading)
        return shapes.resource(await self._views.one(row))

    async def get(self, call: Call, message: pb.GetResourceRequest) -> pb.Resource:
        """`get…`."""
        row = await self._require(message)
        return shapes.resource(await self._views.one(row, effective=message.effective))

    async def list(self, call: Call, message: pb.ListResourcesRequest) -> pb.ListResourcesResponse:
        """`list…`."""
        collection, limit = collection_of(message.kind), limit_of(message.limit, self._deps.settings.page_max)
        namespace = await place_of(self._store, collection, message.namespace)
        selector = parse_selector(message.label_selector)
        found = await list_resources(self._store, collection, namespace, call.who, selector, message.cursor, limit)
        items = [shapes.resource(one) for one in await self._views.shown(found.rows)]
        return pb.ListResourcesResponse(items=items, next_cursor=found.cursor, resource_version=str(found.version))

    async def apply(self, call: Call, message: pb.ApplyRequest) -> pb.ApplyResponse:
        """`apply`."""
        how = How(message.label_selector, dry_run=message.dry_run, prune=message.prune)
        plan = await self._applying.apply(call.who, await read_documents(message.manifests.encode(), "yaml"), how)
        return pb.ApplyResponse(
            items=[shapes.applied(one) for one in plan.results],
            warnings=[pb.Warning(field=one.field, message=one.message) for one in plan.warnings],
            dry_run=message.dry_run,
        )

    async def delete(self, call: Call, message: pb.DeleteResourceRequest) -> pb.DeleteResponse:
        """`delete…`."""
        check = _guard(version_of(message.if_resource_version, "if_resource_version"))
        writing = self._writing[message.kind]
        marked = await writing.delete(lambda: self._require(message), check, cascade=message.cascade)
        return pb.DeleteResponse(gone=marked is None)

    async def _require(self, message: pb.GetResourceRequest | pb.DeleteResourceRequest) -> ResourceRow:
        collection = collection_of(message.kind)
        return await require(self._store, collection, "" if collection is NAMESPACES else message.namespace, message.name)


def _guard(version: int | None) -> Check:
    """Refuses a resource that is not at `version`."""

    def check(row: ResourceRow | None) -> None:
        if version is not None and row is not None and row.version != version:
            now = f"it is at {row.version} now"
            raise PreconditionFailed(
                "precondition_failed", f"if_resource_version {version}: {now}; read it again, then decide again"
            )

    return check
