"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from talon.domain.errors import TalonError
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import problems, ref
from talon.gateway.http.wire import reply

PROBE_S = 2.0


class Health(msgspec.Struct, frozen=True):
    """`status` is `ok` on `/healthz` and `ready` on `/readyz`."""

    status: str
    version: str


class UnreadyReason(msgspec.Struct, frozen=True):
    """`code`: shutting_down | writer_dead | database_unavailable | storage_full | schema_old."""

    code: str
    detail: str


class Unready(msgspec.Struct, frozen=True):
    """`status` is `unready`; `reasons` are all that is wrong."""

    status: str
    reasons: list[UnreadyReason]


def _answer(description: str, kind: type) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref(kind)}}}


def router(deps: GatewayDeps) -> APIRouter:
    """The health routes."""
    api = APIRouter(tags=["health"])

    @api.get(
        "/healthz",
        operation_id="getHealth",
        summary="Whether the process answers",
        responses={**problems((), body=False), 200: _answer("It does", Health)},
    )
    async def healthz() -> Response:
        return reply(Health("ok", deps.version))

    @api.get(
        "/readyz",
        operation_id="getReadiness",
        summary="Whether requests can be served",
        responses={**problems((), body=False), 200: _answer("Ready", Health), 503: _answer("Not ready, and why", Unready)},
    )
    async def readyz() -> Response:
        reasons = await _reasons(deps)
        if reasons:
            return reply(Unready("unready", reasons), 503, {"Retry-After": "1"})
        return reply(Health("ready", deps.version))

    return api


async def _reasons(deps: GatewayDeps) -> list[UnreadyReason]:
    """Why this gateway is not ready; empty when it is."""
    reasons: list[UnreadyReason] = []
    if deps.hub.closing:
        reasons.append(UnreadyReason("shutting_down", "the gateway is shutting down"))
    if not deps.writer.alive:
        reasons.append(UnreadyReason("writer_dead", "the journal writer has stopped; restart the process"))
    try:
        async with asyncio.timeout(PROBE_S):
            await deps.store.ping()
            have, want = await deps.store.schema_version()
    except TimeoutError:
        reasons.append(UnreadyReason("database_unavailable", f"the database did not answer within {PROBE_S:.0f} s"))
    except TalonError as exc:
        reasons.append(UnreadyReason(exc.code, exc.detail))
    else:
        if have < want:
            detail = f"the schema is at version {have}, this program needs {want}: run `talon db migrate`"
            reasons.append(UnreadyReason("schema_old", detail))
    return reasons
