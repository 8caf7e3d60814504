"""The model server of the bench: the chat-completions wire, as lean as asyncio allows, so that it is no part of what is measured.

A model's name says what it does: `TOOL/DELAY_MS/RATE`. It asks for TOOL once (`none`: not at all), then answers with 50 tokens: at
RATE tokens a second, or with all of them at once if RATE is 0. Each call waits DELAY_MS before its first byte.

    python -m bench.model        prints `ready http://127.0.0.1:PORT`
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple, cast

import msgspec
import uvloop

TOKENS = [f"word{number:02} " for number in range(50)]
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":120,"completion_tokens":50,"total_tokens":170}}\n\ndata: [DONE]\n\n'


class Behaviour(NamedTuple):
    """A model's name, read."""

    tool: str
    delay_s: float
    rate: float


def behaviour(name: str) -> Behaviour:
    """What the model `name` does. Raises `ValueError`."""
    tool, delay_ms, rate = name.split("/")
    return Behaviour("" if tool == "none" else tool, float(delay_ms) / 1000, float(rate))


class _Message(msgspec.Struct):
    role: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]


_decode = msgspec.json.Decoder(_Request).decode


def _event(delta: bytes, finish: bytes = b"null") -> bytes:
    return b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n' % (
        delta,
        finish,
    )


def _whole(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN_EVENTS = [_event(b'{"content":"%b"}' % token.encode()) for token in TOKENS]
ENDING = _event(b"{}", b'"stop"') + USAGE
ANSWER = _whole(_event(b'{"role":"assistant","content":"%b"}' % "".join(TOKENS).encode()) + ENDING)


def _tool_call(tool: str) -> bytes:
    function = b'{"name":"%b","arguments":"{\\"subject\\":\\"renewals\\"}"}' % tool.encode()
    call = b'{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":%b}]}' % function
    return _whole(_event(call) + _event(b"{}", b'"tool_calls"') + USAGE)


class ModelServer(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._sent = 0
        self._began_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        found = LENGTH.search(self._data, 0, head)
        end = head + 4 + (int(found[1]) if found else 0)
        if len(self._data) < end:
            return
        request = _decode(bytes(self._data[head + 4 : end]))
        del self._data[:end]
        does = behaviour(request.model)
        if does.delay_s:
            self._loop.call_later(does.delay_s, self._answer, does, request)
        else:
            self._answer(does, request)

    def _answer(self, does: Behaviour, request: _Request) -> None:
        if self._transport.is_closing():
            return
        if does.tool and request.messages[-1].role != "tool":
            self._transport.write(_tool_call(does.tool))
        elif not does.rate:
            self._transport.write(ANSWER)
        else:
            self._transport.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            self._sent, self._began_s = 0, self._loop.time()
            self._stream(does.rate)

    def _stream(self, rate: float) -> None:
        """All tokens that are due, then the wait for the next one."""
        if self._transport.is_closing():
            return
        due = min(len(TOKENS), 1 + int((self._loop.time() - self._began_s) * rate))
        if due > self._sent:
            self._transport.write(_chunk(b"".join(TOKEN_EVENTS[self._sent : due])))
            self._sent = due
        if due == len(TOKENS):
            self._transport.write(_chunk(ENDING) + b"0\r\n\r\n")
        else:
            self._loop.call_at(self._began_s + due / rate, self._stream, rate)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(ModelServer, "127.0.0.1", 0, backlog=8192)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
