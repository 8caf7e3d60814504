"""`…/approvals`: what waits for a human, and the human's answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.gateway.api import shapes
from talon.gateway.api.approvals import (
    NOTE_LENGTH_MAX,
    RESULT_LENGTH_MAX,
    Outcome,
    list_approvals,
    require_approval,
    resolve_approval,
)
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import body_doc, doc
from talon.gateway.http.message import asked_by
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.visit import who_asks
from talon.gateway.http.wire import page, reply

APPROVALS = "/v1/ns/{ns}/approvals"
State = Annotated[Literal["", "open", "resolved", "cancelled"], Query(description="Only approvals in this state; empty for all.")]


class Resolution(Body):
    """What became of an uncertain call, or what to do about it."""

    outcome: Literal["retry", "done", "failed"] = Field(
        description="`retry`: it did not happen, make it again. `done`: it happened. `failed`: it did not and shall not."
    )
    result: str | None = Field(
        None, max_length=RESULT_LENGTH_MAX, description="What the model is told; `done` needs it, `retry` has none."
    )
    note: str = Field("", max_length=NOTE_LENGTH_MAX, description="A remark for the journal.")


def router(deps: GatewayDeps) -> APIRouter:
    """The approval routes."""
    api = APIRouter(tags=["approvals"])

    @api.get(
        APPROVALS,
        operation_id="listApprovals",
        summary="The approvals of a namespace, newest first",
        responses=doc(shapes.Approval, 200, listed=True, refused=("namespace_not_found", "cursor_invalid")),
    )
    async def approvals(ns: str, state: State = "", limit: Limit = 50, cursor: Cursor = "") -> Response:
        found, after = await list_approvals(deps, ns, state, cursor, limit)
        return page([shapes.approval(row, session) for row, session in found], after)

    @api.get(
        APPROVALS + "/{approval}",
        operation_id="getApproval",
        summary="One approval",
        responses=doc(shapes.Approval, 200, refused=("approval_not_found",)),
    )
    async def get(ns: str, approval: str, request: Request) -> Response:
        return reply(shapes.approval(*await require_approval(deps, ns, approval, who_asks(request))))

    @api.post(
        APPROVALS + "/{approval}",
        operation_id="resolveApproval",
        summary="Say what is to become of an uncertain call",
        responses=doc(
            shapes.Approval, 200, refused=("approval_not_found", "approval_closed", "invalid", "idempotency_conflict"), body=True
        ),
        openapi_extra=body_doc(Resolution, key=True),
    )
    async def resolve(ns: str, approval: str, request: Request) -> Response:
        said = await read_json(request, Resolution)
        outcome = Outcome(said.outcome, said.result, said.note)
        asked = asked_by(request.scope, deps.ids)
        return reply(shapes.approval(*await resolve_approval(deps, ns, approval, outcome, asked)))

    return api
