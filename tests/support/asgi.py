"""One request to an ASGI application, in this process: what a booted server would do, without a socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message


@dataclass
class Reply:
    """What came back. Of a stream: its beginning."""

    status: int
    headers: list[tuple[bytes, bytes]]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON of it; None if it is none."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None

    def header(self, name: str) -> str:
        """The first header of that name; "" for none."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name.encode()), "")


async def request(
    app: ASGIApp,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    scheme: str = "http",
    timeout_s: float = 20.0,
    leaves: bool = False,
) -> Reply:
    """Ask `app`; a client of a stream leaves after its first bytes, one that `leaves` after `body`, which is not all of it."""
    target, _, query = path.partition("?")
    named = {"host": "127.0.0.1", **{name.lower(): value for name, value in (headers or {}).items()}}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(target),
        "raw_path": quote(target).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    reply, told, gone = Reply(0, [], b""), False, asyncio.Event()

    async def receive() -> Message:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": leaves}
        if not leaves:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status, reply.headers = message["status"], list(message["headers"])
            return
        reply.raw += message.get("body", b"")
        if reply.header("content-type").startswith("text/event-stream") or not message.get("more_body", False):
            gone.set()

    async with asyncio.timeout(timeout_s):
        await app(scope, receive, send)
    return reply
