"""Cloud Tasks as a clock of schedules, piece by piece: when it is told, what is done while it is out of order, what is asked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from support.cloudtasks import ACCOUNT, PARENT, FakeCloudTasks, cloud_tasks
from support.handclock import HandClock
from support.idp import provider
from talon.cli.system import SystemClock, SystemIds
from talon.dispatch.schedules.cloudtasks.announcer import AHEAD_MS, REST_FIRST_S, Announcer
from talon.dispatch.schedules.cloudtasks.occurrence import Occurrence, decode, encode, task_id
from talon.dispatch.schedules.cloudtasks.queue import CloudTasks, NewTask, QueueSettings, Unreached
from talon.dispatch.schedules.scheduler import Scheduler, SchedulerSettings
from talon.dispatch.schedules.wakeups import Wakeups
from talon.domain.errors import Invalid
from talon.domain.inbox import Operation, Receipt
from talon.domain.resources import Ref
from talon.domain.schedules import SchedulePlan, Timing, encode_plan
from talon.store.conformance import support as s
from talon.store.resources import Changes, DeleteResource, PutResource
from talon.store.schedules import Fires, ScheduleRow
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database

DAY_MS = 86_400_000
LATE_MS = 10_000
ONE = Occurrence("01900000-0000-7000-8000-000000000001", 5, 1_800_000_000_000)


class FakeQueue:
    """A fake `TaskQueue`: remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.tasks: dict[str, NewTask] = {}
        self.down = False
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def create(self, task: NewTask) -> None:
        self.asked += 1
        if self.down:
            raise Unreached("out of order")
        self.tasks[task.id] = task
        if self.meanwhile is not None:
            await self.meanwhile()

    async def delete(self, task: str) -> None:
        self.tasks.pop(task, None)

    async def close(self) -> None:
        """Nothing to close."""


class World:
    """A scheduler with an announcer on a store of its own, and schedules that wake one session."""

    def __init__(self, store: SqliteStore, clock: HandClock) -> None:
        self.store, self.clock, self.queue = store, clock, FakeQueue()
        wakeups = Wakeups(store, self._deliver, SystemIds(), 100)
        self.announcer = Announcer(store, self.queue, clock, lambda one, due_ms: f"{one.uid} {due_ms}", LATE_MS, 0.01)
        self.scheduler = Scheduler(store, wakeups, SchedulerSettings("2025b", 10.0, 0.01, AHEAD_MS), self.announcer)

    async def _deliver(self, operation: Operation) -> Receipt:
        (answer,) = await self.store.deliver([operation])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def put(self, every_ms: int) -> str:
        """A schedule; -> its uid."""
        await s.ensure_agent(self.store)
        plan = SchedulePlan(Timing("every", every_ms=every_ms), s.AGENT, "s1", "wake up")
        put = PutResource(
            s.NAMESPACE,
            "Schedule",
            "one",
            s.fresh_id(),
            0,
            b"{}",
            refs=(Ref("Agent", s.AGENT),),
            fires=Fires(encode_plan(plan), True, "2025b", AHEAD_MS),
        )
        (row,) = await self.store.change(Changes((put,)))
        return row.uid

    async def delete(self) -> None:
        await self.store.change(Changes(deletes=(DeleteResource(s.NAMESPACE, "Schedule", "one", 1),)))

    async def row(self, uid: str) -> ScheduleRow:
        (row,) = await self.store.get_schedules([uid])
        return row

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await holds():
                self.scheduler.look()
                await asyncio.sleep(0.005)

    async def look_is(self, uid: str, look_ms: int | None) -> None:
        """Wait until that row is looked at then."""

        async def so() -> bool:
            return (await self.row(uid)).look_ms == look_ms

        await self.until(so)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    clock = HandClock()
    store = SqliteStore(Database(tmp_path / "talon.db", clock))
    await store.migrate()
    made = World(store, clock)
    running = [asyncio.create_task(one.run()) for one in (made.scheduler, made.announcer)]
    yield made
    made.scheduler.stop()
    made.announcer.stop()
    await asyncio.wait_for(asyncio.gather(*running), 10)
    await store.close()


async def test_what_is_far_ahead_is_told_when_cloud_tasks_takes_it_and_fired_late_if_no_call_came(world: World) -> None:
    uid = await world.put(40 * DAY_MS)
    due_ms = world.clock.ms + 40 * DAY_MS
    await world.look_is(uid, due_ms - AHEAD_MS)
    assert world.queue.asked == 0
    world.clock.ms = due_ms - AHEAD_MS + 1
    await world.look_is(uid, due_ms + LATE_MS)
    (task,) = world.queue.tasks.values()
    assert (task.due_ms, decode(task.body).occurrence_ms, task.authorization) == (due_ms, due_ms, f"{uid} {due_ms}")
    world.clock.ms = due_ms + LATE_MS - 1
    world.scheduler.look()
    await asyncio.sleep(0.05)
    assert (await world.row(uid)).failures == 0
    world.clock.ms = due_ms + LATE_MS
    # The agent of these tests has no definition, so that it was tried shows as a failure.

    async def tried() -> bool:
        return (await world.row(uid)).failures > 0

    await world.until(tried)
    assert world.queue.asked == 1


