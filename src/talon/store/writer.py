"""The journal writer: all turns and all requests of a process share it, and so share their commits (kernel §4).

It is the only caller of `Journal.commit` and `Journal.deliver`. Appends and deliveries go in groups of their own, side by side: a
message is not held up by the turns' writing, nor the other way round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from talon.domain.content import Content
from talon.domain.entries import Entry, NewEntry
from talon.domain.errors import Unavailable
from talon.domain.inbox import Message, Operation, Receipt
from talon.store.group import Group
from talon.store.inbox_apply import number
from talon.store.model import Append, Appended, Fragment
from talon.store.paging import BLOB_MIN_BYTES
from talon.store.protocols import Journal

T = TypeVar("T")
log = logging.getLogger(__name__)

#: The most that goes into one commit; more waits for the next.
APPENDS_MAX = 256
DELIVERIES_MAX = 256
#: How long appends are tried again while the database is away. Fences guard a worker whose lease ends meanwhile.
RETRY_FOR_S = 20.0
#: Between two tries; doubled each time up to the second.
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0

#: Entries of an inbox operation after which some session may be claimable that was not before.
_RUNNABLE = frozenset({"turn.queued", "turn.cancelled", "turn.cancel_requested", "approval.resolved", "plan.resolved"})


class Committed(NamedTuple):
    """What one commit added to one session: entries `base + 1 …` and fragments. Payloads are whole, also those in blobs.

    `runnable`: some session may be claimable now; ring the workers' bell.
    """

    sid: int
    base: int
    entries: tuple[Entry, ...]
    fragments: tuple[Fragment, ...]
    runnable: bool


class Spilled(NewEntry, frozen=True):
    """An entry whose payload lies in a blob. `whole` is that payload, for those who hear of the entry when it is committed."""

    whole: bytes = b""


class JournalWriter:
    """Group commit. `publish` hears of every commit after it is durable and its callers were answered; it must not block."""

    def __init__(
        self, journal: Journal, publish: Callable[[Sequence[Committed]], None], *, retry_for_s: float = RETRY_FOR_S
    ) -> None:
        self._journal, self._publish, self._retry_for_s = journal, publish, retry_for_s
        self._closing = asyncio.Event()
        self._appends = Group[Append, Appended](self._commit, self._appended, APPENDS_MAX, lambda append: append.sid)
        self._deliveries = Group[Operation, Receipt](journal.deliver, self._delivered, DELIVERIES_MAX)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        """False before `start`, after `close`, and once a loop has died: then the process should end."""
        return bool(self._tasks) and not self._closing.is_set() and not any(task.done() for task in self._tasks)

    async def start(self) -> None:
        """Begin to write."""
        self._tasks = [
            asyncio.create_task(self._appends.run(), name="journal appends"),
            asyncio.create_task(self._deliveries.run(), name="journal deliveries"),
        ]

    async def close(self) -> None:
        """Take nothing more, write what is waiting, end. A database that is away is not waited for. May be called again."""
        self._closing.set()
        self._appends.close()
        self._deliveries.close()
        for answer in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(answer, BaseException):
                log.error("the journal writer had died before it was closed", exc_info=answer)

    async def append(self, op: Append) -> Appended:
        """Commit, with others, one append; returns when it is durable.

        While the database is away it is tried again under the same id for `RETRY_FOR_S`, so a lost answer writes it once. Raises
        `FencedOut`, `Behind`, `Unavailable`; and what the database says to an append that it refuses. A caller that is cancelled
        does not take its append back.
        """
        return await self._appends.submit(op)

    def put(self, op: Append, answered: Callable[[Appended | Exception], None]) -> None:
        """The same for a caller that does not wait: `answered` is told, exactly once, what `append` would return or raise."""
        self._appends.put(op, answered)

    async def deliver(self, op: Operation) -> Receipt:
        """Commit, with others, one inbox operation; returns when it is durable. Raises what `Journal.deliver` answers with.

        A message over `BLOB_MIN_BYTES` goes into a blob first. `Unavailable` is told at once: the requester has somebody to tell,
        and a key to try again with.
        """
        if isinstance(op, Message) and _may_be_large(op.content):
            new = op.entry()
            if len(new.payload) > BLOB_MIN_BYTES:
                digest = await self._journal.put_blob(op.where[0], new.payload)
                op = msgspec.structs.replace(op, received=_spilled(new, digest))
        return _whole(op, await self._deliveries.submit(op))

    async def spill(self, namespace: str, entries: Sequence[NewEntry]) -> tuple[NewEntry, ...]:
        """`entries`, those with a payload over `BLOB_MIN_BYTES` put into blobs of `namespace` first, outside of any group."""
        return tuple([await self._spilled(namespace, new) if len(new.payload) > BLOB_MIN_BYTES else new for new in entries])

    async def _spilled(self, namespace: str, new: NewEntry) -> Spilled:
        return _spilled(new, await self._patiently(lambda: self._journal.put_blob(namespace, new.payload)))

    async def _commit(self, batch: Sequence[Append]) -> Sequence[Appended | Exception]:
        return await self._patiently(lambda: self._journal.commit(batch))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The answer of `attempt`, which may be repeated safely, once the database is there; `Unavailable` when it stays away."""
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + self._retry_for_s, RETRY_FIRST_S
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                if self._closing.is_set() or loop.time() + pause_s > deadline:
                    raise
                log.warning("the journal cannot be written, next try in %.2f s: %s", pause_s, error.detail)
            try:
                await asyncio.wait_for(self._closing.wait(), pause_s)
            except TimeoutError:
                pause_s = min(2 * pause_s, RETRY_MOST_S)

    def _appended(self, written: Sequence[tuple[Append, Appended]]) -> None:
        self._tell([_of_append(append, done) for append, done in written])

    def _delivered(self, written: Sequence[tuple[Operation, Receipt]]) -> None:
        self._tell([_of_receipt(_whole(op, receipt)) for op, receipt in written if not receipt.replayed])

    def _tell(self, committed: Sequence[Committed]) -> None:
        if not committed:
            return
        try:
            self._publish(committed)
        except Exception:
            # What is written is written; a listener's mistake must not stop the others' writing. Streams read the journal again.
            log.exception("a listener to the journal failed")


