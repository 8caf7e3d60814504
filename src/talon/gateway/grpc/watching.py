"""`Resources.Watch`: the changes of resources as messages, from a version on."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from talon.domain.errors import Unauthenticated, Unavailable
from talon.gateway.api.collections import BY_KIND
from talon.gateway.api.resources import place_of
from talon.gateway.api.watching import STALLED_S, Event, Wanted, Watching, version_of
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc import shapes
from talon.gateway.grpc.call import Call
from talon.manifest.selectors import parse_selector
from talon.v1 import talon_pb2 as pb


class Watches:
    """Serves watches."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps

    async def watch(self, call: Call, message: pb.WatchRequest) -> None:
        """`list…` with `watch`. Raises what ends a watch before its namespace does."""
        collection = BY_KIND[message.kind]
        namespace = await place_of(self._deps.store, collection, message.namespace)
        after = version_of(message.resource_version, "resource_version")
        wanted = Wanted(namespace, collection.kind, parse_selector(message.label_selector), call.who)
        telling: asyncio.Task[None] | None = None

        def revoked() -> None:
            if telling is not None:
                telling.cancel()

        watching = await Watching.begin(self._deps, wanted, after, revoked)
        # A client that takes nothing holds its place until it takes its status, or goes.
        call.at_end(watching.drop)
        try:
            await call.begin()
            telling = task = asyncio.create_task(_tell(call, watching), name="grpc watch")
            await asyncio.wait({task})
        finally:
            watching.end()
            if telling is not None:
                telling.cancel()
        if watching.revoked:
            raise Unauthenticated("unauthenticated", "what you showed has expired or was revoked")
        task.result()
        if self._deps.hub.closing:
            raise Unavailable("shutting_down", "the gateway is shutting down; connect again", retry_after_s=1.0)


async def _tell(call: Call, watching: Watching) -> None:
    """Tell everything that comes. Raises `Unavailable` for a client that takes nothing for long."""
    async with contextlib.aclosing(watching.told()) as told:
        async for events in told:
            for one in events:
                try:
                    async with asyncio.timeout(STALLED_S):
                        await call.write(_message(one))
                except TimeoutError:
                    raise Unavailable(
                        "stream_too_slow", "the watch was not read fast enough; go on from the last version", retry_after_s=1.0
                    ) from None


def _message(one: Event) -> pb.WatchEvent:
    event = pb.WatchEvent(type=one.type, resource_version=str(one.version))
    if one.row is not None:
        event.object.CopyFrom(shapes.resource(msgspec.json.decode(one.json), one.json))
    return event
