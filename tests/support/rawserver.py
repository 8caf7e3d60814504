"""A TCP server that answers HTTP requests with exactly the bytes a test wants, however wrong they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
BOUND_S = 10.0


class RawServer:
    """Reads one whole request per connection, then lets `answer` write; the connection is closed when it returns."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self.requests: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.client_gone = asyncio.Event()

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        watch: asyncio.Task[None] | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self.requests.append(head + await reader.readexactly(length))
            self.asked.set()
            watch = asyncio.create_task(self._watch(reader))
            await asyncio.wait_for(self._answer(writer), BOUND_S)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # a client that goes away is what some tests are about
        finally:
            if watch is not None:
                watch.cancel()
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        self.client_gone.set()


def stream_head(content_type: str = "text/event-stream") -> bytes:
    """The head of a 200 whose body ends with the connection."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()


def chunked_head() -> bytes:
    """The head of a 200 with a chunked body, whose end can be told from a cut."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def answering(*parts: bytes) -> Answer:
    """Writes the parts as separate packets, as far as a loopback allows, then closes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.002)  # not a wait for anything: it makes separate TCP segments likely

    return answer


def hanging(*parts: bytes) -> Answer:
    """Writes the parts, then nothing more, until the test ends or the client goes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))
        await writer.drain()
        await asyncio.get_running_loop().create_future()

    return answer


def reply(status: str, body: bytes, *headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
