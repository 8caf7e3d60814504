"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from talon.domain.errors import TalonError
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.wire import reply

PROBE_S = 2.0


def router(deps: GatewayDeps) -> APIRouter:
    """The health routes."""
    api = APIRouter(tags=["health"])

    @api.get("/healthz", operation_id="getHealth", summary="Whether the process answers")
    async def healthz() -> Response:
        return reply({"status": "ok", "version": deps.version})

    @api.get("/readyz", operation_id="getReadiness", summary="Whether requests can be served")
    async def readyz() -> Response:
        reasons = await _reasons(deps)
        if reasons:
            return reply({"status": "unready", "reasons": reasons}, 503, {"Retry-After": "1"})
        return reply({"status": "ready", "version": deps.version})

    return api


async def _reasons(deps: GatewayDeps) -> list[dict[str, str]]:
    """Why this gateway is not ready; empty when it is."""
    reasons: list[dict[str, str]] = []
    if deps.hub.closing:
        reasons.append({"code": "shutting_down", "detail": "the gateway is shutting down"})
    if not deps.writer.alive:
        reasons.append({"code": "writer_dead", "detail": "the journal writer has stopped; restart the process"})
    try:
        async with asyncio.timeout(PROBE_S):
            await deps.store.ping()
            have, want = await deps.store.schema_version()
    except TimeoutError:
        reasons.append({"code": "database_unavailable", "detail": f"the database did not answer within {PROBE_S:.0f} s"})
    except TalonError as exc:
        reasons.append({"code": exc.code, "detail": exc.detail})
    else:
        if have < want:
            reasons.append(
                {
                    "code": "schema_old",
                    "detail": f"the schema is at version {have}, this program needs {want}: run `talon db migrate`",
                }
            )
    return reasons