async def test_what_cloud_tasks_cannot_be_told_of_is_the_databases_at_its_time(world: World) -> None:
    world.queue.down = True
    uid = await world.put(DAY_MS)
    due_ms, began_ms = world.clock.ms + DAY_MS, world.clock.ms
    await world.look_is(uid, began_ms + round(REST_FIRST_S * 1000))
    asked = world.queue.asked
    world.clock.ms = due_ms - 2_000  # it rests no more, is asked once, and rests again, longer than until then
    await world.look_is(uid, due_ms)
    assert world.queue.asked == asked + 1
    world.queue.down = False
    world.clock.ms = due_ms

    async def tried() -> bool:
        return (await world.row(uid)).failures > 0

    await world.until(tried)
    assert world.queue.tasks == {}


async def test_a_schedule_deleted_while_its_task_is_made_leaves_none(world: World) -> None:
    world.queue.meanwhile = world.delete
    await world.put(DAY_MS)

    async def gone() -> bool:
        return world.queue.asked == 1 and world.queue.tasks == {}

    await world.until(gone)


async def test_what_was_dropped_is_taken_back(world: World) -> None:
    uid = await world.put(DAY_MS)
    await world.look_is(uid, world.clock.ms + DAY_MS + LATE_MS)
    assert len(world.queue.tasks) == 1
    await world.delete()

    async def gone() -> bool:
        return world.queue.tasks == {}

    await world.until(gone)


def test_names_are_legal_and_differ_by_what_is_called_for() -> None:
    others = (Occurrence(ONE.uid, 5, 6), Occurrence(ONE.uid, 6, ONE.occurrence_ms), Occurrence("x", 5, ONE.occurrence_ms))
    names = {task_id(one) for one in (ONE, *others)}
    assert len(names) == 4
    assert all(len(name) <= 500 and name.replace("-", "").isalnum() for name in names)
    assert task_id(decode(encode(ONE))) == task_id(ONE)


@pytest.fixture
async def fake() -> AsyncGenerator[FakeCloudTasks]:
    async with provider() as idp, cloud_tasks(idp) as made:
        made.mute = True
        yield made


def queue_at(fake: FakeCloudTasks) -> CloudTasks:
    return CloudTasks(QueueSettings(PARENT, "https://w.example/v1/callbacks/schedules", ACCOUNT, "aud", fake.endpoint))


async def test_a_task_is_what_cloud_tasks_understands_and_a_name_that_was_used_is_success(fake: FakeCloudTasks) -> None:
    queue, name = queue_at(fake), task_id(ONE)
    due_ms = SystemClock().now_ms() + 60_123
    await queue.create(NewTask(name, due_ms, encode(ONE)))
    task = fake.tasks[name]
    assert round(task.schedule_time.timestamp() * 1000) == due_ms
    assert (task.http_request.url, bytes(task.http_request.body)) == ("https://w.example/v1/callbacks/schedules", encode(ONE))
    assert (task.http_request.oidc_token.service_account_email, task.http_request.oidc_token.audience) == (ACCOUNT, "aud")
    assert dict(task.http_request.headers) == {"Content-Type": "application/json"}
    await queue.create(NewTask(name, due_ms, encode(ONE)))
    await queue.delete(name)
    await queue.delete(name)
    await queue.create(NewTask(name, due_ms, encode(ONE)))  # Cloud Tasks remembers names for a while
    assert (fake.tasks, fake.asked) == ({}, [name] * 3)
    await queue.create(NewTask("own", due_ms, b"{}", "Bearer x"))
    assert dict(fake.tasks["own"].http_request.headers)["Authorization"] == "Bearer x"
    assert not fake.tasks["own"].http_request.oidc_token.service_account_email
    with pytest.raises(Unreached, match="InvalidArgument"):
        await queue.create(NewTask("far", due_ms + 31 * DAY_MS, b"{}"))
    fake.down = True
    with pytest.raises(Unreached, match="ServiceUnavailable"):
        await queue.create(NewTask("other", due_ms, b"{}"))
    with pytest.raises(Unreached, match="ServiceUnavailable"):
        await queue.delete("other")
    await queue.close()


def test_without_googles_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.tasks_v2", None)
    with pytest.raises(Invalid, match=r"pip install 'talon-runtime\[google\]'") as caught:
        CloudTasks(QueueSettings(PARENT, "https://w.example"))
    assert caught.value.errors[0].field == "control_plane.scheduler.backend"
