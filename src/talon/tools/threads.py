"""Threads for synchronous tools: few, reused, and never in the way of the process's end.

`asyncio.to_thread` will not do: its threads are joined when the interpreter exits, so one tool that hangs would keep a drained
worker from ending, and its pool is shared with name resolution. These are daemon threads of the tools' own.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

THREADS_MAX = 32

R = TypeVar("R")


class Threads:
    """At most `threads_max` daemon threads, started as they are needed. Safe to use from several event loops.

    A thread cannot be killed: whoever stops waiting leaves the function running to its end, and its thread is taken until then.
    With all threads taken, further calls wait; one that is cancelled while it waits never starts.
    """

    def __init__(self, threads_max: int = THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that are idle, less the jobs already queued for them

    async def run(self, function: Callable[[], R]) -> R:
        """Call `function` in a thread, in a copy of the caller's context, and wait. Raises what it raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        abandoned = threading.Event()

        def settle(value: object, error: BaseException | None) -> None:
            if answer.done():  # cancelled: nobody waits any more
                return
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

        def job() -> None:
            if abandoned.is_set():
                return
            value: object = None
            error: BaseException | None = None
            try:
                value = context.run(function)
            except StopIteration as stop:  # a future cannot carry it
                error = RuntimeError(f"the function raised StopIteration({stop.value!r})")
            except BaseException as raised:  # noqa: BLE001 - it is handed to whoever waits
                error = raised
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:
                return  # the loop was closed in the meantime

        self._submit(job)
        try:
            return cast(R, await answer)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def _submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._free <= 0 and self._threads < self._threads_max:
                threading.Thread(target=self._serve, name=f"talon-tool-{self._threads + 1}", daemon=True).start()
                self._threads += 1
                self._free += 1
            self._free -= 1
        self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            job()
            del job  # it holds the arguments of the call
            with self._lock:
                self._free += 1


#: The threads of all synchronous tools of this process.
THREADS = Threads()
