"""`/`: one plain page. Its script and style are files of their own, so that the page needs no inline code and may forbid it."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from talon.gateway.deps import GatewayDeps

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router(deps: GatewayDeps) -> APIRouter:
    """The page's routes; they are no part of the API and not in its document."""
    api = APIRouter(include_in_schema=False)
    for path, name, media in (
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/page.js", "page.js", "text/javascript; charset=utf-8"),
        ("/login.js", "login.js", "text/javascript; charset=utf-8"),
        ("/page.css", "page.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "favicon.svg", "image/svg+xml"),
    ):
        _add(api, path, name, media)
    return api


def _add(api: APIRouter, path: str, name: str, media: str) -> None:
    content = (files("talon.gateway") / "page" / name).read_bytes()

    async def serve() -> Response:
        return Response(content, headers=HEADERS, media_type=media)

    api.add_api_route(path, serve, methods=["GET"], operation_id="getPage")
