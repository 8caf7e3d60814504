"""`/healthz`: the process answers. `/readyz`: it can do its work. Bare routes, for a worker's own port has no FastAPI."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.types import Receive, Scope, Send

from talon.gateway.api.readiness import UnreadyReason, unready_reasons
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import problems, ref
from talon.gateway.http.front import BareRoute
from talon.gateway.http.wire import query_of, reply

HEALTHZ, READYZ = "/healthz", "/readyz"


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


def routes(deps: GatewayDeps) -> tuple[BareRoute, ...]:
    """The health routes."""

    async def healthz(scope: Scope, receive: Receive, send: Send, places: dict[str, str]) -> None:
        del places
        query_of(scope)
        await reply(Health("ok", deps.version))(scope, receive, send)

    async def readyz(scope: Scope, receive: Receive, send: Send, places: dict[str, str]) -> None:
        del places
        query_of(scope)
        reasons = await unready_reasons(deps)
        if reasons:
            answer = reply(Unready("unready", reasons), 503, {"Retry-After": "1"})
        else:
            wall = "on" if deps.wall.stands else "missing" if deps.wall.missing else "off"
            answer = reply(Ready("ready", deps.version, wall))
        await answer(scope, receive, send)

    return BareRoute("getHealth", "GET", HEALTHZ, healthz), BareRoute("getReadiness", "GET", READYZ, readyz)


def documents() -> dict[str, dict[str, Any]]:
    """The routes as they stand in the document: path -> method -> operation."""
    return {
        HEALTHZ: {"get": _document("getHealth", "Whether the process answers", {200: _answer("It does", Health)})},
        READYZ: {
            "get": _document(
                "getReadiness",
                "Whether requests can be served",
                {200: _answer("Ready", Ready), 503: _answer("Not ready, and why", Unready)},
            )
        },
    }


def _document(operation: str, summary: str, answers: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
    every = {**problems((), body=False), **answers}
    responses = {str(status): every[status] for status in sorted(every, key=int)}
    return {"operationId": operation, "tags": ["health"], "summary": summary, "responses": responses}


def _answer(description: str, kind: type) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref(kind)}}}
