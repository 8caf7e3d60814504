"""Commits in groups: while one is on its way to the disk, what comes meanwhile gathers into the next (kernel §4).

No timer and no tuning: alone, an operation is committed at once; under load the groups grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from talon.domain.errors import Defect, Unavailable

Op = TypeVar("Op")
Answer = TypeVar("Answer")


class _Waiting(Generic[Op, Answer]):
    """An operation, and who is told, once, what came of it."""

    __slots__ = ("_answered", "op")

    def __init__(self, op: Op, answered: Callable[[Answer | Exception], None]) -> None:
        self.op = op
        self._answered: Callable[[Answer | Exception], None] | None = answered

    def tell(self, answer: Answer | Exception) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:  # else it was answered before the loop died
            answered(answer)


class Group(Generic[Op, Answer]):
    """One loop that commits operations in groups, for callers of one event loop.

    `commit` writes a batch and answers each item, in order; it raises when the batch wrote nothing. `committed` is called with what
    was written after its callers were answered. `apart` names what a batch may hold only once (None: anything goes).
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Op]], Awaitable[Sequence[Answer | Exception]]],
        committed: Callable[[Sequence[tuple[Op, Answer]]], None],
        batch_max: int,
        apart: Callable[[Op], Hashable] | None = None,
    ) -> None:
        self._commit, self._committed, self._batch_max, self._apart = commit, committed, batch_max, apart
        self._pending: deque[_Waiting[Op, Answer]] = deque()
        self._flying: list[_Waiting[Op, Answer]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._dead: BaseException | None = None

    async def submit(self, op: Op) -> Answer:
        """Commit `op` with whatever else is waiting; returns once it is durable.

        Raises its own answer where that is an exception; `Unavailable` when the group is closed, `Defect` when its loop has died.
        A caller that is cancelled does not take its operation back: it is committed all the same.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer | Exception) -> None:
            if future.done():  # its caller was cancelled
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.put(op, answered)
        return await future

    def put(self, op: Op, answered: Callable[[Answer | Exception], None]) -> None:
        """The same for a caller that does not wait: `answered` is told, exactly once, what `submit` would return or raise. It is
        called on the event loop, perhaps at once; it must neither wait nor raise."""
        if self._dead is not None:
            answered(_died(self._dead))
        elif self._closing:
            answered(
                Unavailable(
                    "shutting_down", "the program is shutting down and takes nothing more; send it again, elsewhere or later"
                )
            )
        else:
            self._pending.append(_Waiting(op, answered))
            self._wake.set()

    async def run(self) -> None:
        """Commit until `close`, then what is left. However it ends, nobody is left waiting."""
        try:
            while True:
                self._flying = self._take()
                if self._flying:
                    await self._write(self._flying)
                elif self._closing:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        except BaseException as error:
            self._dead = error
            for waiting in (*self._flying, *self._pending):
                waiting.tell(_died(error))
            self._pending.clear()
            raise

    def close(self) -> None:
        """Take nothing more; `run` ends when what is waiting is done."""
        self._closing = True
        self._wake.set()

    def _take(self) -> list[_Waiting[Op, Answer]]:
        """The next batch, in order; what must be apart from it stays, in order."""
        if self._apart is None:
            return [self._pending.popleft() for _ in range(min(len(self._pending), self._batch_max))]
        batch: list[_Waiting[Op, Answer]] = []
        left: deque[_Waiting[Op, Answer]] = deque()
        names: set[Hashable] = set()
        while self._pending and len(batch) < self._batch_max:
            waiting = self._pending.popleft()
            name = self._apart(waiting.op)
            (left if name in names else batch).append(waiting)
            names.add(name)
        left.extend(self._pending)
        self._pending = left
        return batch

    async def _write(self, batch: Sequence[_Waiting[Op, Answer]]) -> None:
        try:
            answers = await self._commit([waiting.op for waiting in batch])
        except Unavailable as error:
            # Nobody's fault in the batch: parting it would only ask an absent database more often.
            for waiting in batch:
                waiting.tell(error)
        except Exception as error:  # noqa: BLE001  it goes to the caller whose operation it is
            await self._part(batch, error)
        else:
            if len(answers) != len(batch):
                raise Defect("defect", f"a store answered {len(answers)} of {len(batch)} operations")
            written: list[tuple[Op, Answer]] = []
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.tell(answer)
                if not isinstance(answer, Exception):
                    written.append((waiting.op, answer))
            self._committed(written)

    async def _part(self, batch: Sequence[_Waiting[Op, Answer]], error: Exception) -> None:
        """A batch was refused as a whole: halve it until the culprit fails alone."""
        if len(batch) == 1:
            batch[0].tell(error)
            return
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])


def _died(cause: BaseException) -> Defect:
    error = Defect("defect", "the journal writer has ended, nothing can be written any more; the process must be restarted")
    error.__cause__ = cause
    return error
