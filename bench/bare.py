"""What a caller writes who has aiohttp and a decoder of JSON, and nothing else: cut the stream into events, decode each, collect
the text. No deadlines, limits, errors, counts or tool calls: the least that reads the stream."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

#: What stands in the chunks so far -> (the payloads that are whole, the rest).
Cut = Callable[[bytes], tuple[list[bytes], bytes]]
_PRELUDE, _SUM = struct.Struct(">II").unpack_from, struct.Struct(">I").unpack_from


def _sse(data: bytes) -> tuple[list[bytes], bytes]:
    *events, rest = data.split(b"\n\n")
    return [line[6:] for event in events for line in event.split(b"\n") if line.startswith(b"data: ")], rest


def _lines(data: bytes) -> tuple[list[bytes], bytes]:
    *lines, rest = data.split(b"\n")
    return lines, rest


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    found, at = list[bytes](), 0
    while len(data) - at >= 12:
        length, head = _PRELUDE(data, at)
        if at + length > len(data):
            break
        end = at + length
        assert zlib.crc32(data[at : end - 4]) == _SUM(data, end - 4)[0]  # as the format wants of who reads it
        found.append(data[at + 12 + head : end - 4])
        at = end
    return found, data[at:]


def _choices(event: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _candidates(event: Any) -> str:
    return "".join(part["text"] for candidate in event["candidates"] for part in candidate["content"]["parts"])


def _delta(event: Any) -> str:
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


def _block(event: Any) -> str:
    return event.get("delta", {}).get("text", "")


def _message(event: Any) -> str:
    return event["message"]["content"]


#: By the kind of the provider: how its stream is cut, and the text of one event.
_WIRES: dict[str, tuple[Cut, Callable[[Any], str]]] = {
    "openai": (_sse, _choices),
    "openrouter": (_sse, _choices),
    "openai_responses": (_sse, _delta),
    "anthropic": (_sse, _block),
    "gemini": (_sse, _candidates),
    "bedrock": (_frames, _block),
    "ollama": (_lines, _message),
}


async def read(kind: str, response: aiohttp.ClientResponse) -> str:
    """The text of the answer, read to the end of its body."""
    cut, text_of = _WIRES[kind]
    decode, pieces, rest = msgspec.json.decode, list[str](), b""
    async for chunk in response.content.iter_any():
        payloads, rest = cut(rest + chunk)
        for payload in payloads:
            if payload != b"[DONE]":
                pieces.append(text_of(decode(payload)))
    return "".join(pieces)
