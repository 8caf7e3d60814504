"""Browsers: logging in with an identity provider or with a key, and out again. What they hold is a cookie that no script reads."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.access.cookies import ended, made
from talon.access.protocol import Login, Redirect
from talon.domain.errors import Invalid, Unauthenticated
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.auth import AUTH, Me, me
from talon.gateway.http.docs import doc
from talon.gateway.http.problems import NoRoute
from talon.gateway.http.visit import visit_of, who_asks
from talon.gateway.http.wire import reply

Back = Annotated[str, Query(max_length=2000, description="The path to come back to.")]
_SET = {"Set-Cookie": {"description": "The session, for browsers only.", "schema": {"type": "string"}}}


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of browsers."""
    api = APIRouter(prefix=AUTH, tags=["auth"])
    _sessions(api, deps)
    _login(api, deps)
    return api


class AccessWays(msgspec.Struct, frozen=True):
    """How one comes in. `asked` is false where everybody is let in; `login`: whether there is an identity provider to log in with;
    `me`: whose session the browser's cookie is, null for none."""

    asked: bool
    login: bool
    me: Me | None


def _sessions(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        "",
        operation_id="getAccess",
        summary="For the page, before it is shown: how one comes in, and whether this browser is in",
        responses=doc(AccessWays, 200),
    )
    async def ways(request: Request) -> Response:
        authenticator, who = deps.access.authenticator, None
        if authenticator.asks:
            with contextlib.suppress(Unauthenticated):
                who = await authenticator.principal("", visit_of(request.scope).header(b"cookie"))
        shown = None if who is None else me(deps, who)
        return reply(AccessWays(authenticator.asks, deps.access.login is not None, shown))

    @api.post(
        "/session",
        operation_id="openBrowserSession",
        status_code=201,
        summary="A cookie for who shows a key, so that a page need not keep it; what it changes needs the header Talon-Csrf",
        responses=doc(Me, 201, headers=_SET),
    )
    async def begin(request: Request) -> Response:
        who = who_asks(request)
        if who.browser or not who.via:
            raise Invalid("invalid", "a browser's session is opened with a key or token, as `Authorization: Bearer …`")
        opened = await deps.access.keys.browse(who, deps.settings.browser_session_max_s)
        shown = reply(me(deps, who), 201)
        shown.headers.append("set-cookie", made(origin_of(request), opened.secret, deps.settings.browser_session_max_s))
        return shown

    @api.delete(
        "/session",
        operation_id="endBrowserSession",
        status_code=204,
        summary="End the browser's session that the cookie shows",
        responses=doc(None, 204),
    )
    async def end(request: Request) -> Response:
        who = who_asks(request)
        if who.browser:
            await deps.access.keys.revoke(who, who.via)
        answer = Response(status_code=204)
        for cookie in ended():
            answer.headers.append("set-cookie", cookie)
        return answer


def _login(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        "/login",
        operation_id="beginLogin",
        status_code=302,
        response_class=Response,
        summary="For browsers: on to the identity provider",
        responses=doc(None, 302, refused=("route_not_found", "identity_unavailable"), body=False),
    )
    async def begin(request: Request, back: Back = "/") -> Response:
        return _to(await _login_of(deps).begin(origin_of(request), back))

    @api.get(
        "/callback",
        operation_id="finishLogin",
        status_code=302,
        response_class=Response,
        summary="For browsers: back from the identity provider",
        responses=doc(None, 302, refused=("route_not_found", "identity_unavailable"), body=False),
    )
    async def finish(request: Request) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        visit_of(request.scope).object = f"{AUTH}/callback"
        return _to(await _login_of(deps).finish(origin_of(request), query, visit_of(request.scope).header(b"cookie")))


def _login_of(deps: GatewayDeps) -> Login:
    if deps.access.login is None:
        raise NoRoute("route_not_found", "browsers log in here only where gateway.auth.mode has oidc")
    return deps.access.login


def _to(where: Redirect) -> Response:
    answer = Response(status_code=302, headers={"location": where.location})
    for cookie in where.cookies:
        answer.headers.append("set-cookie", cookie)
    return answer


def origin_of(request: Request) -> str:
    """The origin under which the browser knows this gateway; its Host the front has checked."""
    return f"{request.scope.get('scheme', 'http')}://{request.headers.get('host', '')}"
