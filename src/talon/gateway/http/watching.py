"""A watch as server-sent events: `added`, `modified`, `deleted`, each with its version as id, and bookmarks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from talon.access.roles import Principal, sees
from talon.domain.errors import FieldError, Invalid, TalonError
from talon.domain.resources import Requirement
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.streaming import HEADERS, HELLO
from talon.gateway.watch import Pace, Told, Watch
from talon.store.resources import ResourceRow
from talon.store.selecting import meets

log = logging.getLogger("talon.gateway")
#: A client that takes nothing for so long is cut off; it comes back and goes on from the last version it got.
STALLED_S = 30.0
#: Events are sent when they come to so many bytes: about what the connection takes at once.
CHUNK_BYTES = 64 * 1024
_VERSION_DIGITS_MAX = 18
EventType = Literal["added", "modified", "deleted", "bookmark"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is watched, and by whom: the resources of one kind in a namespace, those with certain labels only if there is a
    selector; of namespaces those that he sees."""

    namespace: str
    kind: str
    selector: Sequence[Requirement]
    who: Principal

    def has(self, row: ResourceRow) -> bool:
        """Whether `row` is one of these, whatever its labels are."""
        return row.kind == self.kind and (row.kind != "Namespace" or sees(self.who, row.name))


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
    text, field = (header, "Last-Event-ID") if header else (given, "resource_version")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _VERSION_DIGITS_MAX):
        message = f"must be a version as lists and events give it, not {text[:40]!r}"
        raise Invalid("invalid", f"{field} {message}", (FieldError(field, message),))
    return int(text)


class WatchResponse(Response):
    """The events after a version, live, until the client, the namespace or the gateway goes."""

    def __init__(self, deps: GatewayDeps, watch: Watch, wanted: Wanted, write: Callable[[ResourceRow], bytes]) -> None:
        super().__init__(media_type="text/event-stream")
        self._store, self._watches, self._holding = deps.store, deps.plane.watches, deps.holding
        self._watch, self._wanted, self._write = watch, wanted, write
        self._sending: Send | None = None
        self._place, self._pace = 0, Pace()
        self._let_go: Callable[[], None] = lambda: None
        self._known: list[Told] = []

    @classmethod
    async def begin(
        cls, deps: GatewayDeps, wanted: Wanted, after: int | None, write: Callable[[ResourceRow], bytes]
    ) -> WatchResponse:
        """A watch of `wanted` after version `after` (None: now). `write` makes an object's JSON of a row.

        Raises `Gone("version_gone")`, `Invalid("version_ahead")`, and what `Watches.open` raises.
        """
        watch = await deps.plane.watches.open(wanted.namespace)
        response = cls(deps, watch, wanted, write)
        try:
            response._let_go = deps.holding.hold(wanted.who, response._ended)
            if after is None:
                response._place = (await deps.store.versions([wanted.namespace])).get(wanted.namespace, 0)
            else:
                response._place = after
                await response._read()
        except BaseException:
            response._drop()
            raise
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(self._leave(receive))
        bare: Send = scope["talon.send"]  # uvicorn's own: nothing between has anything to add to events
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if await self._send(bare, HELLO) and await self._pump(bare):
                await bare({"type": "http.response.body", "body": b"", "more_body": False})
        except TalonError as exc:
            log.warning("watch of %s in %r ended, its client will resume: %s", self._wanted.kind, self._wanted.namespace, exc)
            await bare({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._drop()
            leaving.cancel()

    def _drop(self) -> None:
        self._let_go()
        self._watches.drop(self._watch)

    def _ended(self) -> None:
        """Whoever watches is nobody any more."""
        self._watch.end()
        if self._sending is not None:
            _abort(self._sending)

    async def _leave(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._watch.end()

    async def _pump(self, send: Send) -> bool:
        """Tell everything that comes; -> False if the client had to be cut off."""
        watch, first = self._watch, True
        while not watch.over:
            if self._known or await self._read():
                if not await self._tell(send):
                    return False
                continue
            if first or watch.beat:
                first = watch.beat = False
                mark = WatchEvent("bookmark", msgspec.to_builtins(WatchedPlace(WatchedMetadata(str(self._place)))))
                if not await self._send(send, event(self._place, "bookmark", msgspec.json.encode(mark))):
                    return False
            await watch.wait(self._place)
        return True

    async def _read(self) -> bool:
        """Find out what follows; -> whether the place moved or there is something to tell."""
        before = self._place
        told = self._watch.feed.after(before)
        if told is None:
            wanted = self._wanted
            events, upto = await self._store.read_events(wanted.namespace, before, self._pace.limit, wanted.kind)
            self._pace.took(events)
            told = [Told(one) for one in events]
        else:
            upto = self._watch.feed.upto
        self._known = [one for one in told if self._wanted.has(one.event.row)]
        self._place = max(before, upto)
        return self._place > before

    async def _tell(self, send: Send) -> bool:
        """Send what is known, a bounded piece at a time."""
        parts: list[bytes] = []
        size = 0
        for one in self._known:
            kind = self._told_as(one)
            if kind is None:
                continue
            data = b'{"type":"' + kind.encode() + b'","object":' + one.json(self._write) + b"}"
            parts.append(event(one.event.row.version, kind, data))
            size += len(data)
            if size >= CHUNK_BYTES:
                if not await self._send(send, b"".join(parts)):
                    return False
                parts, size = [], 0
        self._known = []
        return not parts or await self._send(send, b"".join(parts))

    def _told_as(self, one: Told) -> EventType | None:
        """What a change is for this watch; None if it does not concern it."""
        selector = self._wanted.selector
        if not selector:
            return one.event.event
        was = one.event.event != "added" and meets(one.event.labels_before, selector)
        is_now = one.event.event != "deleted" and meets(labels_of(one.event.row), selector)
        if is_now:
            return "modified" if was else "added"
        return "deleted" if was else None

    async def _send(self, send: Send, data: bytes) -> bool:
        """Send; returns when the client has taken enough of what was sent before. -> False if it takes nothing any more."""
        self._sending = send
        try:
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            _abort(send)
            return False
        finally:
            self._sending = None
        return True


def _abort(send: Send) -> None:
    """Cut the connection. ASGI has no word for it, and closing politely would wait for the client for ever."""
    abort = getattr(getattr(getattr(send, "__self__", None), "transport", None), "abort", None)
    if callable(abort):
        abort()


def event(version: int, kind: EventType, data: bytes) -> bytes:
    """One server-sent event."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (version, kind.encode(), data)


class _Labelled(msgspec.Struct):
    labels: Mapping[str, str] | None = None


class _Body(msgspec.Struct):
    metadata: _Labelled


_labels = msgspec.json.Decoder(_Body)


def labels_of(row: ResourceRow) -> Mapping[str, str]:
    """The labels in a row's body."""
    return _labels.decode(row.body).metadata.labels or {}
