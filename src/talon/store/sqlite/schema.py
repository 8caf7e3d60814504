"""Migrations on SQLite, and whether the database is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from talon.domain.errors import Unavailable
from talon.store.migrations import missing, program_version
from talon.store.protocols import Where
from talon.store.sight import NO_WALL, Wall
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database


class SchemaPart:
    """`talon.store.protocols.Schema` without `close`, and `Walls`: one process has the file, and nobody to be held back from it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def migrate(self) -> list[int]:
        def run(connection: sqlite3.Connection, now: int) -> list[int]:
            done: list[int] = []
            for migration in missing("sqlite", *version_of(connection)):
                for statement in statements(migration.sql):
                    connection.execute(statement)
                connection.execute(sql.SCHEMA_APPLIED, (migration.number, migration.min_program, now))
                done.append(migration.number)
            return done

        return await self._db.write(run)

    async def schema_version(self) -> tuple[int, int]:
        version, _ = await self._db.read(version_of)
        return version, program_version("sqlite")

    async def raise_wall(self) -> Wall:
        return NO_WALL

    async def covers(self, where: Where) -> bool:
        del where
        return True

    async def ping(self) -> None:
        def write(connection: sqlite3.Connection, _: int) -> None:
            if version_of(connection)[0] == 0:
                raise Unavailable("database_unavailable", f"the database {self._db.path} is empty; run `talon db migrate`")
            connection.execute(sql.PING)

        await self._db.write(write)


def version_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """(version, oldest program) of the schema; (0, 0) of an empty database."""
    if connection.execute(sql.SCHEMA_IS_THERE).fetchone()[0] == 0:
        return 0, 0
    return connection.execute(sql.SCHEMA_VERSION).fetchone() or (0, 0)


def statements(script: str) -> Iterator[str]:
    """The single statements of `script`. (`executescript` would commit the transaction that all of them belong to.)"""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
