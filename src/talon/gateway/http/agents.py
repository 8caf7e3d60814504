"""`/v1/ns/{ns}/agents`: agents, their revisions, and what they resolve to."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import Conflict, FieldError, NotFound
from talon.domain.ids import is_name, is_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.lookup import require_namespace
from talon.gateway.http.manifests import AgentViews, Manifest, manifest_doc, read_manifest
from talon.gateway.http.wire import Cursor, Limit, page, reply
from talon.gateway.http.writing import create, remove, replace
from talon.gateway.resources import Resources
from talon.gateway.times import rfc3339
from talon.manifest import kinds
from talon.manifest.effective import decode
from talon.manifest.read import Expected
from talon.manifest.views import shown_definition
from talon.store.protocols import Store
from talon.store.resources import ResourceRow, RevisionRow

AGENTS = "/v1/ns/{ns}/agents"
AGENT = AGENTS + "/{agent}"
_SHOWN_MAX = 5
EffectiveView = Annotated[bool, Query(description="The agent as turns run it: template, overrides and defaults in one definition.")]


class Revision(msgspec.Struct, frozen=True):
    """One immutable revision of an agent: the resolved definition, the agent's own features and profile, and what made it."""

    revision: int
    digest: str
    cause: str
    template: str
    definition: dict[str, Any]
    features: dict[str, Any]
    profile: str
    created_at: str


def router(deps: GatewayDeps) -> APIRouter:
    """The agent routes."""
    api = APIRouter(tags=["agents"])
    _collection(api, deps)
    _one(api, deps)
    return api


def _collection(api: APIRouter, deps: GatewayDeps) -> None:
    store, resources = deps.store, Resources(deps.store, deps.ids)

    @api.get(
        AGENTS,
        operation_id="listAgents",
        summary="The agents of a namespace, by name",
        responses=doc(Manifest, 200, listed=True, refused=("namespace_not_found", "cursor_invalid")),
    )
    async def agents(ns: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        await require_namespace(store, ns)
        rows, after = await store.list_resources(ns, "Agent", cursor, limit)
        views = await AgentViews.now(store, resources)
        return page([await views.shown(row) for row in rows], after)

    @api.post(
        AGENTS,
        operation_id="createAgent",
        status_code=201,
        summary="Create an agent",
        responses=doc(Manifest, 201, 200, refused=("namespace_not_found", "already_exists", "conflict"), links="agent"),
        openapi_extra=manifest_doc(kinds.AgentDoc),
    )
    async def create_one(ns: str, request: Request) -> Response:
        await require_namespace(store, ns)
        reading = await read_manifest(request, Expected("Agent", ns))
        created, row = await create(store, resources, reading)
        return await _answer(store, resources, row, created)


def _one(api: APIRouter, deps: GatewayDeps) -> None:
    store, resources = deps.store, Resources(deps.store, deps.ids)

    @api.get(
        AGENT,
        operation_id="getAgent",
        summary="One agent, with its conditions",
        responses=doc(Manifest, 200, refused=("namespace_not_found", "agent_not_found"), links="agent"),
    )
    async def get(ns: str, agent: str, effective: EffectiveView = False) -> Response:
        row = await _require(store, ns, agent)
        views = await AgentViews.now(store, resources)
        return reply(await views.shown(row, effective))

    @api.put(
        AGENT,
        operation_id="putAgent",
        summary="Create or replace an agent",
        responses=doc(Manifest, 200, 201, refused=("namespace_not_found", "conflict"), links="agent", body=True),
        openapi_extra=manifest_doc(kinds.AgentDoc),
    )
    async def put(ns: str, agent: str, request: Request) -> Response:
        await require_namespace(store, ns)
        reading = await read_manifest(request, Expected("Agent", ns, agent))
        created, row = await replace(store, resources, reading)
        return await _answer(store, resources, row, created)

    @api.delete(
        AGENT,
        operation_id="deleteAgent",
        status_code=204,
        summary="Delete an agent that has no living sessions; its revisions stay readable",
        responses=doc(None, 204, refused=("namespace_not_found", "agent_not_found", "in_use", "conflict")),
    )
    async def delete(ns: str, agent: str) -> Response:
        await remove(store, lambda: _require(store, ns, agent), lambda row: _refuse_while_used(store, row))
        return Response(status_code=204)

    @api.get(
        AGENT + "/revisions",
        operation_id="listRevisions",
        summary="The revisions of an agent, newest first; also of one that was deleted",
        responses=doc(Revision, 200, listed=True, refused=("namespace_not_found", "agent_not_found", "cursor_invalid")),
    )
    async def revisions(ns: str, agent: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        valid = is_namespace(ns) and is_name(agent)
        rows, after = await store.list_revisions(ns, agent, cursor, limit) if valid else ([], "")
        if not rows:
            await _require(store, ns, agent)
        return page([shown_revision(row) for row in rows], after)


async def _answer(store: Store, resources: Resources, row: ResourceRow, created: bool) -> Response:
    views = await AgentViews.now(store, resources)
    location = {"Location": f"/v1/ns/{row.namespace}/agents/{row.name}"} if created else None
    return reply(await views.shown(row), 201 if created else 200, location)


def shown_revision(row: RevisionRow) -> Revision:
    """A revision as it is shown."""
    effective = decode(row.effective)
    return Revision(
        revision=row.revision,
        digest=row.digest,
        cause=row.cause,
        template=effective.template,
        definition=shown_definition(effective),
        features=effective.features,
        profile=effective.profile,
        created_at=rfc3339(row.created_at_ms),
    )


async def _require(store: Store, namespace: str, agent: str) -> ResourceRow:
    row = await store.get_resource(namespace, "Agent", agent) if is_namespace(namespace) and is_name(agent) else None
    if row is None:
        await require_namespace(store, namespace)
        raise NotFound("agent_not_found", f"no agent {agent[:80]!r} in namespace {namespace!r}")
    return row


async def _refuse_while_used(store: Store, row: ResourceRow) -> None:
    """Raise `Conflict("in_use")` with some of its living sessions."""
    sessions, more = await store.list_sessions(row.namespace, row.name, "", _SHOWN_MAX)
    if not sessions:
        return
    users = tuple(FieldError(f"sessions/{one.id}", f"is {one.state}") for one in sessions)
    names = ", ".join(one.id for one in sessions) + (", …" if more else "")
    raise Conflict("in_use", f"agent {row.name!r} has living sessions: {names}; delete them first", users)
