"""An incremental parser of server-sent events: bytes in, whole `data` payloads out.

Only `data` matters to a model wire; `event`, `id`, `retry` and comments are read over. Lines may end in LF, CRLF or CR, mixed,
and anything (a line end, a UTF-8 character) may be cut anywhere: the events do not depend on how the bytes were chunked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from talon.providers.decoding import Lines
from talon.providers.dialect import FrameError

#: What stands before the payload of a plain event, and between two; between two if the second is named.
_FIRST = re.compile(rb"(?:event: [^\n]*\n)?data: ")
_BETWEEN = re.compile(rb"\n\n(?:event: [^\n]*\n)?data: ")
_NAMED = re.compile(rb"\n\nevent: [^\n]*\ndata: ")


class SseParser:
    """Feed it what arrives; it gives back the events that became whole. Time and memory are linear in the bytes of an event.

    `line_max`: the most bytes of one line, and of one event's data.
    """

    sniffs: ClassVar[bool] = True
    __slots__ = ("_data", "_data_size", "_line_max", "_skip_lf", "_started", "_tail", "_tail_size")

    def __init__(self, line_max: int) -> None:
        self._line_max = line_max
        self._tail: list[bytes] = []  # pieces of a line whose end has not come; joined once, so a slow line costs no O(n²)
        self._tail_size = 0
        self._data: list[bytes] = []  # data lines of the event under way
        self._data_size = 0
        self._skip_lf = False  # the last chunk ended in CR: an LF at the start of the next belongs to it
        self._started = False

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """-> the data of every event that ended in `chunk`, in order; several data lines are joined by LF.

        Raises `FrameError`. Events without data are not reported.
        """
        if not self._started and chunk[:1] not in b"\xef":
            self._started = True  # what is no byte order mark needs no look for one
        whole = chunk.rfind(b"\n\n") + 2  # up to here: whole events, unless one began before and is not plain
        if whole < 2 or self._data or self._skip_lf or not self._started:
            return self._lines(chunk)
        head = chunk if whole == len(chunk) else chunk[:whole]
        head = b"".join((*self._tail, head)) if self._tail else head
        while head.startswith(b":") and head.startswith(b"\n\n", line := head.find(b"\n")):  # a comment keeps the line alive
            head = head[line + 2 :]
        events = self._plain(head) if head else ()
        if events is None:
            return self._lines(chunk)
        self._tail.clear()
        self._tail_size = 0
        more = self._lines(chunk[whole:]) if whole < len(chunk) else ()
        return [*events, *more] if more else events

    def _plain(self, chunk: bytes) -> Lines | None:
        """Whole events of one `data` line each, perhaps after an `event` line: what nearly all packets of a vendor are. Done by a
        few calls for all of them: what stands between two payloads becomes one line end. None: something else is among them."""
        first = _FIRST.match(chunk)
        if first is None or b"\r" in chunk:
            return None
        text, count = chunk[first.end() : -2], 1
        middle = text.rfind(b"\n\n", 0, len(text) // 2 + 1)
        between = _BETWEEN.match(text, middle) if middle >= 0 else None
        if between is not None:  # most of a burst are of one kind
            pieces = text.split(between[0])
            text, count = b"\n".join(pieces), len(pieces)
        foreign = text.count(b"\n") - (count - 1)
        if foreign:
            text, more = _NAMED.subn(b"\n", text)
            count += more
            if foreign != 3 * more:
                return None
        if len(text) > self._line_max < max(map(len, text.split(b"\n"))):
            return None
        return Lines(text, count)

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Any bytes, line by line."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if not chunk:
            return []
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        if self._tail:
            self._tail.append(chunk)
            chunk = b"".join(self._tail)
            self._tail.clear()
            self._tail_size = 0
        lines = chunk.splitlines()
        self._skip_lf = chunk.endswith(b"\r")
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        events: list[bytes] = []
        for line in lines:
            if line:
                self._line(line)
            elif self._data:
                events.append(self._event())
        if rest:
            self._keep(rest)
        return events

    def rest(self) -> bytes:
        """At the end of the stream: the data of an event that its blank line never closed, `b""` when there is none."""
        if self._tail:
            self._line(b"".join(self._tail))
            self._tail.clear()
        return self._event()

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._tail_size += len(piece)
        if self._tail_size > self._line_max:
            raise FrameError(f"a line is longer than line_max ({self._line_max} bytes)")

    def _line(self, line: bytes) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
        elif line == b"data":
            value = b""
        else:
            return
        self._data_size += len(value)
        if self._data_size > self._line_max:
            raise FrameError(f"an event is longer than line_max ({self._line_max} bytes)")
        self._data.append(value)

    def _event(self) -> bytes:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_size = 0
        return data
