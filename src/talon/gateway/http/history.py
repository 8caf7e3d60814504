"""`…/agents/{agent}/revisions`: what an agent was, and the way back."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import NotFound
from talon.domain.ids import is_name, is_namespace
from talon.gateway.api.collections import AGENTS, require
from talon.gateway.api.views import Views
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import ETAG, body_doc, doc
from talon.gateway.http.manifests import Manifest
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.preconditions import Preconditions, etag
from talon.gateway.http.wire import page, reply
from talon.gateway.times import rfc3339
from talon.manifest.effective import decode
from talon.manifest.views import shown_definition
from talon.store.resources import ResourceRow, RevisionRow

AGENT = AGENTS.path + "/{agent}"
_REVISION_MAX = 2**31 - 1


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


class Rollback(Body):
    """Where an agent goes back to."""

    revision: int | None = Field(None, ge=1, le=_REVISION_MAX, description="This revision; absent: the one before the newest.")


def router(deps: GatewayDeps) -> APIRouter:
    """The revision routes."""
    api = APIRouter(tags=["agents"])
    _read(api, deps)
    _write(api, deps)
    return api


def _read(api: APIRouter, deps: GatewayDeps) -> None:
    store = deps.store

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
            await require(store, AGENTS, ns, agent)
        return page([shown_revision(row) for row in rows], after)

    @api.get(
        AGENT + "/revisions/{revision}",
        operation_id="getRevision",
        summary="One revision of an agent; also of one that was deleted",
        responses=doc(Revision, 200, refused=("namespace_not_found", "agent_not_found", "revision_not_found")),
    )
    async def revision(ns: str, agent: str, revision: int) -> Response:
        valid = is_namespace(ns) and is_name(agent) and 0 < revision <= _REVISION_MAX
        row = await store.get_revision(ns, agent, revision) if valid else None
        if row is None:
            found, _ = await store.list_revisions(ns, agent, "", 1) if is_namespace(ns) and is_name(agent) else ([], "")
            if not found:
                await require(store, AGENTS, ns, agent)
            raise NotFound("revision_not_found", f"agent {agent!r} in namespace {ns!r} has no revision {revision}")
        return reply(shown_revision(row))


def _write(api: APIRouter, deps: GatewayDeps) -> None:
    views = Views(deps)

    @api.post(
        AGENT + "/rollback",
        operation_id="rollbackAgent",
        summary="Bring an agent back to what it was at an earlier revision, as a new revision",
        responses=doc(
            Manifest,
            200,
            refused=(
                "namespace_not_found",
                "agent_not_found",
                "revision_not_found",
                "conflict",
                "terminating",
                "precondition_failed",
            ),
            links="Agent",
            headers=ETAG,
            body=True,
        ),
        openapi_extra=body_doc(Rollback, required=False),
    )
    async def rollback(ns: str, agent: str, request: Request) -> Response:
        conditions, asked = Preconditions(request), await read_json(request, Rollback)

        async def find() -> ResourceRow:
            row = await require(deps.store, AGENTS, ns, agent)
            conditions.check(row)
            return row

        row = await deps.plane.resources.rollback(await find(), asked.revision)
        return reply(await views.one(row), headers={"ETag": etag(row)})


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
