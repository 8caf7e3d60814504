"""`ScriptedServer`: the fake model behind the OpenAI wire, as a server of its own. A fake for demos and tests.

POST /v1/chat/completions    stream or not, from the script, faults included
GET  /v1/models              one model
GET  /requests?last=N        what was asked and how it ended, newest last; DELETE forgets it
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
from aiohttp import web

from talon.domain.entries import Usage
from talon.providers.protocol import ChatRequest, ProviderError
from talon.providers.scripted.frames import WireRequest, Writer
from talon.providers.scripted.model import Fault, Reply
from talon.providers.scripted.pieces import error_body, headers_of, pieces, usage_of
from talon.providers.scripted.script import Script

#: The newest requests that are kept for `/requests`.
REQUESTS_MAX = 1000
_BODY_MAX = 64 * 1024 * 1024
_SHUTDOWN_S = 0.5


class Seen(msgspec.Struct):
    """One request that came. `ended`: open | done | refused | fault | disconnected (the client went first)."""

    number: int
    body: msgspec.Raw
    stream: bool = False
    rule: str = ""
    ended: str = "open"


class ScriptedServer:
    """A server on `host:port` (0 picks a port) while it is entered: `async with ScriptedServer(script) as server`.

    `api_key`: when given, every call must carry it. No header of a request is kept or shown.
    """

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, api_key: str = "") -> None:
        self._script = script
        self._host = host
        self._port = port
        self._api_key = api_key
        self._runner: web.AppRunner | None = None
        self._count = 0
        self.requests: deque[Seen] = deque(maxlen=REQUESTS_MAX)

    @property
    def base_url(self) -> str:
        """`http://HOST:PORT/v1`, once it is entered."""
        return f"http://{self._host}:{self._port}/v1"

    async def __aenter__(self) -> ScriptedServer:
        app = web.Application(client_max_size=_BODY_MAX)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/requests", self._shown)
        app.router.add_delete("/requests", self._forgotten)
        # handler_cancellation: a client that goes away ends its handler, also one that stalls for ever
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model", "owned_by": "talon"}]})

    async def _shown(self, request: web.Request) -> web.Response:
        last = request.query.get("last", "")
        items = list(self.requests)[-int(last) :] if last.isdecimal() and int(last) else list(self.requests)
        return _json(msgspec.json.encode({"total": self._count, "items": items}))

    async def _forgotten(self, _: web.Request) -> web.Response:
        self.requests.clear()
        self._count = 0
        return web.Response(status=204)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self._api_key and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return _json(error_body("the API key is missing or wrong", 401), 401)
        body = await request.read()
        self._count += 1
        try:
            wire = msgspec.json.decode(body, type=WireRequest)
            asked = wire.chat_request()
        except (ValueError, UnicodeDecodeError) as error:
            return _json(error_body(f"the request is not valid: {error}", 400), 400)
        seen = Seen(self._count, msgspec.Raw(body), wire.stream)
        self.requests.append(seen)
        try:
            return await self._answer(request, wire, asked, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.ended = "disconnected"
            raise

    async def _answer(self, request: web.Request, wire: WireRequest, asked: ChatRequest, seen: Seen) -> web.StreamResponse:
        try:
            reply = self._script.reply(asked)
        except ProviderError as error:
            seen.ended = "refused"
            return _json(error_body(error.detail, 400), 400)
        seen.rule = reply.rule
        fault = reply.fault
        await asyncio.sleep(reply.delay_ms / 1000)
        usage = usage_of(reply, asked)
        match fault.kind if fault else "":
            case "status" if fault:
                seen.ended = "fault"
                return _json(error_body(fault.message, fault.status), fault.status, headers_of(fault))
            case "empty":
                seen.ended = "fault"
                return web.Response()
            case "garbage":
                seen.ended = "fault"
                return web.Response(body=b"<html><body>It works!</body></html>", content_type="text/html")
            case _:
                writer = Writer(seen.number, wire.model, reply.chunk_chars)
                if wire.stream:
                    return await self._streamed(request, reply, usage if wire.wants_usage else None, writer, seen)
                return await self._whole(request, reply, usage, writer, seen)

    async def _streamed(
        self, request: web.Request, reply: Reply, usage: Usage | None, writer: Writer, seen: Seen
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        fault = reply.fault
        await response.prepare(request)
        if fault is None or fault.after:
            await response.write(writer.opening())
        for number, piece in enumerate(pieces(reply)):
            if fault is not None and number == fault.after:
                break
            if number and reply.chunk_delay_ms:
                await asyncio.sleep(reply.chunk_delay_ms / 1000)
            for event in writer.piece(piece):
                await response.write(event)
        if fault is not None:
            return await self._broken(request, response, fault, b'data: {"choices":[{"delta":{"conte', seen)
        await response.write(writer.ending(reply.stop_reason, usage))
        await response.write_eof()
        seen.ended = "done"
        return response

    async def _whole(self, request: web.Request, reply: Reply, usage: Usage, writer: Writer, seen: Seen) -> web.StreamResponse:
        document = writer.completion(reply, usage)
        if reply.fault is None:
            seen.ended = "done"
            return _json(document)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        half = document[: len(document) // 2]
        if reply.fault.kind != "half_json":
            await response.write(half)
        return await self._broken(request, response, reply.fault, half, seen)

    async def _broken(
        self, request: web.Request, response: web.StreamResponse, fault: Fault, half: bytes, seen: Seen
    ) -> web.StreamResponse:
        """End an answer that has begun as `fault` says."""
        if fault.kind == "stall":
            await asyncio.get_running_loop().create_future()  # until the client goes or the server stops
        seen.ended = "fault"
        if fault.kind == "half_json":
            await response.write(half)
            await response.write_eof()
        elif request.transport is not None:
            request.transport.close()  # without the body's end
        return response


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
