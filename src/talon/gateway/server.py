"""Serving the gateway: uvicorn on a socket of ours, closed in an order that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from talon.gateway.connections import bounded
from talon.gateway.deps import GatewaySettings
from talon.gateway.hub import StreamHub
from talon.gateway.tls import TlsFiles

#: A client that takes no byte for so long is given up by the kernel; uvicorn itself would keep it for ever.
PEER_TIMEOUT_MS = 60_000
KEEP_ALIVE_S = 30
#: Connections that are accepted in one turn of the event loop. uvloop accepts one per listening socket and turn; while thousands of
#: streams are served a turn takes milliseconds, and a crowd would wait for seconds at the door. So the door is there several times.
ACCEPTS_PER_TURN = 32


class _Quiet(uvicorn.Server):
    """uvicorn without signal handlers: signals belong to the composition root."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises `OSError` if the address cannot be had."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_MS)
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    hub: StreamHub,
    stop: asyncio.Event,
    *,
    settings: GatewaySettings | None = None,
    tls: TlsFiles | None = None,
    on_ready: Callable[[str, int], None] | None = None,
    grace_s: float = 5.0,
) -> None:
    """Serve `app` on `sock` (see `bind`) until `stop` is set, within the limits of `settings`, encrypted with `tls`;
    `on_ready(host, port)` is called once requests are taken.

    On `stop`: no new connections, streams are ended (their clients resume elsewhere), requests under way get `grace_s` to finish
    and are cancelled then. Closes `sock`. Cancelling this coroutine stops at once.
    """
    server = _Quiet(_config(app, grace_s, settings or GatewaySettings(), tls))
    host, port = sock.getsockname()[:2]
    doors = [sock, *(sock.dup() for _ in range(ACCEPTS_PER_TURN - 1))]
    running = asyncio.create_task(server.serve(sockets=doors), name="uvicorn")
    stopping = asyncio.create_task(stop.wait())
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if on_ready is not None and listening.done():
            on_ready(host, port)
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await hub.close()
        await running
    finally:
        stopping.cancel()
        listening.cancel()
        if not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        for door in doors:
            door.close()


@contextlib.asynccontextmanager
async def inside(app: ASGIApp) -> AsyncGenerator[Path]:
    """Serve `app` on a Unix socket that only this user reaches, for requests of this very process; -> its path."""
    with tempfile.TemporaryDirectory(prefix="talon-") as directory:
        path = Path(directory) / "inside"
        async with _serving(_config(app, 1.0, GatewaySettings(), uds=str(path)), None):
            yield path


@contextlib.asynccontextmanager
async def beside(
    app: ASGIApp, sock: socket.socket, settings: GatewaySettings, tls: TlsFiles | None, grace_s: float = 5.0
) -> AsyncGenerator[None]:
    """Serve an `app` without streams on one more socket (see `bind`), until the way out; requests under way get `grace_s`."""
    with contextlib.closing(sock):
        async with _serving(_config(app, grace_s, settings, tls), [sock]):
            yield


@contextlib.asynccontextmanager
async def _serving(config: uvicorn.Config, sockets: list[socket.socket] | None) -> AsyncGenerator[None]:
    server = _Quiet(config)
    running = asyncio.create_task(server.serve(sockets), name="uvicorn beside")
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        listening.cancel()
        server.should_exit = True
        await running


def _config(
    app: ASGIApp, grace_s: float, settings: GatewaySettings, tls: TlsFiles | None = None, uds: str | None = None
) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        uds=uds,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=bounded(settings),
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    return config
