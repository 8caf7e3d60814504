"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from talon.gateway.api.readiness import UnreadyReason, unready_reasons
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import problems, ref
from talon.gateway.http.wire import reply


class Health(msgspec.Struct, frozen=True):
    """`status` is `ok` on `/healthz` and `ready` on `/readyz`."""

    status: str
    version: str


class Ready(Health, frozen=True):
    """`row_level_security`: `on` where the database too holds callers back from what they may not see, `missing` where it should
    and cannot (the gateway's log says why), `off` where it is not asked to."""

    row_level_security: Literal["on", "missing", "off"]


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
        responses={**problems((), body=False), 200: _answer("Ready", Ready), 503: _answer("Not ready, and why", Unready)},
    )
    async def readyz() -> Response:
        reasons = await unready_reasons(deps)
        if reasons:
            return reply(Unready("unready", reasons), 503, {"Retry-After": "1"})
        wall = "on" if deps.wall.stands else "missing" if deps.wall.missing else "off"
        return reply(Ready("ready", deps.version, wall))

    return api
