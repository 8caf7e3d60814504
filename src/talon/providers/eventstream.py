"""An incremental parser of AWS event streams: bytes in, events out. Source: Smithy, "Amazon Event Stream specification".

    length of all u32 | length of the headers u32 | CRC-32 of these | headers | payload | CRC-32 of all before it

A header is: length of its name u8, name, type u8, value. An event comes out as one JSON object: its type is the only key, its
payload (JSON itself) the value. An exception has its type likewise, an error of the stream the key `error`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import ClassVar

from talon.providers.content import encode
from talon.providers.dialect import FrameError

_PRELUDE = struct.Struct(">III")
_CRC = 4
_LEAST = _PRELUDE.size + _CRC
#: Bytes of a header's value by its type; None: a length u16 stands before it.
_SIZES: Mapping[int, int | None] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: None, 7: None, 8: 8, 9: 16}
_TEXT = 7


class EventStream:
    """Feed it what arrives; it gives back the events that became whole. `line_max`: the most bytes of one frame."""

    sniffs: ClassVar[bool] = False
    __slots__ = ("_buffer", "_line_max")

    def __init__(self, line_max: int) -> None:
        self._line_max = line_max
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """-> the events whose frames ended in `chunk`, in order. Raises `FrameError`, also for a frame that was damaged."""
        buffer, events, at = self._buffer, list[bytes](), 0
        buffer += chunk
        while len(buffer) - at >= _PRELUDE.size:
            length, head, crc = _PRELUDE.unpack_from(buffer, at)
            if zlib.crc32(buffer[at : at + 8]) != crc:
                raise FrameError("not the beginning of a frame of an event stream")
            if length > self._line_max:
                raise FrameError(f"a frame is longer than line_max ({self._line_max} bytes)")
            if length < _LEAST + head:
                raise FrameError("a frame is shorter than its headers")
            if len(buffer) - at < length:
                break
            frame = bytes(buffer[at : at + length])
            if zlib.crc32(frame[:-_CRC]) != int.from_bytes(frame[-_CRC:], "big"):
                raise FrameError("a frame was damaged on its way")
            payload = _PRELUDE.size + head
            events.append(_event(_headers(frame[_PRELUDE.size : payload]), frame[payload:-_CRC]))
            at += length
        del buffer[:at]
        return events

    def rest(self) -> bytes:
        """At the end of the stream nothing may be left. Raises `FrameError`."""
        if self._buffer:
            raise FrameError("the body ends in the middle of a frame")
        return b""


def _headers(data: bytes) -> dict[str, str]:
    """The headers that are texts; others have no meaning here."""
    headers, at = dict[str, str](), 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            size = _SIZES[kind]
            if size is None:
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
            value = data[at : at + size]
            at += size
            if kind == _TEXT:
                headers[name] = value.decode()
    except (IndexError, KeyError, UnicodeDecodeError):
        raise FrameError("a frame's headers cannot be read") from None
    return headers


def _event(headers: Mapping[str, str], payload: bytes) -> bytes:
    match headers.get(":message-type"):
        case "error":
            words = {"code": headers.get(":error-code", ""), "message": headers.get(":error-message", "")}
            return encode({"error": words})
        case "exception":
            kind = headers.get(":exception-type", "")
        case _:
            kind = headers.get(":event-type", "")
    return b"{%b:%b}" % (encode(kind), payload or b"{}")
