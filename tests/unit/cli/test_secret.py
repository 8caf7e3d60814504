"""`talon secret set`: where a value may come from, and that it is shown nowhere on its way."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from support.product import clean_environment
from support.stage import talon
from support.tinyhttp import Tiny, serving

VALUE = "sk-do-not-show-me"


class Server:
    """Answers as a gateway that has the secrets `there`; keeps what was asked."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.asked: list[tuple[str, str, object]] = []
        self.tiny: Tiny

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read() or b"null")
        self.asked.append((request.method, request.path, body))
        name = request.path.rpartition("/")[2]
        if request.method == "PATCH" and name not in self.there:
            return web.json_response({"code": "secret_not_found", "detail": "no such secret"}, status=404)
        self.there.add(name)
        return web.json_response({"kind": "Secret"})

    async def run(self, *args: str, cwd: Path, stdin: bytes = b"") -> tuple[int, str]:
        code, out, errors = await talon("secret", *args, cwd=cwd, env={"TALON_SERVER": self.tiny.url}, stdin=stdin)
        assert "sk-" not in out + errors
        return code, out + errors


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with serving(made.answer) as tiny:
        made.tiny = tiny
        yield made


async def test_a_secret_is_made_or_gets_a_new_value_and_keeps_what_else_it_says(server: Server, tmp_path: Path) -> None:
    assert await server.run("set", "openai", "-n", "acme:eu", cwd=tmp_path, stdin=f"{VALUE}\n".encode()) == (
        0,
        "Secret acme:eu/openai created\n",
    )
    path = "/v1/ns/acme:eu/secrets/openai"
    manifest = {"apiVersion": "talon.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "openai"}, "spec": {"value": VALUE}}
    assert server.asked == [("PATCH", path, {"spec": {"value": VALUE}}), ("PUT", path, manifest)]
    (tmp_path / "file").write_bytes(b"two\nlines\r\n")
    assert await server.run("set", "openai", "--from-file", "file", cwd=tmp_path) == (0, "Secret default/openai set\n")
    assert server.asked[-1] == ("PATCH", "/v1/ns/default/secrets/openai", {"spec": {"value": "two\nlines"}})


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"x" * 65_537, "longer than 65536 bytes"),
        (b"sk-\xff", "not UTF-8"),
    ],
)
async def test_what_cannot_be_a_value_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Path, stdin: bytes, words: str
) -> None:
    code, said = await server.run("set", "openai", cwd=tmp_path, stdin=stdin)
    assert code == 2
    assert words in said
    assert server.asked == []


async def test_the_longest_value_passes_and_a_missing_file_is_named(server: Server, tmp_path: Path) -> None:
    assert (await server.run("set", "openai", cwd=tmp_path, stdin=b"x" * 65_536 + b"\n"))[0] == 0
    code, said = await server.run("set", "openai", "--from-file", "nothing.txt", cwd=tmp_path)
    assert (code, "nothing.txt: No such file or directory" in said) == (2, True)


async def test_a_value_is_no_argument(server: Server, tmp_path: Path) -> None:
    code, _, errors = await talon("secret", "set", "openai", "whatever", cwd=tmp_path, env={"TALON_SERVER": server.tiny.url})
    assert code == 2
    assert "unexpected extra argument" in errors
    assert server.asked == []


async def test_on_a_terminal_it_is_asked_for_twice_and_never_shown(server: Server, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "talon", "secret", "set", "openai"),
        cwd=tmp_path,
        env=clean_environment({"TALON_SERVER": server.tiny.url}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    seen = b""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(30):
            for prompt in (b"value of openai:", b"once more:"):
                while prompt not in seen:
                    seen += await loop.run_in_executor(None, os.read, master, 1024)
                os.write(master, f"{VALUE}\n".encode())
            while b"created" not in seen:
                seen += await loop.run_in_executor(None, os.read, master, 1024)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
    assert VALUE.encode() not in seen
    assert server.asked[0] == ("PATCH", "/v1/ns/default/secrets/openai", {"spec": {"value": VALUE}})


def _take_terminal() -> None:
    """The prompt asks the terminal that the process belongs to."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
