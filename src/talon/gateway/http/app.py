"""The gateway as one ASGI application: the front, the bare routes, and FastAPI with one router per resource."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from talon.domain.errors import FieldError, Invalid, TalonError
from talon.gateway.deps import GatewayDeps
from talon.gateway.http import (
    apply,
    approvals,
    export,
    graph,
    health,
    history,
    openapi,
    page,
    problems,
    resources,
    schemas,
    secrets,
    sessions,
    turns,
)
from talon.gateway.http.front import BareRoute, Front, internal, path_pattern
from talon.gateway.http.message import Messages
from talon.gateway.http.streaming import Streaming

#: One function per resource: deps -> its routes. A new resource is a new line here.
ROUTERS: tuple[Callable[[GatewayDeps], APIRouter], ...] = (
    health.router,
    apply.router,
    schemas.router,
    resources.router,
    history.router,
    graph.router,
    export.router,
    secrets.router,
    sessions.router,
    turns.router,
    approvals.router,
    page.router,
)


async def only_known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read: a misspelt one must not be dropped in silence."""
    route = request.scope.get("route")
    known = {param.alias for param in route.dependant.query_params} if isinstance(route, APIRoute) else set[str]()
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        errors = tuple(FieldError(name, "unknown query parameter") for name in unknown)
        raise Invalid(
            "invalid", f"unknown query parameter {unknown[0]!r}; known here: {', '.join(sorted(known)) or 'none'}", errors
        )


async def on_error(request: Request, exc: Exception) -> Response:
    """Any exception of a route as a problem. What nobody foresaw is raised on to the front, which logs it."""
    request_id = request.scope["talon.request_id"]
    error = problems.as_error(exc, request)
    if isinstance(error, problems.NoMethod):
        error = problems.NoMethod(request.method, request.url.path, _methods(request.app, request.url.path))
    return problems.response(error if error is not None else internal(request_id), request_id)


def _methods(api: FastAPI, path: str) -> str:
    """The methods that `path` knows. Starlette names only those of the first route of that path."""
    found = {
        method.upper()
        for template, operations in api.openapi()["paths"].items()
        if path_pattern(template).fullmatch(path)
        for method in operations
    }
    return ", ".join(sorted(found)) or "GET"  # what is not in the document is the page: read only


def create_app(deps: GatewayDeps, *, health_only: bool = False) -> ASGIApp:
    """The gateway's ASGI application. It starts nothing: streams and connections live in `deps`.

    `health_only` leaves out everything but `/healthz` and `/readyz`: the port of a worker.
    """
    api = FastAPI(
        title="Talon",
        version=deps.version,
        summary="The runtime for AI agents that have to keep working.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known_query)],
    )
    for router in (health.router,) if health_only else ROUTERS:
        api.include_router(router(deps))
    for kind in (TalonError, RequestValidationError, ValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, on_error)
    if health_only:
        return Front(api, (), deps.settings, deps.ids)
    api.openapi = lambda: openapi.document(api)
    streams = Streaming(deps)
    bare = (
        BareRoute("POST", sessions.SESSION + "/message", Messages(deps, streams).serve),
        BareRoute("GET", sessions.SESSION + "/stream", streams.serve, checks_origin=True),
    )
    return Front(api, bare, deps.settings, deps.ids)
