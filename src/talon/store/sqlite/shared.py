"""States that all workers share, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from talon.store.shared import Step, T
from talon.store.sqlite.connection import Database

_GET = "SELECT state FROM shared_states WHERE name = ?"
_PUT = "INSERT INTO shared_states (name, state) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state"
_LIST = "SELECT name, state FROM shared_states WHERE substr(name, 1, length(?1)) = ?1 AND state <> x''"


class SharedPart:
    """`talon.store.shared.SharedStates`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def change_shared(self, name: str, step: Step[T]) -> T:
        def change(connection: sqlite3.Connection, now: int) -> T:
            found = connection.execute(_GET, (name,)).fetchone()
            before = b"" if found is None else found[0]
            after, answer = step(before, now)
            if after != before:
                connection.execute(_PUT, (name, after))
            return answer

        return await self._db.write(change)

    async def read_shared(self, prefix: str) -> tuple[Mapping[str, bytes], int]:
        rows = await self._db.read(lambda connection: connection.execute(_LIST, (prefix,)).fetchall())
        return dict(rows), self._db.clock.now_ms()
