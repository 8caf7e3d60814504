"""The port of a process that is no gateway: health questions, and routes of others. No FastAPI: its import takes the longest."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from talon.gateway.deps import GatewayDeps
from talon.gateway.http import health
from talon.gateway.http.front import BareRoute, Front
from talon.gateway.http.guard import Guard
from talon.gateway.http.problems import NoRoute


def create_app(deps: GatewayDeps, beside: Sequence[BareRoute] = ()) -> ASGIApp:
    """The ASGI application: `/healthz` and `/readyz`, and the routes `beside`."""
    guard = Guard(deps.access.authenticator, deps.holding, walled=deps.wall.stands)
    return Front(_nothing_else, (*health.routes(deps), *beside), deps.settings, deps.ids, deps.clock, guard)


async def _nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    del receive, send
    raise NoRoute("route_not_found", f"no route {scope['path']}; this port has {health.HEALTHZ} and {health.READYZ}")
