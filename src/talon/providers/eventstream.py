"""An incremental parser of AWS event streams: bytes in, events out. Source: Smithy, "Amazon Event Stream specification".

    length of all u32 | length of the headers u32 | CRC-32 of these | headers | payload | CRC-32 of all before it

A header is: length of its name u8, name, type u8, value. An event comes out as one JSON object: its type is the only key, its
payload (JSON itself) the value. An exception, or an error of the stream, is `{"exception": its type or code, "fault": payload}`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from talon.providers.content import encode
from talon.providers.decoding import Lines
from talon.providers.dialect import FrameError

_PRELUDE = struct.Struct(">III")
_LENGTHS = struct.Struct(">II")
_SUM = struct.Struct(">I")
#: Bytes before the headers, and behind the payload.
_BEFORE, _BEHIND = _PRELUDE.size, _SUM.size
#: Bytes of a header's value by its type; None: a length u16 stands before it.
_SIZES: Mapping[int, int | None] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: None, 7: None, 8: 8, 9: 16}
_TEXT = 7
#: How many headers of what size are kept decoded; the vendor has a dozen kinds of events.
_KINDS_MAX, _HEADERS_MAX = 64, 256


class EventStream:
    """Feed it what arrives; it gives back the events that became whole. `line_max`: the most bytes of one frame."""

    sniffs: ClassVar[bool] = False
    __slots__ = ("_line_max", "_needed", "_openings", "_tail")

    def __init__(self, line_max: int) -> None:
        self._line_max = line_max
        self._tail = bytearray()  # the beginning of a frame, and how many bytes it must have before it is worth a look
        self._needed = 0
        self._openings: dict[bytes, bytes] = {}  # headers -> the event up to its payload: a stream has few kinds

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """-> the events whose frames ended in `chunk`, in order. Raises `FrameError`, also for a frame that was damaged."""
        if self._tail:
            self._tail += chunk
            if len(self._tail) < self._needed:
                return ()
            chunk = bytes(self._tail)
            self._tail.clear()
        crc32, prelude, sum_of, openings = zlib.crc32, _PRELUDE.unpack_from, _SUM.unpack_from, self._openings.get
        at, size, most, count = 0, len(chunk), self._line_max, 0
        runs, opening, payloads = list[bytes](), b"", list[bytes]()  # events of one kind that stand together are joined at once
        while size - at >= _BEFORE:
            length, head, crc = prelude(chunk, at)
            end = at + length
            body, sums = at + _BEFORE + head, end - _BEHIND
            if end > size or body > sums or length > most:
                self._check(chunk[at : at + 8], crc)
                self._needed = length
                break
            if crc32(chunk[at:sums]) != sum_of(chunk, sums)[0]:
                self._check(chunk[at : at + 8], crc)
                raise FrameError("a frame was damaged on its way")
            headers, payload = chunk[at + _BEFORE : body], chunk[body:sums]
            kind = openings(headers)
            if kind is None or not payload:
                kind, payload = self._rare(headers, payload)
            if kind is not opening:
                runs += _joined(opening, payloads)
                opening, payloads = kind, []
            payloads.append(payload)
            count += 1
            at = end
        else:
            self._needed = _BEFORE
        self._tail += chunk[at:]
        runs += _joined(opening, payloads)
        return Lines(b"\n".join(runs), count)

    def rest(self) -> bytes:
        """At the end of the stream nothing may be left. Raises `FrameError`."""
        if self._tail:
            raise FrameError("the body ends in the middle of a frame")
        return b""

    def _rare(self, headers: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """(an event up to its payload, its payload): of one whose headers were not seen before, or that has no payload."""
        fields = _headers(headers)
        match fields.get(":message-type"):
            case "error":
                opening = b'{"exception":%b,"fault":' % encode(fields.get(":error-code", ""))
                return opening, encode({"message": fields.get(":error-message", "")})
            case "exception":
                opening = b'{"exception":%b,"fault":' % encode(fields.get(":exception-type", ""))
            case _:
                opening = b"{%b:" % encode(fields.get(":event-type", ""))
        if len(self._openings) < _KINDS_MAX and len(headers) <= _HEADERS_MAX:
            opening = self._openings.setdefault(headers, opening)
        return opening, payload or b"{}"

    def _check(self, prelude: bytes, crc: int) -> None:
        """Whether the lengths of a frame can be believed. Of a whole frame this need not be asked: its own sum covers them."""
        length, head = _LENGTHS.unpack(prelude)
        if zlib.crc32(prelude) != crc:
            raise FrameError("not the beginning of a frame of an event stream")
        if length > self._line_max:
            raise FrameError(f"a frame is longer than line_max ({self._line_max} bytes)")
        if length < _BEFORE + head + _BEHIND:
            raise FrameError("a frame is shorter than its headers")


def _joined(opening: bytes, payloads: list[bytes]) -> list[bytes]:
    """Events of one kind, a line each; none for none."""
    if not payloads:
        return []
    between = b"}\n" + opening
    text = between.join(payloads)
    if text.count(b"\n") >= len(payloads):  # line ends within a payload are blanks of its JSON
        text = between.join([payload.replace(b"\n", b"\r") for payload in payloads])
    return [b"%b%b}" % (opening, text)]


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
