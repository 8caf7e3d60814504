"""`…/graph`: what is in a namespace, and what refers to what."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from talon.access.roles import Principal, sees
from talon.domain.errors import TooLarge
from talon.domain.resources import Identity, candidates
from talon.gateway.api.lookup import require_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.visit import who_asks
from talon.gateway.http.wire import reply
from talon.store.protocols import Store
from talon.store.sight import looking_up

#: The most resources that one graph shows.
NODES_MAX = 5_000
_PAGE = 500


class GraphNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resource, of the namespace or of one that it lies in (`namespace` is empty if you do not see that one), or, with `toolset`,
    a toolset of the workers that is named as an McpServer. `missing`: something refers to it, and it is neither."""

    namespace: str
    kind: str
    name: str
    missing: bool = False
    toolset: bool = False


class GraphPlace(msgspec.Struct, frozen=True):
    """One end of an edge."""

    namespace: str
    kind: str
    name: str


class GraphEdge(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """`from` refers to `to`."""

    source: GraphPlace
    target: GraphPlace


class Graph(msgspec.Struct, frozen=True):
    """The resources of a namespace, those outside of it that they refer to, and who refers to whom."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


def router(deps: GatewayDeps) -> APIRouter:
    """The graph route."""
    api = APIRouter(tags=["namespaces"])

    @api.get(
        "/v1/ns/{ns}/graph",
        operation_id="getGraph",
        summary="The resources of a namespace and what refers to what; sessions are not among them",
        responses=doc(Graph, 200, refused=("namespace_not_found", "too_large")),
    )
    async def graph(ns: str, request: Request) -> Response:
        await require_namespace(deps.store, ns)
        catalogue = await deps.plane.resources.served()
        whole = await graph_of(deps.store, ns, catalogue.toolsets if catalogue else ())
        return reply(seen_by(who_asks(request), whole))

    return api


async def graph_of(store: Store, namespace: str, toolsets: Collection[str] = ()) -> Graph:
    """The graph of `namespace`; `toolsets` are those that workers serve. Raises `TooLarge` for more than `NODES_MAX` resources."""
    inside = await _inside(store, namespace)
    refs: dict[Identity, Any] = {}
    for start in range(0, len(inside), _PAGE):
        refs |= await store.refs_of(inside[start : start + _PAGE])
    places = {ref: candidates(namespace, ref) for named in refs.values() for ref in named}
    wanted = sorted({place for found in places.values() for place in found})
    there: set[Identity] = set()
    for start in range(0, len(wanted), _PAGE):
        with looking_up():
            rows = await store.get_resources(wanted[start : start + _PAGE])
        there |= {(row.namespace, row.kind, row.name) for row in rows}
    meant = {ref: next((place for place in found if place in there), found[0]) for ref, found in places.items()}
    nodes = [*inside, *sorted(set(meant.values()) - set(inside))]
    edges = [GraphEdge(GraphPlace(*user), GraphPlace(*meant[ref])) for user in inside for ref in sorted(refs.get(user, ()))]
    elsewhere = set(meant.values()) - there - set(inside)
    served = {place for place in elsewhere if place[1] == "McpServer" and place[2] in toolsets}
    return Graph([GraphNode(*node, missing=node in elsewhere - served, toolset=node in served) for node in nodes], edges)


def seen_by(who: Principal, graph: Graph) -> Graph:
    """`graph` without the names of namespaces that `who` does not see: what is inherited from one has none."""

    def shown(namespace: str) -> str:
        return namespace if sees(who, namespace) else ""

    nodes = [msgspec.structs.replace(node, namespace=shown(node.namespace)) for node in graph.nodes]
    ends = [(edge.source, msgspec.structs.replace(edge.target, namespace=shown(edge.target.namespace))) for edge in graph.edges]
    return Graph(nodes, [GraphEdge(source, target) for source, target in ends])


async def _inside(store: Store, namespace: str) -> list[Identity]:
    found: list[Identity] = []
    cursor = ""
    while True:
        rows, cursor = await store.list_all(namespace, cursor, _PAGE)
        found += [(row.namespace, row.kind, row.name) for row in rows]
        if len(found) > NODES_MAX:
            raise TooLarge("too_large", f"namespace {namespace!r} has more than {NODES_MAX} resources, the most that a graph shows")
        if not cursor:
            return found
