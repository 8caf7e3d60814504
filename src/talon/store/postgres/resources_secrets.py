"""Encrypted values and their uses. What is in a value no store can tell."""

from __future__ import annotations

from collections.abc import Sequence

from talon.store.paging import cursor_after, position_of
from talon.store.postgres import resources_sql as sql
from talon.store.postgres.connections import Database
from talon.store.postgres.rows import transpose
from talon.store.resources import SealedRow, UseRow

_LAST = 2**63 - 1


class PostgresSecrets:
    """The secrets of `Resources`."""

    _db: Database

    async def get_sealed(self, namespace: str, name: str) -> SealedRow | None:
        row = await self._db.reads.fetchrow(sql.SEALED, namespace, name)
        return None if row is None else SealedRow(*row)

    async def have_values(self, secrets: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        rows = await self._db.reads.fetch(sql.HAVE_VALUES, *transpose(secrets, 2)) if secrets else []
        return {(row[0], row[1]) for row in rows}

    async def list_sealed(self, not_key_id: str, after: tuple[str, str], limit: int) -> list[SealedRow]:
        return [SealedRow(*row) for row in await self._db.pool.fetch(sql.LIST_SEALED, *after, not_key_id, limit)]

    async def reseal(self, old: SealedRow, new: SealedRow) -> bool:
        place = (old.namespace, old.name, old.uid)
        # Done twice it would say that somebody else did it.
        row = await self._db.pool.fetchrow(sql.RESEAL, *place, old.key_id, old.sealed, new.key_id, new.sealed, again=False)
        return row is not None

    async def record_use(self, use: UseRow) -> None:
        await self._db.pool.fetch(sql.USED, use.namespace, use.name, use.used_by, use.purpose)

    async def list_uses(self, namespace: str, name: str, cursor: str, limit: int) -> tuple[list[UseRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        rows = [tuple(row) for row in await self._db.reads.fetch(sql.USES, namespace, name, before, limit + 1)]
        return [UseRow(*row[1:]) for row in rows[:limit]], cursor_after(rows[limit - 1][0]) if len(rows) > limit else ""
