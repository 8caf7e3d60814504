"""`grpc.health.v1.Health`: ready means what `/readyz` means."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as pb

from talon.domain.errors import NotFound, Throttled
from talon.gateway.api.permits import At
from talon.gateway.api.readiness import unready_reasons
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc.call import Call, Method

SERVICE = "grpc.health.v1.Health"
#: How often a watched health is looked at, once for all who watch.
LOOK_EVERY_S = 1.0
WATCHES_MAX = 100
#: The types of the library's messages do not know those of `List` yet.
_messages: Any = pb
_SERVING = pb.HealthCheckResponse.SERVING
_NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Answers for `services`, and "" for all of them: they are ready together."""

    def __init__(self, deps: GatewayDeps, services: Collection[str]) -> None:
        self._deps, self._services = deps, {"", *services}
        self._closing = asyncio.Event()
        self._watches = 0
        self._look: asyncio.Task[bool] | None = None

    @property
    def methods(self) -> Mapping[str, Method]:
        """As they are served: whoever asks."""
        return {
            "Check": Method(("getReadiness",), pb.HealthCheckRequest, _nowhere, self._check),
            "List": Method(("getReadiness",), _messages.HealthListRequest, _nowhere, self._list),
            "Watch": Method(("getReadiness",), pb.HealthCheckRequest, _nowhere, self._watch, streams=True),
        }

    def close(self) -> None:
        """Not ready from now on; watches are told, and end."""
        self._closing.set()

    async def _check(self, call: Call, message: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        if message.service not in self._services:
            raise NotFound("route_not_found", f"no service {message.service[:80]!r} here")
        return pb.HealthCheckResponse(status=await self._now())

    async def _list(self, call: Call, message: Message) -> Message:
        now = await self._now()
        return _messages.HealthListResponse(statuses={name: pb.HealthCheckResponse(status=now) for name in self._services})

    async def _watch(self, call: Call, message: pb.HealthCheckRequest) -> None:
        if self._watches >= WATCHES_MAX:
            raise Throttled(
                "too_many_streams", f"{WATCHES_MAX} watches of health are open, the most of this gateway; ask with Check"
            )
        self._watches += 1
        told: int | None = None
        try:
            await call.begin()
            while True:
                now = await self._now() if message.service in self._services else _UNKNOWN
                if now != told:
                    await call.write(pb.HealthCheckResponse(status=now))
                    told = now
                if self._closing.is_set():
                    return
                await self._pause()
        finally:
            self._watches -= 1

    async def _now(self) -> pb.HealthCheckResponse.ServingStatus:
        """Looked at once, however many ask at the same time."""
        if self._closing.is_set():
            return _NOT_SERVING
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._ready(), name="look at health")
        return _SERVING if await asyncio.shield(self._look) else _NOT_SERVING

    async def _ready(self) -> bool:
        return not await unready_reasons(self._deps)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._closing.wait()
        except TimeoutError:
            return


def _nowhere(_: object) -> At:
    return At()