def _spilled(new: NewEntry, digest: str) -> Spilled:
    return Spilled(new.type, b"", new.turn_id, new.traceparent, new.v, new.min_reader, digest, new.images, new.payload)


def _may_be_large(content: Content) -> bool:
    """Whether a message may be over `BLOB_MIN_BYTES`. A character has at most four bytes; parts are looked at."""
    return not isinstance(content, str) or len(content) > BLOB_MIN_BYTES // 4


def _whole(op: Operation, receipt: Receipt) -> Receipt:
    """The receipt with the payload of a message that lies in a blob."""
    if not isinstance(op, Message) or not isinstance(op.received, Spilled) or not receipt.entries:
        return receipt
    whole = op.received.whole
    entries = [one if one.payload else msgspec.structs.replace(one, payload=whole) for one in receipt.entries]
    return msgspec.structs.replace(receipt, entries=tuple(entries))


def _of_append(append: Append, done: Appended) -> Committed:
    if not append.entries:
        return Committed(done.sid, done.base, (), append.fragments, done.runnable)
    entries = number(done.base, append.entries, done.at_ms)
    for index, new in enumerate(append.entries):
        if isinstance(new, Spilled):
            entries[index] = msgspec.structs.replace(entries[index], payload=new.whole)
    return Committed(done.sid, done.base, tuple(entries), append.fragments, done.runnable)


def _of_receipt(receipt: Receipt) -> Committed:
    # The answered entry is not the first one where a message makes room for itself; the entries know their numbers.
    base = receipt.entries[0].seq - 1 if receipt.entries else receipt.seq
    runnable = receipt.claimed is None and any(entry.type in _RUNNABLE for entry in receipt.entries)
    return Committed(receipt.sid, base, receipt.entries, (), runnable)
