"""A gateway in this process on a real store, served by uvicorn on a real port: for tests of routes that need no worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.product import Api
from support.vaults import vault_on
from talon.access.room import open_room
from talon.cli.system import SystemClock, SystemIds
from talon.domain.inbox import Operation, Receipt
from talon.gateway.accesslog import Told
from talon.gateway.deps import GatewayDeps, GatewaySettings
from talon.gateway.holding import Holding
from talon.gateway.http.app import create_app
from talon.gateway.hub import StreamHub
from talon.gateway.plane import control_plane
from talon.gateway.server import bind, serve
from talon.store.protocols import Store


@dataclass
class OneByOne:
    """A journal writer whose every operation is a commit of its own."""

    store: Store
    alive: bool = True

    async def deliver(self, op: Operation) -> Receipt:
        """Commit it now."""
        (answer,) = await self.store.deliver([op])
        if isinstance(answer, Exception):
            raise answer
        return answer


class Gateway(Api):
    """The client of a gateway, and the store behind it."""

    def __init__(self, url: str, store: Store) -> None:
        super().__init__(url)
        self.store = store


@asynccontextmanager
async def gateway_on(store: Store) -> AsyncGenerator[Gateway]:
    """A gateway on a migrated store."""
    clock, ids, settings = SystemClock(), SystemIds(), GatewaySettings()
    hub = StreamHub(store, clock, settings)
    writer, vault = OneByOne(store), vault_on(store)
    plane = control_plane(store, writer, hub, ids, vault, settings)
    access = open_room(store, clock).access
    holding = Holding(access.authenticator, settings, clock)
    app = create_app(
        GatewayDeps(store, writer, hub, clock, ids, vault, plane, access, holding, Told(access.log, clock), "test", settings)
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    sock = bind("127.0.0.1", 0)
    task = asyncio.create_task(serve(app, sock, hub, stop, on_ready=lambda host, port: ready.set_result(f"http://{host}:{port}")))
    try:
        async with Gateway(await asyncio.wait_for(ready, 10), store) as gateway:
            await gateway.call("POST", "/v1/namespaces", {"name": "default"}, expect=201)
            yield gateway
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
        await hub.close()
