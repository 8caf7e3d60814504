"""The gateway as one ASGI application: the front, the bare routes, and FastAPI with one router per resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from talon.domain.errors import Defect, FieldError, Invalid
from talon.gateway.api.table import TABLE
from talon.gateway.deps import GatewayDeps
from talon.gateway.http import (
    apply,
    approvals,
    auth,
    browsers,
    export,
    graph,
    health,
    history,
    models,
    openapi,
    page,
    resources,
    schedules,
    schemas,
    secrets,
    sessions,
    turns,
)
from talon.gateway.http.front import BareRoute, Front
from talon.gateway.http.guard import Guard
from talon.gateway.http.message import Messages
from talon.gateway.http.raised import RAISED, on_error
from talon.gateway.http.streaming import Streaming
from talon.gateway.http.visit import Visit, row_of
from talon.gateway.http.wire import only_known

#: One function per resource: deps -> its routes. A new resource is a new line here.
ROUTERS: tuple[Callable[[GatewayDeps], APIRouter], ...] = (
    apply.router,
    schemas.router,
    resources.router,
    schedules.router,
    history.router,
    graph.router,
    export.router,
    models.router,
    secrets.router,
    sessions.router,
    turns.router,
    approvals.router,
    auth.router,
    browsers.router,
    page.router,
)


class Unguarded(Defect):
    """A route that the table of permissions does not know, or a row of it that no route has."""


def admitting(guard: Guard) -> Callable[[Request], Awaitable[None]]:
    """What every route of FastAPI depends on first: the guard lets the request in, or raises."""

    async def admit(request: Request) -> None:
        route: APIRoute = request.scope["route"]
        await guard.admit(request.scope, route.operation_id or "", request.path_params)

    return admit


def _telling(deps: GatewayDeps) -> Callable[[Visit], None] | None:
    """What the access log is told of visits; None where nobody is asked who he is."""

    def told(visit: Visit) -> None:
        row = row_of(visit)
        if row is not None:
            deps.told.tell(row)

    return told if deps.access.authenticator.asks else None


def check_table(routes: Iterable[BaseRoute], bare: Sequence[BareRoute]) -> None:
    """Raise `Unguarded` unless each route has a row in the table of permissions, and each row a route."""
    served = {route.operation for route in bare} | {"getOpenApi"}  # the document, which FastAPI itself serves to all
    served |= {(route.operation_id or route.path) if isinstance(route, APIRoute) else str(route) for route in routes}
    if served != set(TABLE):
        wrong = ", ".join(sorted(served ^ set(TABLE)))
        raise Unguarded("defect", f"routes and the table of permissions differ in: {wrong}")


def bounding(page_max: int) -> Callable[[Request], Awaitable[None]]:
    """What every route depends on: pages are no longer than the setting allows. (That they are numbers FastAPI checks.)"""

    async def bound(request: Request) -> None:
        asked = request.query_params.get("limit", "")
        if asked.isdecimal() and len(asked) < 10 and int(asked) > page_max:
            message = f"a page has at most {page_max} items here (gateway.page_max)"
            raise Invalid("invalid", f"limit: {message}", (FieldError("limit", message, int(asked)),))

    return bound


async def only_known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read."""
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and route.operation_id == "finishLogin":
        return  # what identity providers add to their answers is theirs
    known = {param.alias for param in route.dependant.query_params} if isinstance(route, APIRoute) else set[str]()
    only_known(request.query_params, known)


def create_app(deps: GatewayDeps) -> ASGIApp:
    """The gateway's ASGI application. It starts nothing: streams and connections live in `deps`."""
    guard = Guard(deps.access.authenticator, deps.holding, walled=deps.wall.stands)
    api = FastAPI(
        title="Talon",
        version=deps.version,
        summary="The runtime for AI agents that have to keep working.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(admitting(guard)), Depends(only_known_query), Depends(bounding(deps.settings.page_max))],
    )
    routers = [router(deps) for router in ROUTERS]
    for router in routers:
        api.include_router(router)
    for kind in RAISED:
        api.add_exception_handler(kind, on_error)
    api.openapi = lambda: openapi.document(api, deps.settings.page_max, asks=deps.access.authenticator.asks)
    streams = Streaming(deps)
    bare = (
        BareRoute("sendMessage", "POST", sessions.SESSION + "/message", Messages(deps, streams).serve),
        BareRoute("streamSession", "GET", sessions.SESSION + "/stream", streams.serve, checks_origin=True),
        *health.routes(deps),
    )
    check_table([route for router in routers for route in router.routes], bare)
    return Front(api, bare, deps.settings, deps.ids, deps.clock, guard, _telling(deps), walled=deps.wall.stands)
