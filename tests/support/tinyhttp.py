"""A tiny real HTTP server for the client's tests: handlers per route, and it can die and come back on its port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tiny:
    """`requests` are (method, path, Idempotency-Key, Last-Event-ID) of everything that came."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.requests: list[tuple[str, str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.requests.append(
            (request.method, request.path_qs, headers.get("Idempotency-Key", ""), headers.get("Last-Event-ID", ""))
        )
        return await self._handler(request)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[Tiny]:
    """A started `Tiny`."""
    tiny = Tiny(handler)
    await tiny.start()
    try:
        yield tiny
    finally:
        await tiny.stop()


def drop(request: web.Request) -> None:
    """Close the connection under the request, as a killed process does."""
    if request.transport is not None:
        request.transport.abort()
