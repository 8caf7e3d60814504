"""A TCP server that answers HTTP requests with exactly the bytes a test wants, however wrong they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

Answer = Callable[[asyncio.StreamWriter], Coroutine[None, None, None]]
BOUND_S = 10.0


class RawServer:
    """Reads one whole request, then lets `answer` write; then the connection is closed, or with `keep_alive` the next one is read.

    `asked`: a request has come. `client_gone`: the client has closed a connection. Leaving it ends every answer under way.
    """

    def __init__(self, answer: Answer, *, keep_alive: bool = False) -> None:
        self._answer = answer
        self._keep_alive = keep_alive
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.client_gone = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self._writers)

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
        for task in self._answering:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        if self._serving:
            await asyncio.wait(self._serving, timeout=BOUND_S)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._writers.append(writer)
        try:
            await self._one(reader, writer)
            while self._keep_alive:
                await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.client_gone.set()
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(length))
        self.asked.set()
        answer = asyncio.ensure_future(self._answer(writer))
        self._answering.add(answer)
        answer.add_done_callback(self._answering.discard)
        watch = asyncio.create_task(reader.read(1)) if not self._keep_alive else None
        watched = {answer} if watch is None else {answer, watch}
        await asyncio.wait(watched, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
        if watch is not None and watch.done():
            self.client_gone.set()
        for task in watched:
            task.cancel()
        await asyncio.wait(watched)
        if not answer.cancelled():
            answer.result()
            await writer.drain()


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
