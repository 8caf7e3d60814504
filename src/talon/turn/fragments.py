"""Streamed text on its way to the journal's side table (kernel §4): the first piece at once, later ones paced.

The pace is one clock for all answers of a process: what came since its last beat goes together into the next commit, however many
answers it belongs to. A piece costs a place in a list, no task and no timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from talon.store.model import Appended, Fragment

PACE_S = 0.05
Kind = Literal["text", "reasoning"]
#: Takes what came of an append, once.
Answered = Callable[[Appended | Exception], None]


class Pace:
    """Beats while there is something to flush, `pace_s` apart at least and not before `pace_s` after a first piece that found
    nothing else waiting. After a silence of that length a beat comes at once."""

    def __init__(self, pace_s: float = PACE_S) -> None:
        self._pace_s = pace_s
        self._next_s = 0.0
        self._waiting: list[Callable[[], None]] = []

    def at_once(self, flush: Callable[[], None]) -> None:
        """Call `flush` when the event loop turns."""
        loop = asyncio.get_running_loop()
        self._next_s = loop.time() + self._pace_s
        loop.call_soon(flush)

    def at_beat(self, flush: Callable[[], None]) -> None:
        """Call `flush` at the next beat, never before the event loop turns."""
        self._waiting.append(flush)
        if len(self._waiting) == 1:
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._next_s, loop.time()), self._beat)

    def _beat(self) -> None:
        self._next_s = asyncio.get_running_loop().time() + self._pace_s
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            flush()


class FragmentStream:
    """Gathers the text of one model call and hands it over as fragments, one append at a time.

    `append` begins to write fragments and tells later what came of it. A text that is complete before the event loop turns (a model
    that does not stream, an answer in one packet) makes no fragment at all: its message holds it. A failed append ends the stream;
    `close` raises what it was. `begun` is what stands in the side table already, of an answer that is gone on with.
    """

    def __init__(self, seq: int, append: Callable[[tuple[Fragment, ...], Answered], None], pace: Pace, begun: str = "") -> None:
        self._seq, self._append, self._pace = seq, append, pace
        self._begun = len(begun)
        self._texts: dict[Kind, list[str]] = {"text": [begun] if begun else [], "reasoning": []}
        self._fresh: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._sent: dict[Kind, int] = {"text": len(begun), "reasoning": 0}
        self._busy = False  # a flush is to come, or its append is under way
        self._flying = False
        self._ended = False
        self._error: Exception | None = None
        self._landed: asyncio.Future[None] | None = None

    def add(self, text: str, kind: Kind = "text") -> None:
        """More text. Raises what an earlier append raised, so that a worker that lost its session stops listening."""
        if self._error is not None:
            raise self._error
        self._texts[kind].append(text)
        self._fresh[kind].append(text)
        if self._busy:
            return
        self._busy = True
        if self.streamed:
            self._pace.at_beat(self._flush)
        else:
            self._pace.at_once(self._flush)

    def text(self, kind: Kind = "text") -> str:
        """All text so far."""
        return "".join(self._texts[kind])

    @property
    def length(self) -> int:
        """Characters that came so far, of both kinds; without what had begun."""
        return sum(len(text) for texts in self._texts.values() for text in texts) - self._begun

    @property
    def begun(self) -> int:
        """Characters of the text that stood before this call."""
        return self._begun

    @property
    def streamed(self) -> bool:
        """Whether a client may have seen some of it."""
        return bool(self._sent["text"] or self._sent["reasoning"])

    def end(self) -> None:
        """The text is complete: no append begins any more. What was not handed over yet is in the message that follows."""
        self._ended = True

    @property
    def to_drop(self) -> int:
        """The call whose fragments are dropped with its end; 0 if there are none."""
        return self._seq if self.streamed else 0

    async def settle(self) -> int:
        """Wait until all text so far is durable; -> its characters. A failed append is told by `close`."""
        while self._busy and self._error is None:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed
        return len(self.text())

    async def close(self) -> None:
        """End, and wait for the append under way."""
        self.end()
        if self._flying:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        if self._ended:
            return
        pieces = tuple(self._piece(kind, texts) for kind, texts in self._fresh.items() if texts)
        self._flying = True
        self._append(pieces, self._answered)

    def _answered(self, answer: Appended | Exception) -> None:
        self._busy = self._flying = False
        if isinstance(answer, Exception):
            self._error = answer
        elif self._fresh["text"] or self._fresh["reasoning"]:
            self._busy = True
            self._pace.at_beat(self._flush)
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    def _piece(self, kind: Kind, texts: list[str]) -> Fragment:
        text = "".join(texts)
        texts.clear()
        offset = self._sent[kind]
        self._sent[kind] += len(text)
        return Fragment(self._seq, offset, text, kind)
