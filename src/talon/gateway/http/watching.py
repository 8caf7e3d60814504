"""A watch as server-sent events, each with its version as id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from talon.domain.errors import TalonError
from talon.gateway.api.watching import STALLED_S, Event, EventType, Wanted, Watching, version_of
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.streaming import HEADERS, HELLO

log = logging.getLogger("talon.gateway")


class WatchedMetadata(msgspec.Struct, frozen=True):
    """Where the watch stands."""

    resourceVersion: str  # noqa: N815 - manifests keep the documents' spelling


class WatchedPlace(msgspec.Struct, frozen=True):
    """The object of a bookmark."""

    metadata: WatchedMetadata


class WatchEvent(msgspec.Struct, frozen=True):
    """`data:` of one event. `object` is the resource as it was written (of a deleted one, the last), without conditions; of a
    bookmark only `metadata.resourceVersion`: everything up to it is told."""

    type: EventType
    object: dict[str, Any]


def version_asked(request: Request, given: str) -> int | None:
    """The version after which a watch begins: `Last-Event-ID` (how a browser resumes) before the query; None: now."""
    header = request.headers.get("last-event-id", "").strip()
    return version_of(*((header, "Last-Event-ID") if header else (given, "resource_version")))


class WatchResponse(Response):
    """The events after a version, live, until the client, the namespace or the gateway goes."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(media_type="text/event-stream")
        self._wanted = wanted
        self._watching: Watching | None = None
        self._sending: Send | None = None

    @classmethod
    async def begin(cls, deps: GatewayDeps, wanted: Wanted, after: int | None) -> WatchResponse:
        """A watch of `wanted` after version `after` (None: now). Raises as `Watching.begin`."""
        response = cls(wanted)
        response._watching = await Watching.begin(deps, wanted, after, response._cut)
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watching = self._watching
        if watching is None:
            raise AssertionError("made by `begin`")
        leaving = asyncio.create_task(_leave(receive, watching))
        bare: Send = scope["talon.send"]  # uvicorn's own: nothing between has anything to add to events
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if await self._send(bare, HELLO) and await self._pump(bare, watching):
                await bare({"type": "http.response.body", "body": b"", "more_body": False})
        except TalonError as exc:
            log.warning("watch of %s in %r ended, its client will resume: %s", self._wanted.kind, self._wanted.namespace, exc)
            await bare({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.drop()
            leaving.cancel()

    async def _pump(self, send: Send, watching: Watching) -> bool:
        """Tell everything that comes; -> False if the client had to be cut off."""
        async with contextlib.aclosing(watching.told()) as told:
            async for events in told:
                if not await self._send(send, b"".join(event(one) for one in events)):
                    return False
        return True

    async def _send(self, send: Send, data: bytes) -> bool:
        """Send; returns when the client has taken enough of what was sent before. -> False if it takes nothing any more."""
        self._sending = send
        try:
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            self._cut()
            return False
        finally:
            self._sending = None
        return True

    def _cut(self) -> None:
        """Cut the connection if it hangs. ASGI has no word for it, and closing politely would wait for the client for ever."""
        transport = getattr(getattr(self._sending, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if callable(abort):
            abort()


async def _leave(receive: Receive, watching: Watching) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    watching.end()


def event(one: Event) -> bytes:
    """One server-sent event."""
    shown = one.json or msgspec.json.encode(WatchedPlace(WatchedMetadata(str(one.version))))
    kind = one.type.encode()
    return b'id: %d\nevent: %s\ndata: {"type":"%s","object":%s}\n\n' % (one.version, kind, kind, shown)
