"""The load's HTTP client: one connection, one turn after the other, its events read as they come. The same for everybody."""

from __future__ import annotations

import asyncio
import re
import time
from typing import NamedTuple, Self, cast

STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
EVENT = re.compile(rb"^event: (\S+)", re.MULTILINE)
ENDS = frozenset({b"turn.completed", b"turn.failed", b"turn.cancelled", b"turn.denied"})
TEXT = frozenset({b"text.delta", b"message.completed"})


class Timing(NamedTuple):
    """One turn as its client saw it, in seconds from the posting. `error` is empty for a turn that was completed."""

    first_s: float
    done_s: float
    error: str


class Connection(asyncio.Protocol):
    """Keeps one connection open and posts turns on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._reset()

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect. Raises `OSError`."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, host, port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._settle(f"the connection was closed: {exc}")

    async def turn(self, request: bytes, timeout_s: float) -> Timing:
        """Post one turn and read its stream to the end of the response."""
        self._reset()
        self._began_s = time.perf_counter()
        if self._closed:
            return Timing(0.0, 0.0, "the connection was closed before")
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._done, timeout_s)
        except TimeoutError:
            self.close()
            return Timing(self._first_s, timeout_s, f"no end within {timeout_s:g} s")

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()

    def _reset(self) -> None:
        self._done: asyncio.Future[Timing] = self._loop.create_future()
        self._raw = bytearray()
        self._body = bytearray()
        self._in_body = False
        self._left = -1  # bytes left of a body with a length; -1: chunked
        self._status = 0
        self._first_s = self._end_s = 0.0
        self._error = "the stream ended without the turn's end"

    def _settle(self, error: str) -> None:
        if not self._done.done():
            self._done.set_result(Timing(self._first_s, self._end_s, error))

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self._in_body and not self._head():
            return
        over = self._plain() if self._left >= 0 else self._chunks()
        self._events()
        if over:
            self._settle(self._error if self._status < 300 else f"status {self._status}: {bytes(self._body[:300])!r}")

    def _head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._raw[:end])
        del self._raw[: end + 4]
        status = STATUS.match(head)
        self._status = int(status[1]) if status else 0
        length = LENGTH.search(head)
        self._left = int(length[1]) if length else -1
        self._in_body = True
        return True

    def _plain(self) -> bool:
        self._left -= len(self._raw)
        self._body += self._raw
        self._raw.clear()
        return self._left <= 0

    def _chunks(self) -> bool:
        """Take the whole chunks; -> whether the last one came."""
        while (line := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:line], 16)
            end = line + 2 + size
            if len(self._raw) < end + 2:
                return False
            self._body += self._raw[line + 2 : end]
            del self._raw[: end + 2]
            if size == 0:
                return True
        return False

    def _events(self) -> None:
        """Look at the whole events of the body."""
        end = self._body.rfind(b"\n\n")
        if end < 0 or self._status >= 300:
            return
        now_s = time.perf_counter() - self._began_s
        for name in EVENT.findall(self._body, 0, end):
            if not self._first_s and name in TEXT:
                self._first_s = now_s
            if name in ENDS:
                self._end_s = now_s
                self._error = "" if name == b"turn.completed" else name.decode()
        del self._body[: end + 2]
