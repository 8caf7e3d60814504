"""A lease kept by a thread of its own, over a real store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from support.turnworld import Watched, opened
from support.waiting import until
from talon.cli.system import SystemClock
from talon.domain.errors import Unavailable
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database
from talon.worker.lease import MARGIN_S, FileLease, HeartbeatLease, Heartbeats

TTL_S = MARGIN_S + 1.5


class Line:
    """The heartbeats' own connection; `down` says that the database is away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beats = 0
        self.down = threading.Event()
        self.threads: set[str] = set()
        self.closed = 0

    async def open(self) -> Heartbeats:
        self.store = SqliteStore(Database(self.path / "talon.db", SystemClock()))
        return self

    async def heartbeat(self, worker: str, ttl_ms: int, draining: bool = False) -> bool:
        self.threads.add(threading.current_thread().name)
        if self.down.is_set():
            raise Unavailable("database_unavailable", "away")
        self.beats += 1
        return await self.store.heartbeat(worker, ttl_ms, draining)

    async def close(self) -> None:
        self.closed += 1
        await self.store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Watched, None]:
    async with opened(tmp_path) as made:
        yield made


async def held(store: Watched, line: Line) -> tuple[HeartbeatLease, str]:
    """A registered worker and its lease."""
    clock = SystemClock()
    lease = HeartbeatLease(line.open, TTL_S, clock)
    began_s = clock.monotonic_s()
    worker = await store.register("w1", "boot", int(TTL_S * 1000), b"{}")
    lease.start(worker, began_s)
    return lease, worker


async def test_it_is_kept_while_the_event_loop_is_busy(store: Watched, tmp_path: Path) -> None:
    line = Line(tmp_path)
    lease, worker = await held(store, line)
    assert lease.alive()
    time.sleep(TTL_S + 0.5)  # noqa: ASYNC251  a busy loop is the point
    assert lease.alive()
    assert line.beats >= 2
    assert line.threads == {"talon-heartbeat"}
    assert [row.id for row in await store.workers()] == [worker]
    await lease.stop()
    assert line.closed == 1


async def test_it_is_over_before_the_database_can_give_it_to_others(store: Watched, tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.down.set()
    lease, worker = await held(store, line)

    async def over() -> bool:
        return not lease.alive()

    await until(over, TTL_S)
    assert [row.id for row in await store.workers()] == [worker], "the database still counts on it"
    line.down.clear()
    await until(lease.alive)
    await lease.stop()


async def test_it_is_over_at_once_when_the_database_has_forgotten_the_worker(store: Watched, tmp_path: Path) -> None:
    line = Line(tmp_path)
    lease, worker = await held(store, line)
    await store.retire(worker)
    await until(lambda: line.beats)
    await until(lambda: not lease.alive())
    await lease.stop()
    assert line.closed == 1


async def test_its_time_counts_from_before_it_was_asked_for() -> None:
    clock = SystemClock()

    async def nobody() -> Heartbeats:
        await asyncio.Event().wait()
        raise AssertionError

    lease = HeartbeatLease(nobody, TTL_S, clock)
    lease.start("w1/boot", clock.monotonic_s() - (TTL_S - MARGIN_S))
    assert not lease.alive()
    await lease.stop()


async def test_a_stopped_lease_beats_no_more_and_stopping_again_is_nothing(store: Watched, tmp_path: Path) -> None:
    line = Line(tmp_path)
    lease, _ = await held(store, line)
    stop: Callable[[], Awaitable[None]] = lease.stop
    await asyncio.wait_for(stop(), 5)
    await asyncio.wait_for(stop(), 5)
    assert line.beats == 0


async def test_a_lock_on_the_directory_cannot_expire() -> None:
    lease = FileLease()
    lease.start("w1/boot", 0.0)
    assert lease.alive()
    await lease.stop()
