"""`…/approvals`: what waits for a human, and the human's answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import FieldError, Invalid, NotFound
from talon.domain.inbox import ResolveApproval
from talon.domain.session import ApprovalRow, SessionRow
from talon.gateway.api import shapes
from talon.gateway.api.lookup import is_id, require_namespace
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import body_doc, doc
from talon.gateway.http.message import idempotency_key, traceparent
from talon.gateway.http.wire import Cursor, Limit, page, reply

APPROVALS = "/v1/ns/{ns}/approvals"
State = Annotated[Literal["", "open", "resolved", "cancelled"], Query(description="Only approvals in this state; empty for all.")]


class Resolution(Body):
    """What became of an uncertain call, or what to do about it."""

    outcome: Literal["retry", "done", "failed"] = Field(
        description="`retry`: it did not happen, make it again. `done`: it happened. `failed`: it did not and shall not."
    )
    result: str | None = Field(
        None, max_length=1024 * 1024, description="What the model is told; `done` needs it, `retry` has none."
    )
    note: str = Field("", max_length=4096, description="A remark for the journal.")


def router(deps: GatewayDeps) -> APIRouter:
    """The approval routes."""
    api = APIRouter(tags=["approvals"])
    store = deps.store

    @api.get(
        APPROVALS,
        operation_id="listApprovals",
        summary="The approvals of a namespace, newest first",
        responses=doc(shapes.Approval, 200, listed=True, refused=("namespace_not_found", "cursor_invalid")),
    )
    async def approvals(ns: str, state: State = "", limit: Limit = 50, cursor: Cursor = "") -> Response:
        await require_namespace(store, ns)
        found, after = await store.list_approvals(ns, state, cursor, limit)
        return page([shapes.approval(row, session) for row, session in found], after)

    @api.get(
        APPROVALS + "/{approval}",
        operation_id="getApproval",
        summary="One approval",
        responses=doc(shapes.Approval, 200, refused=("approval_not_found",)),
    )
    async def get(ns: str, approval: str) -> Response:
        return reply(shapes.approval(*await _require(deps, ns, approval)))

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
        _check(said)
        _, session = await _require(deps, ns, approval)
        headers = dict(request.headers.raw)
        operation = ResolveApproval(
            where=(ns, session.agent, session.id),
            approval=approval,
            outcome=said.outcome,
            result=said.result or "",
            note=said.note,
            traceparent=traceparent(headers, deps.ids),
            key=idempotency_key(headers.get(b"idempotency-key"), ("approval", ns, approval, said.outcome, said.result, said.note)),
        )
        await deps.writer.deliver(operation)
        return reply(shapes.approval(*await _require(deps, ns, approval)))

    return api


def _check(said: Resolution) -> None:
    if said.outcome == "done" and said.result is None:
        raise Invalid("invalid", "done needs `result`: what the call answered", (FieldError("result", "is missing"),))
    if said.outcome == "retry" and said.result:
        raise Invalid(
            "invalid", "retry takes no `result`: the call gives its own", (FieldError("result", "does not go with retry"),)
        )


async def _require(deps: GatewayDeps, namespace: str, approval: str) -> tuple[ApprovalRow, SessionRow]:
    found = await deps.store.get_approval(namespace, approval) if is_id(approval) else None
    if found is None:
        await require_namespace(deps.store, namespace)
        raise NotFound("approval_not_found", f"no approval {approval[:80]!r} in namespace {namespace!r}")
    return found
