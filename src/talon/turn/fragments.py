"""Streamed text on its way to the journal's side table (kernel §4): the first piece at once, later ones paced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from talon.store.model import Fragment

PACE_S = 0.05
Kind = Literal["text", "reasoning"]


class FragmentStream:
    """Gathers the text of one model call and hands it over as fragments.

    A text that is complete before the event loop turns (a model that does not stream, an answer in one packet) makes no fragment
    at all: its message holds it. A failed append ends the stream; `close` raises what it was.
    """

    def __init__(self, seq: int, append: Callable[[tuple[Fragment, ...]], Awaitable[None]], pace_s: float = PACE_S) -> None:
        self._seq, self._append, self._pace_s = seq, append, pace_s
        self._texts: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._fresh: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._sent: dict[Kind, int] = {"text": 0, "reasoning": 0}
        self._more = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    def add(self, text: str, kind: Kind = "text") -> None:
        """More text. Raises what an earlier append raised, so that a worker that lost its session stops listening."""
        self._texts[kind].append(text)
        self._fresh[kind].append(text)
        self._more.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._flush())
        elif self._task.done() and not self._task.cancelled():
            self._task.result()

    def text(self, kind: Kind = "text") -> str:
        """All text so far."""
        return "".join(self._texts[kind])

    @property
    def length(self) -> int:
        """Characters so far, of both kinds."""
        return sum(len(text) for texts in self._texts.values() for text in texts)

    @property
    def streamed(self) -> bool:
        """Whether a client may have seen some of it."""
        return any(self._sent.values())

    def end(self) -> None:
        """The text is complete: no append begins any more. What was not handed over yet is in the message that follows."""
        if not self._ended.done():
            self._ended.set_result(None)
        self._more.set()

    @property
    def to_drop(self) -> int:
        """The call whose fragments are dropped with its end; 0 if there are none."""
        return self._seq if self.streamed else 0

    async def close(self) -> None:
        """End, and wait for the append under way."""
        self.end()
        if self._task is not None:
            await self._task

    async def _flush(self) -> None:
        while True:
            await self._more.wait()
            if self._ended.done():
                return
            self._more.clear()
            pieces = tuple(piece for kind in ("text", "reasoning") if (piece := self._piece(kind)) is not None)
            await self._append(pieces)
            # A wakeable wait: the end of the answer does not stand in line behind the pace.
            await asyncio.wait({self._ended}, timeout=self._pace_s)

    def _piece(self, kind: Kind) -> Fragment | None:
        text = "".join(self._fresh[kind])
        if not text:
            return None
        self._fresh[kind].clear()
        offset = self._sent[kind]
        self._sent[kind] += len(text)
        return Fragment(self._seq, offset, text, kind)
