"""What settings of the scheduler must say together: Cloud Tasks needs to know its queue, and where and as whom to call."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from urllib.parse import urlsplit

from talon.cli.access_settings import HMAC_MIN_BYTES, is_loopback
from talon.cli.settings import CloudTasks, Scheduler, Settings

PREFIX = "control_plane.scheduler.cloud_tasks"
_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,99}")
#: Where a setting was said, for the end of a message.
Where = Callable[[str], str]


def is_active(settings: Settings) -> bool:
    """Whether Cloud Tasks calls: it is chosen, and told of a queue."""
    scheduler = settings.control_plane.scheduler
    return scheduler.backend == "cloud_tasks" and bool(scheduler.cloud_tasks.queue)


def mistakes(scheduler: Scheduler, given: Collection[str], where: Where) -> Iterator[str]:
    """One line per mistake; no secret is in any. `given` are the paths of the settings that somebody gave."""
    tasks = scheduler.cloud_tasks
    if scheduler.backend != "cloud_tasks" or not _of_cloud_tasks(given):
        return
    for name, value in (("project", tasks.project), ("location", tasks.location), ("queue", tasks.queue)):
        if not _NAMES.fullmatch(value):
            said = f"{value!r} is none" if value else "not given"
            yield f"{PREFIX}.{name}: {said}; expected the {name} of the queue, as Google calls it{where(f'{PREFIX}.{name}')}"
    if tasks.callback_url is None:
        yield f"{PREFIX}.callback_url: not given; expected the URL at which Cloud Tasks reaches the worker's own port"
    if not tasks.service_account and tasks.secret is None:
        yield (
            f"{PREFIX}: give a service_account, whose OIDC token Cloud Tasks shows when it calls, or a secret, with which Talon "
            "signs a token for each task"
        )
    yield from _unsafe(tasks, where)


def _unsafe(tasks: CloudTasks, where: Where) -> Iterator[str]:
    if tasks.secret is not None and len(tasks.secret.get_secret_value().encode()) < HMAC_MIN_BYTES:
        path = f"{PREFIX}.secret"
        yield f"{path}: the value (hidden) is shorter than {HMAC_MIN_BYTES} bytes and can be guessed{where(path)}"
    for name, url, why in (
        ("callback_url", tasks.callback_url or "", "tokens of calls could be read on the way"),
        ("jwks_url", tasks.jwks_url, "who stands on the way could put his own keys there"),
        ("endpoint", tasks.endpoint or "", "an emulator that speaks so is on this machine"),
    ):
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield f"{PREFIX}.{name}: {url!r} is not encrypted: {why}; use https://{where(f'{PREFIX}.{name}')}"


def warnings(scheduler: Scheduler, given: Collection[str]) -> Iterator[str]:
    """What works, and is not what it looks like."""
    told = _of_cloud_tasks(given)
    if scheduler.backend == "cloud_tasks" and not told:
        yield (
            f"control_plane.scheduler.backend = 'cloud_tasks': {PREFIX} names no queue, so the database alone keeps the time "
            "of schedules"
        )
    if scheduler.backend != "cloud_tasks" and told:
        yield f"{told[0]}: not used, control_plane.scheduler.backend is {scheduler.backend!r}"


def _of_cloud_tasks(given: Collection[str]) -> list[str]:
    return [path for path in given if path.startswith(f"{PREFIX}.")]
