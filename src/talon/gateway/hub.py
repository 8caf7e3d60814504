"""Readers of journals in this process, and how they learn that there is more.

Three ways, none of which has to be reliable: a commit of this process is *pushed* with its content; a commit of another process is
*poked* (a bell from the broker); and where other processes write at all, one poll a second over the watched sessions finds what a
lost bell would have told. Only a push that goes on exactly where a reader stands is used as it is; in every other case the reader
reads the journal from its own place. So an entry is sent once, whatever is lost, repeated or late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

from talon.domain.errors import TalonError, Throttled, Unavailable
from talon.domain.ids import Clock
from talon.gateway.deps import GatewaySettings
from talon.gateway.events import SSE, Form, Place, advance, fits
from talon.gateway.sleeper import Sleeper
from talon.store.writer import Committed

log = logging.getLogger("talon.gateway")
#: Why a reader was stopped: its buffer ran over, its client left, the gateway shuts down, its principal is nobody any more.
Stop = Literal["slow", "gone", "shutdown", "revoked"]


class Tails(Protocol):
    """The part of the journal that the poll asks."""

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        """sid -> last_seq."""
        ...


class _Batch:
    """One commit of one session, written once for readers of one form at the same place, as they are unless one is behind."""

    __slots__ = ("_before", "_done", "_form", "at_ms", "base", "commit", "last")

    def __init__(self, commit: Committed, now_ms: int) -> None:
        self.commit = commit
        self.base = commit.base
        self.last = commit.base + len(commit.entries)
        self.at_ms = commit.entries[-1].at_ms if commit.entries else now_ms
        self._before: Place | None = None
        self._form: Form | None = None
        self._done = b"", Place(0)

    def after(self, place: Place, form: Form) -> tuple[bytes, Place]:
        if place != self._before or form is not self._form:
            self._before, self._form = place, form
            self._done = advance(place, self.commit.entries, self.commit.fragments, self.at_ms, form)
        return self._done


class Reader(Sleeper):
    """One stream's side of the hub. Used by one task; the hub only fills its buffer and wakes it.

    `place` is where the stream stands once the buffer is sent. `again`: read the journal from `place` (also true at first).
    `ours`: the model call that this process announced, whose fragments are all pushed.
    While the task reads (`reading`), a push only sets `again`. `beat`: a heartbeat is due. `check`: ask whether the session still
    exists. `sending`: the task hangs in a send until the client takes it; then only `cut` (of the connection) can stop it.
    """

    __slots__ = (
        "_buffer",
        "_cut",
        "_most",
        "_size",
        "again",
        "beat",
        "check",
        "form",
        "ours",
        "place",
        "reading",
        "sending",
        "sid",
        "stop",
    )

    def __init__(self, sid: int, place: Place, buffer_max: int, cut: Callable[[], None], form: Form) -> None:
        super().__init__()
        self.sid = sid
        self.form = form
        self.place = place
        self.again = True
        self.ours = 0
        self.reading = False
        self.beat = False
        self.check = False
        self.sending = False
        self._cut = cut
        self.stop: Stop | None = None
        self._buffer: list[bytes] = []
        self._size = 0
        self._most = buffer_max

    def push(self, batch: _Batch) -> None:
        """Take a commit over, or note that there is something to read."""
        if self.stop is not None or (batch.last <= self.place.seq and not batch.commit.fragments):
            return
        if self.again or self.reading or not fits(self.place, batch.base, batch.commit.fragments):
            self.mark()
            return
        if self._size > self._most:
            if self.sending:
                self.end("slow")
            else:  # the task only had no time yet
                self.mark()
            return
        data, self.place = batch.after(self.place, self.form)
        if any(entry.type == "model.started" for entry in batch.commit.entries):
            self.ours = self.place.model
        if data:
            self._buffer.append(data)
            self._size += len(data)
            self.wake()

    def mark(self) -> None:
        """There may be more in the journal."""
        self.again = True
        self.wake()

    def end(self, why: Stop) -> None:
        """Ask the task to stop; the first reason stays."""
        if self.stop is None:
            self.stop = why
            if self.sending and why != "gone":
                self._cut()
            self.wake()

    def take(self) -> bytes:
        """What was buffered, in order."""
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        return data

    async def wait(self) -> None:
        """Return when there is something to do; at once if there is already."""
        if self._buffer or self.again or self.beat or self.check or self.stop is not None:
            return
        await self.sleep()


class StreamHub:
    """All readers of this process. Belongs to one event loop; not thread-safe.

    `shared`: other processes write to the database too, so the watched sessions are polled.
    """

    def __init__(self, tails: Tails, clock: Clock, settings: GatewaySettings, *, shared: bool = False) -> None:
        self._tails = tails
        self.clock = clock
        self._settings = settings
        self._readers: dict[int, set[Reader]] = {}
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.shared = shared
        self.closing = False
        self.watches = 0  # streams of another kind (`talon.gateway.watch`), which count among these
        self.on_close: list[Callable[[], Awaitable[None]]] = []

    def open(self, sid: int, place: Place, cut: Callable[[], None], form: Form = SSE) -> Reader:
        """A reader of session `sid` from `place` on, whose buffer holds events in `form`.

        Raises `Unavailable` when closing, `Throttled` when too many are open.
        """
        if self.closing:
            raise Unavailable("shutting_down", "the gateway is shutting down; connect again", retry_after_s=1.0)
        most = self._settings.streams_max
        if self._count + self.watches >= most:
            raise Throttled("too_many_streams", f"{most} streams are open, the most of this gateway; try later", retry_after_s=5.0)
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._beat(), name="stream heartbeat"))
            if self.shared:
                self._tasks.append(asyncio.create_task(self._poll(), name="stream poll"))
        reader = Reader(sid, place, self._settings.stream_buffer_max, cut, form)
        self._readers.setdefault(sid, set()).add(reader)
        self._count += 1
        return reader

    def drop(self, reader: Reader) -> None:
        """Forget a reader. Idempotent."""
        readers = self._readers.get(reader.sid)
        if readers is None or reader not in readers:
            return
        readers.remove(reader)
        self._count -= 1
        if not readers:
            del self._readers[reader.sid]

    @property
    def count(self) -> int:
        """How many streams are open."""
        return self._count

    def publish(self, committed: Sequence[Committed]) -> None:
        """Commits of this process, in the order of their commit per session. Cheap when nobody watches."""
        for commit in committed:
            readers = self._readers.get(commit.sid)
            if readers:
                batch = _Batch(commit, self.clock.now_ms())
                for reader in readers:
                    reader.push(batch)

    def poke(self, sid: int, last_seq: int) -> None:
        """Another process has committed to `sid` up to `last_seq` (entries, or fragments of an open answer)."""
        for reader in self._readers.get(sid, ()):
            # The fragments of this process were pushed; those of others are told by a bell that names no new entry.
            elsewhere = self.shared and reader.place.model not in (0, reader.ours)
            if last_seq > reader.place.seq or elsewhere:
                reader.mark()

    def poke_all(self) -> None:
        """The bell was out of order for a while: look everywhere."""
        for readers in self._readers.values():
            for reader in readers:
                reader.mark()

    def deleted(self, sid: int) -> None:
        """The session was deleted here: its streams end after what its journal still gets."""
        for reader in self._readers.get(sid, ()):
            reader.check = True
            reader.mark()

    async def close(self) -> None:
        """End every stream and take no more; open ones resume elsewhere by their cursor."""
        self.closing = True
        for readers in self._readers.values():
            for reader in readers:
                reader.end("shutdown")
        for close in self.on_close:
            await close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def _beat(self) -> None:
        """One timer for all heartbeats."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            for readers in self._readers.values():
                for reader in readers:
                    reader.beat = True
                    # A deletion elsewhere may have written no entry; the end of a turn always is one.
                    reader.check = reader.check or (self.shared and not reader.place.watch)
                    reader.wake()

    async def _poll(self) -> None:
        """One question a second for the whole gateway, however many readers."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            try:
                found = await self._tails.tails(list(self._readers))
            except TalonError as exc:
                log.warning("stream poll failed, trying again: %s", exc)
                continue
            for sid, last_seq in found.items():
                self.poke(sid, last_seq)
