"""An incremental parser of JSON lines: bytes in, whole lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from talon.providers.decoding import Lines
from talon.providers.dialect import FrameError


class JsonLines:
    """Feed it what arrives; it gives back the lines that became whole. Time and memory are linear in the bytes of a line.

    `line_max`: the most bytes of one line.
    """

    sniffs: ClassVar[bool] = False  # an answer that was not streamed is one line
    __slots__ = ("_line_max", "_tail", "_tail_size")

    def __init__(self, line_max: int) -> None:
        self._line_max = line_max
        self._tail: list[bytes] = []  # pieces of a line whose end has not come
        self._tail_size = 0

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """-> the lines that ended in `chunk`, in order. Raises `FrameError`."""
        end = chunk.rfind(b"\n") + 1
        longest = self._tail_size + len(chunk)  # no line is longer than all that there is
        rest, lines = chunk[end:], Lines(b"", 0)
        if end:
            text = b"".join((*self._tail, chunk[: end - 1])) if self._tail else chunk[: end - 1]
            lines = Lines(text, text.count(b"\n") + 1)
            self._tail.clear()
            self._tail_size = 0
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        if longest > self._line_max < max((self._tail_size, *map(len, lines))):
            raise FrameError(f"a line is longer than line_max ({self._line_max} bytes)")
        return lines

    def rest(self) -> bytes:
        """At the end of the stream: a line that no line end closed, `b""` when there is none."""
        rest = b"".join(self._tail)
        self._tail.clear()
        return rest
