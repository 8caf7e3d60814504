"""What every peer is served through: a thin HTTP front, the model client, the tools. It needs aiohttp and nothing of Talon.

A peer is one process: `POST /turn` with {"session", "content", "model"} answers with the events of the turn, `text.delta` and
`turn.completed`. A peer brings `run_turn(turn)`, and what has to be open while it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

RESULT = "Four accounts renew: globex 240 seats, initech 80 seats, hooli 35 seats, umbrella 12 seats. Nothing is overdue."
PROMPT = "You are a careful assistant. Use the tools; answer in one paragraph."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look something up; takes no time.",
            "parameters": {"type": "object", "properties": {"subject": {"type": "string"}}, "required": ["subject"]},
        },
    }
]
Message = dict[str, Any]
#: Takes a piece of the answer's text.
OnText = Callable[[str], Awaitable[None]]


async def look_up(subject: str) -> str:
    """The tool."""
    return f"{subject}: {RESULT}"


async def run_tools(answer: Message) -> list[Message]:
    """The results of the calls of a model's answer."""
    results: list[Message] = []
    for call in answer["tool_calls"]:
        arguments = json.loads(call["function"]["arguments"])
        results.append({"role": "tool", "tool_call_id": call["id"], "content": await look_up(**arguments)})
    return results


class Model:
    """The model client: chat completions, streamed, over one aiohttp pool."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._http: ClientSession | None = None

    async def ask(self, model: str, messages: list[Message], on_text: OnText) -> Message:
        """One call; -> the assistant's message, with `tool_calls` where it has any."""
        if self._http is None:
            self._http = ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())
        body = {"model": model, "messages": [{"role": "system", "content": PROMPT}, *messages], "tools": TOOLS, "stream": True}
        text: list[str] = []
        calls: list[dict[str, Any]] = []
        async with self._http.post(self._url, json=body) as response:
            response.raise_for_status()
            rest = b""
            while data := await response.content.readany():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            delta = choice["delta"]
                            calls += delta.get("tool_calls", ())
                            if piece := delta.get("content"):
                                text.append(piece)
                                await on_text(piece)
        answer: Message = {"role": "assistant", "content": "".join(text)}
        if calls:
            answer["tool_calls"] = [{"id": call["id"], "type": "function", "function": call["function"]} for call in calls]
        return answer

    async def close(self) -> None:
        """Close the pool."""
        if self._http is not None:
            await self._http.close()


@dataclass
class Turn:
    """One turn as it was posted, with the client that waits for it."""

    session: str
    content: str
    model: str
    on_text: OnText = field(repr=False)


def arguments() -> argparse.Namespace:
    """The peers' command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-url", required=True)
    parser.add_argument("--database", default="", help="a PostgreSQL URL or a SQLite file")
    return parser.parse_args()


async def _post_turn(request: web.Request, run_turn: Callable[[Turn], Awaitable[None]]) -> web.StreamResponse:
    posted = await request.json()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)

    async def on_text(piece: str) -> None:
        await response.write(b"event: text.delta\ndata: " + json.dumps({"text": piece}).encode() + b"\n\n")

    try:
        await run_turn(Turn(posted["session"], posted["content"], posted["model"], on_text))
    except Exception as error:
        await response.write(b"event: turn.failed\ndata: " + json.dumps(repr(error)).encode() + b"\n\n")
        raise
    await response.write(b"event: turn.completed\ndata: {}\n\n")
    await response.write_eof()
    return response


async def _serve(open_peer: Callable[[], AbstractAsyncContextManager[Callable[[Turn], Awaitable[None]]]]) -> None:
    async with open_peer() as run_turn:
        app = web.Application()
        app.router.add_post("/turn", lambda request: _post_turn(request, run_turn))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        sock = socket.create_server(("127.0.0.1", 0), backlog=8192)
        await web.SockSite(runner, sock, backlog=8192).start()
        print(f"ready http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
        await asyncio.Event().wait()


def serve(open_peer: Callable[[], AbstractAsyncContextManager[Callable[[Turn], Awaitable[None]]]]) -> None:
    """Serve until killed."""
    uvloop.run(_serve(open_peer))
