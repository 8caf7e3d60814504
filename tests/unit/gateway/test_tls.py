"""TLS on a real port: new connections have the newest certificate, open ones go on, and bad files change nothing."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from support.certificates import Authority
from talon.domain.errors import Invalid
from talon.gateway.server import bind, inside, serve
from talon.gateway.tls import TlsFiles

CA, OTHER = Authority("first"), Authority("other")


class Hub:
    """Only closed here."""

    async def close(self) -> None:
        return


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    body = scope["scheme"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def trusting(authority: Authority = CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


@asynccontextmanager
async def served(tls: TlsFiles) -> AsyncGenerator[int]:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    sock = bind("127.0.0.1", 0)
    task = asyncio.create_task(serve(app, sock, Hub(), stop, tls=tls, on_ready=lambda _, port: ready.set_result(port)))  # type: ignore[arg-type]
    try:
        yield await asyncio.wait_for(ready, 10)
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


class Connection:
    """One connection that stays open."""

    async def open(self, port: int, context: ssl.SSLContext) -> Connection:
        self.reader, self.writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, ssl=context), 5)
        return self

    async def ask(self) -> bytes:
        self.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200")
        return await asyncio.wait_for(self.reader.readexactly(5), 5)

    @property
    def shown(self) -> Any:
        """The server's certificate."""
        return self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    def close(self) -> None:
        self.writer.transport.abort()


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run it on asyncio's loop and on uvloop, which the program takes: both hand connections to the context in their own way."""

    def run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for name, factory in (("plain", asyncio.new_event_loop), ("uv", uvloop.new_event_loop)):
            directory = tmp_path / name
            directory.mkdir()
            caplog.clear()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(test(directory, caplog))

    return run


@on_both_loops
async def test_a_new_certificate_is_taken_up_and_no_connection_ends(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "talon")
    tls = TlsFiles(*CA.files(directory, "server"))
    first = tls.pem
    async with served(tls) as port:
        old = await Connection().open(port, trusting())
        assert await old.ask() == b"https"
        assert not await tls.look()
        (directory / "server.pem").write_bytes(CA.issue("renewed")[0])  # the key does not fit yet
        assert not await tls.look()
        assert "do not go together" in caplog.text
        between = await Connection().open(port, trusting())
        assert between.shown == old.shown
        CA.files(directory, "server")
        assert await tls.look()
        new = await Connection().open(port, trusting())
        assert new.shown != old.shown
        assert [await one.ask() for one in (old, between, new)] == [b"https"] * 3
        assert tls.pem != first
        assert tls.pem.cert == (directory / "server.pem").read_bytes()
        for damage in (lambda: (directory / "server.key").unlink(), lambda: (directory / "server.key").write_bytes(b"")):
            damage()
            assert not await tls.look()
            after = await Connection().open(port, trusting())
            assert await after.ask() == b"https"
            after.close()
        for one in (old, between, new):
            one.close()


@on_both_loops
async def test_with_client_ca_only_those_whom_it_signed_come_in(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    authorities = directory / "clients.pem"
    authorities.write_bytes(CA.pem)
    tls = TlsFiles(*CA.files(directory, "server"), authorities)
    mine, theirs = trusting(), trusting()
    mine.load_cert_chain(*CA.files(directory, "mine"))
    theirs.load_cert_chain(*OTHER.files(directory, "theirs"))

    async def comes_in(context: ssl.SSLContext) -> bool:
        try:
            connection = await Connection().open(port, context)
            try:
                return await connection.ask() == b"https"
            finally:
                connection.close()
        except (OSError, asyncio.IncompleteReadError):
            return False

    async with served(tls) as port:
        assert [await comes_in(context) for context in (mine, theirs, trusting())] == [True, False, False]
        authorities.write_bytes(OTHER.pem)
        assert await tls.look()
        assert [await comes_in(context) for context in (mine, theirs, trusting())] == [False, True, False]


@on_both_loops
async def test_old_versions_of_the_protocol_are_not_spoken(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = trusting()
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with served(TlsFiles(*CA.files(directory, "server"))) as port:
        with pytest.raises(OSError, match=r"(?i)ssl|tls|protocol"):
            await Connection().open(port, old)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("server.pem", None, "gateway.tls.cert"),
        ("server.key", None, "gateway.tls.key"),
        ("clients.pem", None, "gateway.tls.client_ca"),
        ("server.pem", b"nonsense", "do not go together"),
        ("server.key", CA.issue("x")[1], "do not go together"),
        ("clients.pem", b"nonsense", "gateway.tls.client_ca"),
        ("clients.pem", "é".encode(), "gateway.tls.client_ca"),
        ("server.pem", b"x" * 1_048_577, "gateway.tls.cert"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path, file: str, content: bytes | None, words: str) -> None:
    files = CA.files(tmp_path, "server")
    (tmp_path / "clients.pem").write_bytes(CA.pem)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(Invalid, match=words) as raised:
        TlsFiles(*files, tmp_path / "clients.pem")
    assert "PRIVATE" not in raised.value.detail


@on_both_loops
async def test_the_socket_for_this_process_is_of_its_user_alone_and_goes(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with inside(app) as path:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"http")
        writer.close()
    assert not path.parent.exists()
