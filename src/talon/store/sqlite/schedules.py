"""Runtime rows of schedules on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from talon.domain.inbox import Receipt
from talon.domain.schedules import Firing, Stand
from talon.store.paging import cursor_after, position_of
from talon.store.resources import ResourceRow
from talon.store.schedule_apply import advanced, changed_row, dropped, standing, stands_at
from talon.store.schedules import ERROR_MAX, LATE_MAX_MS, LOOK_MAX_MS, Dropped, Due, Fires, FiringRow, Look, ScheduleRow
from talon.store.sqlite.connection import Database
from talon.store.sqlite.journal import values_of
from talon.store.sqlite.sql import columns

_STORED = FiringRow.__struct_fields__[:-2]  # the turn's state is read, not stored
_ROW, _FIRING = columns(ScheduleRow), ", ".join(f"f.{name}" for name in _STORED)
_LAST = 2**63 - 1
#: Host parameters that one statement may have on the oldest SQLite that is supported.
_AT_ONCE = 500

ONE = f"SELECT {_ROW} FROM schedules WHERE uid = ?"
SOME = f"SELECT {_ROW} FROM schedules WHERE uid IN (%s)"
DUE = f"SELECT {_ROW} FROM schedules WHERE look_ms <= ? ORDER BY look_ms LIMIT ?"
#: Held by a clock that was ahead of this one.
STRANDED = f"SELECT {_ROW} FROM schedules WHERE look_ms > due_ms + {LATE_MAX_MS} AND look_ms > ? LIMIT ?"
NEXT = "SELECT min(look_ms) FROM schedules WHERE look_ms IS NOT NULL"
HOLD = "UPDATE schedules SET look_ms = ? WHERE uid = ?"
LATER = "UPDATE schedules SET look_ms = ? WHERE uid = ? AND since_ms = ? AND occurrence_ms = ?"
DROP = "INSERT OR IGNORE INTO dropped_occurrences (uid, since_ms, occurrence_ms) VALUES (?, ?, ?)"
DROPPED = "SELECT uid, since_ms, occurrence_ms FROM dropped_occurrences LIMIT ?"
FORGET = "DELETE FROM dropped_occurrences WHERE uid = ? AND since_ms = ? AND occurrence_ms = ?"
PUT = f"INSERT OR REPLACE INTO schedules ({_ROW}) VALUES ({', '.join('?' * len(ScheduleRow.__struct_fields__))})"
DELETE, DELETE_FIRINGS = "DELETE FROM schedules WHERE uid = ?", "DELETE FROM firings WHERE uid = ?"
PUT_OFF = """
UPDATE schedules SET look_ms = ?, failures = failures + 1, error = ? WHERE uid = ? AND occurrence_ms = ?"""
RECORD = f"INSERT INTO firings ({', '.join(_STORED)}) VALUES ({', '.join('?' * len(_STORED))})"
PRUNE = "DELETE FROM firings WHERE uid = ? AND number <= ?"
FIRINGS = f"""
SELECT {_FIRING}, coalesce(t.state, ''), coalesce(t.reason, '') FROM firings f LEFT JOIN turns t ON t.turn_id = f.turn_id
WHERE f.uid = ? AND f.number < ? ORDER BY f.number DESC LIMIT ?"""
OUTDATED = f"""
SELECT {_ROW} FROM schedules WHERE occurrence_ms IS NOT NULL AND tzdata < ? AND (tzdata, uid) > (?, ?)
ORDER BY tzdata, uid LIMIT ?"""


class SchedulesPart:
    """`talon.store.schedules.Schedules`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def take_due(self, limit: int, hold_ms: int) -> Due:
        now, found, next_in = await self._db.read(lambda connection: _due(connection, self._db.clock.now_ms(), limit))
        if not found:  # nothing is written where nothing is due
            return Due(now, (), next_in)

        def take(connection: sqlite3.Connection, now: int) -> Due:
            _, rows, _ = _due(connection, now, limit)
            connection.executemany(HOLD, [(now + hold_ms, row.uid) for row in rows])
            return Due(now, tuple(rows), _next_in(connection, now))

        return await self._db.write(take)

    async def schedule_now(self, uid: str) -> tuple[int, ScheduleRow | None]:
        return await self._db.read(lambda connection: (self._db.clock.now_ms(), schedule(connection, uid)))

    async def look_later(self, looks: Sequence[Look]) -> list[bool]:
        def write(connection: sqlite3.Connection, _: int) -> list[bool]:
            return [
                connection.execute(LATER, (one.look_ms, one.uid, one.since_ms, one.occurrence_ms)).rowcount > 0 for one in looks
            ]

        return await self._db.write(write)

    async def take_dropped(self, limit: int) -> list[Dropped]:
        def find(connection: sqlite3.Connection) -> list[Dropped]:
            return [Dropped(*row) for row in connection.execute(DROPPED, (limit,))]

        def take(connection: sqlite3.Connection, _: int) -> list[Dropped]:
            found = find(connection)
            connection.executemany(FORGET, map(msgspec.structs.astuple, found))
            return found

        return await self._db.write(take) if await self._db.read(find) else []

    async def pass_over(self, firings: Sequence[Firing]) -> list[bool]:
        def write(connection: sqlite3.Connection, now: int) -> list[bool]:
            return [_passed(connection, firing, now) for firing in firings]

        return await self._db.write(write)

    async def put_off(self, uid: str, occurrence_ms: int, wait_ms: int, error: str) -> None:
        await self._db.write(
            lambda connection, now: connection.execute(PUT_OFF, (now + wait_ms, error[:ERROR_MAX], uid, occurrence_ms))
        )

    async def get_schedules(self, uids: Sequence[str]) -> list[ScheduleRow]:
        def read(connection: sqlite3.Connection) -> list[ScheduleRow]:
            rows: list[ScheduleRow] = []
            for start in range(0, len(uids), _AT_ONCE):
                some = uids[start : start + _AT_ONCE]
                rows += map(_row, connection.execute(SOME % ", ".join("?" * len(some)), some))
            return rows

        return await self._db.read(read)

    async def list_firings(self, uid: str, cursor: str, limit: int) -> tuple[list[FiringRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        rows = await self._db.read(lambda connection: connection.execute(FIRINGS, (uid, before, limit + 1)).fetchall())
        found = [msgspec.structs.replace(one, manual=bool(one.manual)) for one in (FiringRow(*row) for row in rows[:limit])]
        return found, cursor_after(found[-1].number) if len(rows) > limit else ""

    async def list_outdated(self, tzdata: str, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        rows = await self._db.read(lambda connection: connection.execute(OUTDATED, (tzdata, *after, limit)).fetchall())
        return [_row(row) for row in rows]

    async def stand_anew(self, row: ScheduleRow, stand: Stand | None, tzdata: str, ahead_ms: int = 0) -> bool:
        def write(connection: sqlite3.Connection, now: int) -> bool:
            found = schedule(connection, row.uid)
            if found is None or (found.generation, found.occurrence_ms) != (row.generation, row.occurrence_ms):
                return False
            put_schedule(connection, standing(msgspec.structs.replace(found, tzdata=tzdata), stand, now, ahead_ms))
            return True

        return await self._db.write(write)


def schedule(connection: sqlite3.Connection, uid: str) -> ScheduleRow | None:
    """A schedule's row."""
    row = connection.execute(ONE, (uid,)).fetchone()
    return None if row is None else _row(row)


def put_schedule(connection: sqlite3.Connection, row: ScheduleRow) -> None:
    """Write it."""
    connection.execute(PUT, values_of(row))


def fire(connection: sqlite3.Connection, row: ScheduleRow, firing: Firing, given: Receipt | None, now: int) -> None:
    """Move a row on that `stands_at` let through, and record what became of the occurrence."""
    after, records = advanced(row, firing, given, now)
    put_schedule(connection, after)
    connection.executemany(RECORD, [values_of(one)[: len(_STORED)] for one in records])
    connection.execute(PRUNE, (row.uid, after.recorded - firing.history_limit))


def change_schedules(
    connection: sqlite3.Connection, puts: Iterable[tuple[Fires, ResourceRow]], deleted: Iterable[ResourceRow], now: int
) -> None:
    """What a change of resources does to the rows beside them."""
    lost: list[Dropped | None] = []
    for fires, resource in puts:
        old = schedule(connection, resource.uid)
        new = changed_row(old, fires, resource, now)
        put_schedule(connection, new)
        lost.append(dropped(old, new, now))
    gone = [(row.uid,) for row in deleted if row.kind == "Schedule"]
    lost += [dropped(schedule(connection, uid), None, now) for (uid,) in gone]
    connection.executemany(DROP, [msgspec.structs.astuple(one) for one in lost if one is not None])
    connection.executemany(DELETE, gone)
    connection.executemany(DELETE_FIRINGS, gone)


def _passed(connection: sqlite3.Connection, firing: Firing, now: int) -> bool:
    row = schedule(connection, firing.uid)
    if row is None or not stands_at(row, firing):
        return False
    fire(connection, row, firing, None, now)
    return True


def _due(connection: sqlite3.Connection, now: int, limit: int) -> tuple[int, list[ScheduleRow], int | None]:
    rows = [_row(row) for row in connection.execute(DUE, (now, limit))]
    if len(rows) < limit:
        rows += [_row(row) for row in connection.execute(STRANDED, (now + LOOK_MAX_MS, limit - len(rows)))]
    return now, rows, _next_in(connection, now)


def _next_in(connection: sqlite3.Connection, now: int) -> int | None:
    (look_ms,) = connection.execute(NEXT).fetchone()
    return None if look_ms is None else max(0, look_ms - now)


def _row(row: Sequence[object]) -> ScheduleRow:
    found = ScheduleRow(*row)  # type: ignore[arg-type]
    return msgspec.structs.replace(found, enabled=bool(found.enabled))
