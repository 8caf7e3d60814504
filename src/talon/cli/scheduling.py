"""The scheduler of a process, put together, with Cloud Tasks where that keeps the time too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from talon.cli.errors import found_here
from talon.cli.runtime import Role, Runtime, ahead_ms_of
from talon.cli.scheduler_settings import is_active
from talon.cli.settings import CloudTasks, Settings
from talon.dispatch.schedules.scheduler import Scheduler, SchedulerSettings
from talon.dispatch.schedules.wakeups import Wakeups
from talon.dispatch.schedules.zones import tzdata_version

if TYPE_CHECKING:
    from talon.dispatch.schedules.cloudtasks.announcer import Announcer
    from talon.dispatch.schedules.cloudtasks.callbacks import Callbacks
    from talon.dispatch.schedules.cloudtasks.callers import OwnToken, Token
    from talon.dispatch.schedules.cloudtasks.occurrence import Occurrence

#: How long what is just being fired may take at the end; what is not done by then is another's after its hold.
LEAVE_S = 20.0


def schedules(role: Role, settings: Settings) -> bool:
    """Whether a process of this role fires schedules."""
    return role in {"up", "scheduler"} | ({"worker"} if settings.control_plane.scheduler.in_workers else set())


@contextlib.asynccontextmanager
async def open_scheduler(runtime: Runtime) -> AsyncGenerator[Callbacks | None]:
    """A scheduler that fires until the way out; -> who answers the calls of Cloud Tasks, if it calls. Its end by a defect ends the
    process. Raises `WrongUse` where Google's client is missing."""
    settings = runtime.settings
    wakeups = Wakeups(runtime.store, runtime.writer.deliver, runtime.ids, settings.session.queue_max)
    hold_s, sweep_s = settings.control_plane.scheduler.hold_s, settings.worker.sweep_s
    how = SchedulerSettings(tzdata_version(), hold_s, sweep_s, ahead_ms_of(settings))
    async with contextlib.AsyncExitStack() as stack:
        announcer = await stack.enter_async_context(_open_announcer(runtime)) if is_active(settings) else None
        scheduler = Scheduler(runtime.store, wakeups, how, announcer)
        runtime.bells.listen(scheduler.hear)
        await stack.enter_async_context(_running(runtime, scheduler, "scheduler"))
        yield _callbacks(runtime, scheduler) if announcer is not None else None


@contextlib.asynccontextmanager
async def _running(runtime: Runtime, one: Scheduler | Announcer, name: str) -> AsyncGenerator[None]:
    task = asyncio.create_task(one.run(), name=name)
    runtime.vital.append(task)
    try:
        yield
    finally:
        one.stop()
        await asyncio.wait({task}, timeout=LEAVE_S)
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def _open_announcer(runtime: Runtime) -> AsyncGenerator[Announcer]:
    from talon.dispatch.schedules.cloudtasks import queue
    from talon.dispatch.schedules.cloudtasks.announcer import Announcer

    tasks = runtime.settings.control_plane.scheduler.cloud_tasks
    url = callback_of(tasks)
    parent = f"projects/{tasks.project}/locations/{tasks.location}/queues/{tasks.queue}"
    with found_here():
        opened = queue.CloudTasks(
            queue.QueueSettings(parent, url, tasks.service_account, tasks.audience or url, tasks.endpoint or "")
        )
    own = None if tasks.service_account else _own_token(runtime, tasks)

    def authorize(one: Occurrence, due_ms: int) -> str:
        return "" if own is None else f"Bearer {own.make(one, due_ms)}"

    late_ms, sweep_s = round(tasks.late_s * 1000), runtime.settings.worker.sweep_s
    announcer = Announcer(runtime.store, opened, runtime.clock, authorize, late_ms, sweep_s)
    try:
        async with _running(runtime, announcer, "announcer"):
            yield announcer
    finally:
        await opened.close()


def _callbacks(runtime: Runtime, scheduler: Scheduler) -> Callbacks:
    from talon.access.signers import PublishedKeys
    from talon.dispatch.schedules.cloudtasks.callbacks import Callbacks
    from talon.dispatch.schedules.cloudtasks.callers import AccountToken, Callers

    tasks = runtime.settings.control_plane.scheduler.cloud_tasks
    tokens: list[Token] = []
    if (own := _own_token(runtime, tasks)) is not None:
        tokens.append(own)
    if tasks.service_account:
        keys = PublishedKeys(tasks.jwks_url, "RS256", runtime.clock, lambda: None)
        audience = tasks.audience or callback_of(tasks)
        tokens.append(AccountToken(tasks.service_account, tasks.issuer, audience, keys, runtime.clock))
    return Callbacks(runtime.store, scheduler.firer, Callers(tuple(tokens)), scheduler.look)


def _own_token(runtime: Runtime, tasks: CloudTasks) -> OwnToken | None:
    from talon.dispatch.schedules.cloudtasks.callers import OwnToken

    if tasks.secret is None:
        return None
    return OwnToken(tasks.secret.get_secret_value().encode(), callback_of(tasks), runtime.clock)


def own_port(deps: Any, callbacks: Callbacks, settings: Settings) -> Any:
    """The ASGI application of a worker's own port: health questions, and the calls of Cloud Tasks."""
    from talon.dispatch.schedules.cloudtasks.callbacks import PATH
    from talon.gateway.http.front import BareRoute
    from talon.gateway.http.ownport import create_app
    from talon.worker.callbacks import CallbackRoute

    called = urlsplit(callback_of(settings.control_plane.scheduler.cloud_tasks)).hostname or ""
    there = replace(deps.settings, allowed_hosts=(*deps.settings.allowed_hosts, called))
    route = BareRoute("", "POST", PATH, CallbackRoute(callbacks).serve, guarded=False)
    return create_app(replace(deps, settings=there), (route,))


def callback_of(tasks: CloudTasks) -> str:
    """The whole URL that Cloud Tasks calls."""
    from talon.dispatch.schedules.cloudtasks.callbacks import PATH

    return f"{tasks.callback_url}{PATH}"
