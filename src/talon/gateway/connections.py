"""What one connection may cost before anybody is asked who he is: how many there are, how long a head is, and how long it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from talon.gateway.deps import GatewaySettings

#: A client that has not sent a whole head of a request by then, its first or the next it has begun, is hung up on.
HEAD_S = 30.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


def bounded(settings: GatewaySettings) -> type[asyncio.Protocol]:
    """uvicorn's protocol within the limits of `settings`.

    A head that the front would refuse by its size in words is read up to twice that; beyond, and beyond `connections_max`, there is
    a bare status, and the connection is closed.
    """
    connections_max, head_max = settings.connections_max, 2 * settings.headers_max

    class Bounded(HttpToolsProtocol):
        _refused = False
        _in_head = True
        _head = 0
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(cast(asyncio.Transport, transport))
            self._arm()
            if len(self.connections) > connections_max:
                self._hang_up(_BUSY)

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._in_head:
                self._head += len(data)
            super().data_received(data)
            if self._in_head and self._head > head_max:
                self._hang_up(_TOO_LARGE)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self._in_head:  # the first one's bytes are counted already
                self._in_head, self._head = True, 0
            self._arm()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._disarm()
            super().on_headers_complete()

        def _arm(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(HEAD_S, self._late)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            self.transport.abort()

        def _hang_up(self, answer: bytes) -> None:
            self._refused = True
            self.transport.write(answer)
            self.transport.close()

    return Bounded
