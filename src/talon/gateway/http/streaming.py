"""`GET …/stream`, and a message's own stream: server-sent events, bare ASGI."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import Receive, Scope, Send

from talon.domain.errors import TalonError
from talon.domain.inbox import Receipt
from talon.gateway.deps import GatewayDeps
from talon.gateway.events import SSE, Cursor, parse_cursor
from talon.gateway.http.visit import known, visit_of
from talon.gateway.http.wire import query_of
from talon.gateway.hub import Reader
from talon.gateway.stream import Beginning, Streams

log = logging.getLogger("talon.gateway")
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
#: The first bytes: a connected client sees something at once, and knows to come back after a second.
HELLO = b": talon\nretry: 1000\n\n"


class Streaming:
    """Serves streams."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._streams, self._holding = Streams(deps), deps.holding

    async def serve(self, scope: Scope, receive: Receive, send: Send, path: dict[str, str]) -> None:
        """`GET …/stream`."""
        after, turn_id = _question(scope)
        beginning = await self._streams.begin((path["ns"], path["agent"], path["session_id"]), after, turn_id)
        if beginning.over:
            await _short(send, None if beginning.end is None else SSE.entry(beginning.end))
        else:
            await self._run(scope, receive, send, beginning)

    async def follow(self, scope: Scope, receive: Receive, send: Send, receipt: Receipt) -> None:
        """The stream of the turn that a message became or joined, as the answer to the message itself."""
        await self._run(scope, receive, send, await self._streams.begin_with(receipt))

    async def _run(self, scope: Scope, receive: Receive, send: Send, beginning: Beginning) -> None:
        """Send events until the watched turn, the session, the client or the gateway ends."""
        write = _Writer(send, scope["talon.send"])
        reader = self._streams.open(beginning, write)
        try:
            let_go = self._holding.hold(known(visit_of(scope)), lambda: reader.end("revoked"))
        except BaseException:
            self._streams.drop(reader)
            raise
        watcher = asyncio.create_task(_watch(receive, reader))
        try:
            await write.begin(reader, beginning.said or b"")
            await self._streams.pump(reader, write)
        except TalonError as exc:
            log.warning("stream of session %d ended, its client will resume: %s", beginning.sid, exc)
        finally:
            let_go()
            self._streams.drop(reader)
            watcher.cancel()
        await write.end(reader)


class _Writer:
    """Writes one response; knows how to cut its connection when the client takes nothing any more."""

    def __init__(self, send: Send, bare: Send) -> None:
        self._send = send  # through the front, which adds its headers
        self._bare = bare  # uvicorn's own
        self._over = False

    async def begin(self, reader: Reader, said: bytes) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        reader.sending = True
        try:
            await self.send(HELLO + said)
        finally:
            reader.sending = False

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """See `Outlet.send`."""
        self._over = last
        await self._bare({"type": "http.response.body", "body": data, "more_body": not last})

    async def end(self, reader: Reader) -> None:
        if not self._over and reader.stop not in ("gone", "slow"):
            await self._bare({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """Abort the connection. ASGI has no word for it, and closing politely would wait for the client for ever."""
        transport = getattr(getattr(self._bare, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if callable(abort):
            abort()


async def _short(send: Send, data: bytes | None) -> None:
    """A stream that is over already. 204 tells an EventSource not to come back."""
    if data is None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": data})


async def _watch(receive: Receive, reader: Reader) -> None:
    """Wake the stream when its client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.end("gone")


def _question(scope: Scope) -> tuple[Cursor | None, str | None]:
    """-> (cursor or None for "now", turn id or None). The header wins over the query: it is how a browser resumes."""
    query = query_of(scope, "after", "turn")
    cursor = parse_cursor(query["after"], "after") if "after" in query else None
    header = next((value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"last-event-id"), "")
    if header:
        cursor = parse_cursor(header, "Last-Event-ID")
    return cursor, query.get("turn")
