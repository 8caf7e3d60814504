"""Commits in groups: while one is on its way to the disk, what comes meanwhile gathers into the next (kernel §4).

No timer and no tuning: alone, an operation is committed at once; under load the groups grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from talon.domain.errors import Defect, Unavailable

Op = TypeVar("Op")
Answer = TypeVar("Answer")


class _Waiting(NamedTuple, Generic[Op, Answer]):
    op: Op
    future: asyncio.Future[Answer]


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
        if self._dead is not None:
            raise _died(self._dead)
        if self._closing:
            raise Unavailable(
                "shutting_down", "the program is shutting down and takes nothing more; send it again, elsewhere or later"
            )
        waiting = _Waiting[Op, Answer](op, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        self._wake.set()
        return await waiting.future

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
                _settle(waiting.future, _died(error))
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
                _settle(waiting.future, error)
        except Exception as error:  # noqa: BLE001  it goes to the caller whose operation it is
            await self._part(batch, error)
        else:
            if len(answers) != len(batch):
                raise Defect("defect", f"a store answered {len(answers)} of {len(batch)} operations")
            written: list[tuple[Op, Answer]] = []
            for waiting, answer in zip(batch, answers, strict=True):
                _settle(waiting.future, answer)
                if not isinstance(answer, Exception):
                    written.append((waiting.op, answer))
            self._committed(written)

    async def _part(self, batch: Sequence[_Waiting[Op, Answer]], error: Exception) -> None:
        """A batch was refused as a whole: halve it until the culprit fails alone."""
        if len(batch) == 1:
            _settle(batch[0].future, error)
            return
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():  # its caller was cancelled, or it was answered before the loop died
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _died(cause: BaseException) -> Defect:
    error = Defect("defect", "the journal writer has ended, nothing can be written any more; the process must be restarted")
    error.__cause__ = cause
    return error
