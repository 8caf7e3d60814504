"""A fake vendor for many providers at once, by the first part of the path: it records what it is asked, and goes wrong as told.

/NAME/…   behaviours[NAME](number of the call to NAME, from 1) -> a response; without one, a plain answer in chat completions
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from support.tinyhttp import serving

Behaviour = Callable[[int, web.Request], Awaitable[web.StreamResponse]]
#: What a plain answer uses: tokens in, of these cached, and out.
USED = (1000, 400, 50)


def _event(**more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "m", **more}).encode() + b"\n\n"


def _delta(text: str, reason: str | None = None, **more: Any) -> bytes:
    return _event(choices=[{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}], **more)


ANSWER = b"".join(
    (
        _event(choices=[{"index": 0, "delta": {"reasoning_content": "I think."}, "finish_reason": None}]),
        _delta("fine"),
        _delta("", "stop", usage=None),
        _event(
            choices=[],
            usage={"prompt_tokens": USED[0], "prompt_tokens_details": {"cached_tokens": USED[1]}, "completion_tokens": USED[2]},
        ),
        b"data: [DONE]\n\n",
    )
)


async def answers(number: int, request: web.Request) -> web.StreamResponse:
    """The plain answer."""
    return web.Response(body=ANSWER, content_type="text/event-stream")


async def hangs(number: int, request: web.Request) -> web.StreamResponse:
    """Nothing comes, ever."""
    await asyncio.Event().wait()
    raise AssertionError("nobody ends it")


async def breaks_off(number: int, request: web.Request) -> web.StreamResponse:
    """Half an answer, with half a tool call in it; then the connection is gone."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(_delta("half an answer, "))
    await asyncio.sleep(0.1)  # the text is seen before the rest comes
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at": "ha'}}
    await response.write(_event(choices=[{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]))
    assert request.transport is not None
    request.transport.close()
    return response


def asks_then_answers(tool: str) -> Behaviour:
    """The first answer is a tool call, later ones are plain."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": tool, "arguments": "{}"}}
    delta = _event(choices=[{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}])

    async def answer(number: int, request: web.Request) -> web.StreamResponse:
        if number > 1:
            return await answers(number, request)
        return web.Response(body=delta + b"data: [DONE]\n\n", content_type="text/event-stream")

    return answer


def billed(reason: str, **usage: Any) -> Behaviour:
    """An answer that ends for `reason`, and says more of its usage than tokens."""
    counts = {"prompt_tokens": USED[0], "completion_tokens": USED[2], **usage}
    body = _delta("fine") + _delta("", reason) + _event(choices=[], usage=counts) + b"data: [DONE]\n\n"

    async def answer(number: int, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="text/event-stream")

    return answer


def refuses(status: int, message: str = "no", retry_after_s: int | None = None) -> Behaviour:
    """An error, each time."""

    async def refuse(number: int, request: web.Request) -> web.StreamResponse:
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return web.json_response({"error": {"message": message}}, status=status, headers=headers)

    return refuse


class Recorder:
    """`calls` are the bodies of the requests to each name, in their order."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.calls: dict[str, list[dict[str, Any]]] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One call."""
        name = request.path.split("/")[1]
        calls = self.calls.setdefault(name, [])
        calls.append(json.loads(await request.read() or b"{}"))
        return await self.behaviours.get(name, answers)(len(calls), request)

    def provider(self, name: str, kind: str = "openai", path: str = "/v1", **more: Any) -> dict[str, Any]:
        """The configuration of a provider that asks here under `name`."""
        return {"kind": kind, "base_url": f"{self.url}/{name}{path}", "api_key": "sk-fake", **more}


@asynccontextmanager
async def recording() -> AsyncGenerator[Recorder]:
    """A recorder that serves."""
    recorder = Recorder()
    async with serving(recorder.answer) as tiny:
        recorder.url = tiny.url
        yield recorder
