"""A crowd at the door: connections are accepted in groups, also by a loop that accepts one per turn and listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from talon.cli.system import SystemClock
from talon.gateway.deps import GatewaySettings
from talon.gateway.hub import StreamHub, Tails
from talon.gateway.server import ACCEPTS_PER_TURN, bind, serve

CLIENTS = 8 * ACCEPTS_PER_TURN
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_crowd_is_let_in_within_few_turns_of_the_loop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(crowd(), 60))


async def crowd() -> None:
    """Knock all at once while the loop does something else; count the turns until the last one is let in."""
    turns = 0
    served: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(turns)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def on_ready(_host: str, _port: int) -> None:
        ready.set()

    sock, stop, ready = bind("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    address = sock.getsockname()
    hub = StreamHub(cast(Tails, None), SystemClock(), GatewaySettings())
    serving = asyncio.create_task(serve(app, sock, hub, stop, on_ready=on_ready))
    await asyncio.wait_for(ready.wait(), 10)
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(CLIENTS)]
            for client in clients:
                client.sendall(REQUEST)
            while len(served) < CLIENTS and turns < 10 * CLIENTS:
                turns += 1
                await asyncio.sleep(0)
            # A turn accepts a group, the next ones read its requests and answer them.
            assert len(served) == CLIENTS
            assert turns < CLIENTS // 2
            assert all(client.recv(12) == b"HTTP/1.1 204" for client in clients)
    finally:
        stop.set()
        await asyncio.wait_for(serving, 10)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, timeout=10)
