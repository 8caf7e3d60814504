"""Encrypted values and their uses on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from talon.store.paging import cursor_after, position_of
from talon.store.resources import SealedRow, UseRow
from talon.store.sqlite import resources_sql as sql
from talon.store.sqlite.connection import Database

_LAST = 2**63 - 1


class SecretsPart:
    """The secrets of `Resources`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get_sealed(self, namespace: str, name: str) -> SealedRow | None:
        row = await self._db.read(lambda connection: connection.execute(sql.SEALED, (namespace, name)).fetchone())
        return None if row is None else SealedRow(*row)

    async def have_values(self, secrets: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        def read(connection: sqlite3.Connection) -> set[tuple[str, str]]:
            return {one for one in secrets if connection.execute(sql.SEALED, one).fetchone() is not None}

        return await self._db.read(read)

    async def list_sealed(self, not_key_id: str, after: tuple[str, str], limit: int) -> list[SealedRow]:
        arguments = (*after, not_key_id, limit)
        rows = await self._db.read(lambda connection: connection.execute(sql.LIST_SEALED, arguments).fetchall())
        return [SealedRow(*row) for row in rows]

    async def reseal(self, old: SealedRow, new: SealedRow) -> bool:
        arguments = (new.key_id, new.sealed, old.namespace, old.name, old.uid, old.key_id, old.sealed)
        return await self._db.write(lambda connection, _: connection.execute(sql.RESEAL, arguments).rowcount == 1)

    async def record_use(self, use: UseRow) -> None:
        used = (use.namespace, use.name, use.used_by, use.purpose)
        await self._db.write(lambda connection, now: connection.execute(sql.USED, (*used, now)))

    async def list_uses(self, namespace: str, name: str, cursor: str, limit: int) -> tuple[list[UseRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        arguments = (namespace, name, before, limit + 1)
        rows = await self._db.read(lambda connection: connection.execute(sql.USES, arguments).fetchall())
        return [UseRow(*row[1:]) for row in rows[:limit]], cursor_after(rows[limit - 1][0]) if len(rows) > limit else ""
