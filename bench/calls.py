"""CPU of one model call, as a ratio: Talon's adapter against a bare aiohttp call that reads the same stream to its end.

`python -m bench.calls [--calls N] [--words N]`: both in one process, in turns, against a server in a process of its own. A
stream is written in two ways: an event per packet (a model that is slower than the network), and all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.connection
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from talon.providers.anthropic import Anthropic
from talon.providers.dialect import Dialect
from talon.providers.http import HttpProvider
from talon.providers.openai_chat import OpenAIChat
from talon.providers.openai_responses import OpenAIResponses
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, TextDelta

#: The target, and the turns that each way gets.
RATIO_MAX, ROUNDS = 1.5, 5
WORD = " word"


def sse(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def chat_events(words: int) -> list[bytes]:
    """A chat completion as OpenAI streams it, a word per event."""
    envelope: dict[str, Any] = {
        "id": "chatcmpl-9f8d7c6b5a4e3d2c1b0a",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-5-2026-01-01",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }

    def chunk(delta: dict[str, Any], reason: str | None) -> bytes:
        return sse(envelope | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})

    usage = {"prompt_tokens": 30, "completion_tokens": words, "total_tokens": 30 + words}
    events = [chunk({"role": "assistant", "content": ""}, None), *(chunk({"content": WORD}, None) for _ in range(words))]
    return [*events, chunk({}, "stop"), sse(envelope | {"choices": [], "usage": usage}), b"data: [DONE]\n\n"]


def messages_events(words: int) -> list[bytes]:
    """A message as Anthropic streams it."""
    usage = {"input_tokens": 30, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
        "usage": usage,
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * words,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": words}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\n".encode() + sse(event) for event in events]


def responses_events(words: int) -> list[bytes]:
    """A response as OpenAI streams it."""
    usage = {"input_tokens": 30, "output_tokens": words, "total_tokens": 30 + words}
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5-2026-01-01",
        "status": "in_progress",
        "output": [],
    }
    at: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item: dict[str, Any] = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *[at | {"type": "response.output_text.delta", "delta": WORD, "logprobs": []}] * words,
        at | {"type": "response.output_text.done", "text": WORD * words},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response | {"status": "completed", "usage": usage}},
    ]
    return [f"event: {event['type']}\n".encode() + sse(event | {"sequence_number": number}) for number, event in enumerate(events)]


WIRES: dict[str, tuple[Callable[[str], Dialect], Callable[[int], list[bytes]]]] = {
    "openai": (OpenAIChat, chat_events),
    "openai_responses": (OpenAIResponses, responses_events),
    "anthropic": (Anthropic, messages_events),
}


def serve(told: multiprocessing.connection.Connection, events: list[bytes], *, paced: bool) -> None:
    """The server's process: answers every request with the stream."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answers(reader, writer, events, paced=paced)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: list[bytes], *, paced: bool) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    while True:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in request.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        if not paced:
            writer.write(head + b"".join(chunks) + b"0\r\n\r\n")
            continue
        writer.write(head)
        for chunk in chunks:
            await asyncio.sleep(0.0003)  # the reader has read by then: one event, one packet, one wake-up
            writer.write(chunk)
        writer.write(b"0\r\n\r\n")


async def measure(dialect: Dialect, calls: int, words: int) -> tuple[float, float]:
    """-> CPU milliseconds a call: (Talon, bare)."""
    request = ChatRequest("m", (ChatMessage("system", "Be kind."), ChatMessage("user", "Tell me a story.")))
    provider = HttpProvider("bench", dialect, "sk-bench")
    url, body = dialect.url(request), dialect.body(request)
    headers = {"Content-Type": "application/json", **dialect.headers("sk-bench", url, body)}

    async def ours() -> None:
        text, ended = 0, False
        async for event in provider.chat(request):
            if isinstance(event, TextDelta):
                text += len(event.text)
            ended = isinstance(event, Finished)
        assert ended
        assert text == len(WORD) * words

    async with aiohttp.ClientSession() as session:

        async def bare() -> None:
            async with session.post(url, data=body, headers=headers) as response:
                async for _ in response.content.iter_any():
                    pass

        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        await _cpu(ours, 20)
        await _cpu(bare, 20)
        for _ in range(ROUNDS):
            seconds["ours"].append(await _cpu(ours, calls))
            seconds["bare"].append(await _cpu(bare, calls))
    await provider.close()
    return min(seconds["ours"]) * 1000 / calls, min(seconds["bare"]) * 1000 / calls  # what others on the machine took is not ours


async def _cpu(call: Callable[[], Awaitable[None]], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        await call()
    return time.process_time() - began


def main() -> int:
    """Prints a line per wire and way of writing; -> 1 if the ratio of a stream as models send it is above the target."""
    parser = argparse.ArgumentParser(prog="bench.calls", description=__doc__)
    parser.add_argument("--calls", type=int, default=10, help="calls of one round")
    parser.add_argument("--words", type=int, default=200, help="events of one answer")
    given = parser.parse_args()
    worst = 0.0
    for name, (dialect, events) in WIRES.items():
        for paced in (True, False):
            here, there = multiprocessing.Pipe()
            server = multiprocessing.get_context("spawn").Process(
                target=serve, args=(there, events(given.words)), kwargs={"paced": paced}
            )
            server.start()
            try:
                base = f"http://127.0.0.1:{here.recv()}/v1"
                ours, bare = asyncio.run(measure(dialect(base), given.calls, given.words))
            finally:
                server.terminate()
                server.join()
            worst = max(worst, ours / bare) if paced else worst
            way = "an event per packet" if paced else "all at once"
            print(f"{name:18} {way:20} {ours:7.2f} ms  bare {bare:7.2f} ms  x {ours / bare:.2f}", flush=True)
    print(f"worst ratio of a stream as models send it, an event per packet: {worst:.2f}; target {RATIO_MAX}")
    return int(worst > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
