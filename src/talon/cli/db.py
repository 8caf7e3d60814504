"""`talon db …`: the schema of the database that the settings name."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from talon.cli.errors import Failed
from talon.cli.load import Loaded, SqliteAt, database_of, describe
from talon.cli.options import SettingsCommand, settings_options
from talon.cli.output import emit, note, output_option
from talon.cli.settings import Settings
from talon.cli.system import SystemClock, SystemIds
from talon.store.protocols import Store


@click.group("db", context_settings={"max_content_width": 110})
def command() -> None:
    """Migrate the database, or show its state. It is the one of talon.yaml, the environment and the flags.

    \b
    Examples:
      talon db status
      DATABASE_URL=postgresql://talon@db/talon talon db migrate
    """


async def _open(settings: Settings) -> Store:
    from talon.cli.runtime import open_store  # the whole program comes with it

    return await open_store(settings, SystemIds(), SystemClock())


@settings_options(only=("data_dir", "control_plane"))
@command.command("migrate", cls=SettingsCommand)
def migrate(loaded: Loaded) -> None:
    """Run the migrations that are missing. Servers do the same when they start; this does it before."""
    database = database_of(loaded.settings)

    async def work() -> list[int]:
        store = await _open(loaded.settings)
        try:
            return await store.migrate()
        finally:
            await store.close()

    done = asyncio.run(work())
    note(f"{describe(database)}: {'ran ' + ', '.join(map(str, done)) if done else 'nothing to do'}")


@settings_options(only=("data_dir", "control_plane"))
@command.command("status", cls=SettingsCommand)
@output_option
def status(loaded: Loaded, output: str) -> None:
    """Show the versions of database and program. Exit code 1 unless the database is current."""
    database = database_of(loaded.settings)

    async def work() -> tuple[int, int]:
        store = await _open(loaded.settings)
        try:
            return await store.schema_version()
        finally:
            await store.close()

    if isinstance(database, SqliteAt) and not database.path.exists():
        raise Failed(f"{describe(database)}: not made yet; `talon up` or `talon db migrate` makes it")
    found, known = asyncio.run(work())
    state = "current" if found == known else "behind" if found < known else "newer"
    data: dict[str, Any] = {"database": describe(database), "version": found, "program": known, "state": state}
    emit(data, output, lambda d: f"{d['database']}: version {d['version']}, this program's is {d['program']}: {d['state']}")
    if state == "behind":
        raise Failed("run `talon db migrate`, or start a server, to bring it up to date")
    if state == "newer":
        raise Failed("it was migrated by a newer Talon: check that this one may still use it, or install the newer one")
