"""A way to PostgreSQL that can be cut at a chosen moment: a Unix socket in front of the real one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET = ".s.PGSQL.5432"


class Cut(StrEnum):
    """Where the next exchange is cut. The client sees the same in all cases: its connection is gone."""

    REQUEST = "request"  # before the server has it
    WORK = "work"  # the server has it, the client does not wait for what becomes of it
    ANSWER = "answer"  # the server has done it and answered, the answer is lost


class Proxy:
    """Connections that go through `url`. `cuts` counts what was cut."""

    def __init__(self, directory: Path, url: str) -> None:
        parts = urlsplit(url)
        self.url = f"postgresql://{parts.username}@{parts.path}?host={directory}"
        self.cuts = 0
        self._target = Path(parse_qs(parts.query)["host"][0]) / SOCKET
        self._armed: tuple[Cut, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def arm(self, cut: Cut, containing: bytes) -> None:
        """Cut the exchange of the next request that contains these bytes."""
        self._armed = (cut, containing)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(str(self._target))
        swallow = asyncio.Event()
        pumps = [
            asyncio.ensure_future(self._requests(reader, server_writer, swallow)),
            asyncio.ensure_future(self._answers(server_reader, writer, swallow)),
        ]
        try:
            # Whichever side ends first, or is cut: the other one is gone with it.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if swallow.is_set():
                await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            server_writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: asyncio.Event) -> None:
        """Pass requests on until one is cut."""
        while data := await reader.read(1 << 20):
            cut, self._armed = (self._armed[0], None) if self._armed and self._armed[1] in data else (None, self._armed)
            self.cuts += cut is not None
            if cut is Cut.REQUEST:
                return
            if cut is Cut.ANSWER:
                swallow.set()
            writer.write(data)
            await writer.drain()
            if cut is not None:
                return

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: asyncio.Event) -> None:
        """Pass answers on until one is to be swallowed: return when it has come."""
        while data := await reader.read(1 << 20):
            if swallow.is_set():
                return
            writer.write(data)
            await writer.drain()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(url: str) -> AsyncGenerator[Proxy]:
    """A running proxy before the database at `url` (on a Unix socket)."""
    directory = Path(tempfile.mkdtemp(prefix="talon-px-", dir="/tmp"))
    made = Proxy(directory, url)
    server = await asyncio.start_unix_server(made.serve, path=str(directory / SOCKET))
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
        shutil.rmtree(directory, ignore_errors=True)
