"""A TCP proxy before PostgreSQL that loses answers: the server has committed, its client never hears of it.

It reads enough of the protocol to know which prepared statements write. Told to `cut`, it swallows the answer to the next write on
any connection and closes that connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncGenerator

_WRITES = re.compile(rb"\b(INSERT INTO|UPDATE|DELETE FROM|COMMIT)\b", re.IGNORECASE)
_CHUNK = 65_536


class Sent:
    """What a client has sent on one connection: whether the statement whose answer is due writes, by the messages' own framing."""

    def __init__(self) -> None:
        self.writes = False
        self._started = False
        self._rest = b""
        self._statements: dict[bytes, bool] = {}

    def feed(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._rest += data
        while True:
            head = 1 if self._started else 0
            if len(self._rest) < head + 4:
                return
            size = struct.unpack_from("!I", self._rest, head)[0] + head
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            if not self._started:
                # Requests for encryption are answered with one byte and followed by the real start.
                self._started = struct.unpack_from("!I", message, 4)[0] not in (80877103, 80877104)
                continue
            self._take(message[:1], message[5:])

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, _, rest = body.partition(b"\0")
            self._statements[name] = bool(_WRITES.search(rest.partition(b"\0")[0]))
        elif kind == b"B":
            _, _, rest = body.partition(b"\0")
            self.writes = self._statements.get(rest.partition(b"\0")[0], False)
        elif kind == b"Q":
            self.writes = bool(_WRITES.search(body))


class LossyProxy:
    """Listens on a port of its own for a server on a Unix socket."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_cut = 0
        self.lost = 0  # answers that were swallowed

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self, times: int = 1) -> None:
        """Lose the answers of the next writes."""
        self._to_cut += times

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_writer: asyncio.StreamWriter | None = None
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._path)
            sent = Sent()
            up = asyncio.create_task(self._up(reader, server_writer, sent))
            down = asyncio.create_task(self._down(server_reader, writer, sent))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.wait({up, down})
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, or we are: the client finds its connection closed
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if server_writer is not None:
                server_writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: Sent) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                sent.feed(data)
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: Sent) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                # Ready for query, in no transaction: what was asked for is committed.
                if self._to_cut and sent.writes and data.endswith(b"Z\0\0\0\5I"):
                    self._to_cut -= 1
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """While it serves."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield
        finally:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
