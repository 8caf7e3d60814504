"""`talon up`, `talon gateway`, `talon worker`, `talon scheduler` as commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from talon.cli import collector
from talon.cli.load import Loaded
from talon.cli.options import SettingsCommand, settings_options

if TYPE_CHECKING:
    from talon.cli.runtime import Role


def _serve(role: Role, loaded: Loaded) -> int:
    collector.look_rarely()
    from talon.cli.serve import serve

    return serve(role, loaded.settings)


@settings_options()
@click.command("up", cls=SettingsCommand)
def up(loaded: Loaded) -> int:
    """Run Talon here: gateway and worker in one process.

    On SQLite in the data directory, or on PostgreSQL where DATABASE_URL says so. The first line on stdout is
    `talon ready http://HOST:PORT`. Ctrl-C or SIGTERM lets running steps finish and stops; a second one stops at once.

    \b
    Examples:
      talon up
      talon up --port 0 --data-dir /var/lib/talon
      DATABASE_URL=postgresql://talon@db/talon talon up
    """
    return _serve("up", loaded)


@settings_options()
@click.command("gateway", cls=SettingsCommand)
def gateway(loaded: Loaded) -> int:
    """Run a gateway: HTTP and streams, no turns. Needs PostgreSQL; start as many as you like.

    \b
    Examples:
      DATABASE_URL=postgresql://talon@db/talon talon gateway --port 19789
    """
    return _serve("gateway", loaded)


@settings_options()
@click.command("worker", cls=SettingsCommand)
def worker(loaded: Loaded) -> int:
    """Run a worker: turns, no API. Needs PostgreSQL; start as many as you like, each under its own --name.

    Its port answers /healthz and /readyz; `--port 0` picks a free one. A worker that starts again under its name takes its own
    sessions back at once.

    \b
    Examples:
      DATABASE_URL=postgresql://talon@db/talon talon worker --name w1 --port 19790
    """
    return _serve("worker", loaded)


@settings_options()
@click.command("scheduler", cls=SettingsCommand)
def scheduler(loaded: Loaded) -> int:
    """Run a scheduler: it wakes agents by their schedules and runs no turns. Needs PostgreSQL; start as many as you like.

    They share the work, and where one ends the others go on. `talon up` has one, and every worker too unless
    control_plane.scheduler.in_workers is false. Its port answers /healthz and /readyz; `--port 0` picks a free one.

    \b
    Examples:
      DATABASE_URL=postgresql://talon@db/talon talon scheduler --port 19791
    """
    return _serve("scheduler", loaded)
