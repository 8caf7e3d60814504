"""The scheduler of a process, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from talon.cli.runtime import Role, Runtime
from talon.cli.settings import Settings
from talon.dispatch.schedules.scheduler import Scheduler, SchedulerSettings
from talon.dispatch.schedules.wakeups import Wakeups
from talon.dispatch.schedules.zones import tzdata_version

#: How long what is just being fired may take at the end; what is not done by then is another's after its hold.
LEAVE_S = 20.0


def schedules(role: Role, settings: Settings) -> bool:
    """Whether a process of this role fires schedules."""
    return role in {"up", "scheduler"} | ({"worker"} if settings.control_plane.scheduler.in_workers else set())


@contextlib.asynccontextmanager
async def open_scheduler(runtime: Runtime) -> AsyncGenerator[Scheduler]:
    """A scheduler that fires until the way out. Its end by a defect ends the process."""
    settings = runtime.settings
    wakeups = Wakeups(runtime.store, runtime.writer.deliver, runtime.ids, settings.session.queue_max)
    hold_s = settings.control_plane.scheduler.hold_s
    scheduler = Scheduler(runtime.store, wakeups, SchedulerSettings(tzdata_version(), hold_s, settings.worker.sweep_s))
    runtime.bells.listen(scheduler.hear)
    task = asyncio.create_task(scheduler.run(), name="scheduler")
    runtime.vital.append(task)
    try:
        yield scheduler
    finally:
        scheduler.stop()
        await asyncio.wait({task}, timeout=LEAVE_S)
        task.cancel()
        await asyncio.wait({task})
