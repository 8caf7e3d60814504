"""`Sessions.Stream`: a session's journal as messages, from a cursor on, then live."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator

from talon.domain.entries import Entry
from talon.domain.errors import TalonError, Unauthenticated, Unavailable
from talon.gateway.deps import GatewayDeps
from talon.gateway.events import FRAGMENT_TYPES, Form, Place, cursor_of, fragment_payload, parse_cursor
from talon.gateway.grpc.call import Call
from talon.gateway.grpc.shapes import timestamp
from talon.gateway.hub import Stop
from talon.gateway.stream import Streams
from talon.v1 import talon_pb2 as pb

_LENGTH = struct.Struct(">I")


class _Messages:
    """Events as `StreamEvent`s, each behind its length. The transport has heartbeats of its own."""

    heartbeat = b""

    def entry(self, entry: Entry) -> bytes:
        """See `Form.entry`."""
        event = pb.StreamEvent(
            cursor=str(entry.seq),
            seq=entry.seq,
            turn_id=entry.turn_id,
            type=entry.type,
            at=timestamp(entry.at_ms),
            payload_json=entry.payload.decode(),
        )
        return _framed(event)

    def fragment(self, after: Place, kind: str, offset: int, text: str, at_ms: int) -> bytes:
        """See `Form.fragment`."""
        event = pb.StreamEvent(
            cursor=cursor_of(after),
            seq=after.model,
            turn_id=after.turn,
            type=FRAGMENT_TYPES[kind],
            at=timestamp(at_ms),
            payload_json=fragment_payload(offset, text).decode(),
        )
        return _framed(event)


MESSAGES: Form = _Messages()


def _framed(event: pb.StreamEvent) -> bytes:
    data = event.SerializeToString()
    return _LENGTH.pack(len(data)) + data


def split(data: bytes) -> Iterator[bytes]:
    """The messages in what `MESSAGES` wrote."""
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield data[at : at + length]
        at += length


class _Outlet:
    """Writes to one call. `cut` ends `pump`, the task that writes."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self.pump: asyncio.Task[None] | None = None

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """See `Outlet.send`."""
        del last
        for message in split(data):
            await self._write(message)

    def cut(self) -> None:
        """See `Outlet.cut`."""
        if self.pump is not None:
            self.pump.cancel()


class Streaming:
    """Serves streams."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._streams, self._holding = Streams(deps), deps.holding

    async def stream(self, call: Call, message: pb.StreamRequest) -> None:
        """`streamSession`. Raises what ends a stream before its turn or session does."""
        after = parse_cursor(message.after, "after") if message.after else None
        ref = message.session
        beginning = await self._streams.begin((ref.namespace, ref.agent, ref.session_id), after, message.turn_id or None)
        outlet = _Outlet(call.write)
        if beginning.over:
            if beginning.end is not None:
                await outlet.send(MESSAGES.entry(beginning.end))
            return
        reader = self._streams.open(beginning, outlet, MESSAGES)
        try:
            # A client that takes nothing holds its place until it takes its status, or goes.
            call.at_end(self._holding.hold(call.who, lambda: reader.end("revoked")))
            await call.begin()
            outlet.pump = pump = asyncio.create_task(self._streams.pump(reader, outlet), name="grpc stream")
            await asyncio.wait({pump})
        finally:
            self._streams.drop(reader)
            if outlet.pump is not None:
                outlet.pump.cancel()
                outlet.pump.add_done_callback(_seen)
        if reader.stop is not None:
            raise stopped(reader.stop)
        pump.result()


def _seen(task: asyncio.Task[None]) -> None:
    """Of a stream whose client has gone nobody asks how it ended."""
    if not task.cancelled():
        task.exception()


def stopped(why: Stop) -> TalonError:
    """What ends a call whose stream was ended from here."""
    if why == "revoked":
        return Unauthenticated("unauthenticated", "what you showed has expired or was revoked")
    if why == "shutdown":
        return Unavailable("shutting_down", "the gateway is shutting down; connect again", retry_after_s=1.0)
    return Unavailable("stream_too_slow", "the stream was not read fast enough; go on from the last cursor", retry_after_s=1.0)
