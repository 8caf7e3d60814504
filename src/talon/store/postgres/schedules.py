"""Runtime rows of schedules on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from talon.domain.inbox import Operation, Receipt
from talon.domain.schedules import Firing, Stand
from talon.store.paging import cursor_after, position_of
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS, columns, transpose
from talon.store.postgres.sessions import agent_lock, begin
from talon.store.resources import ResourceRow
from talon.store.schedule_apply import advanced, changed_row, dropped, stands_at
from talon.store.schedules import ERROR_MAX, LATE_MAX_MS, LOOK_MAX_MS, Dropped, Due, Fires, FiringRow, Look, ScheduleRow

_STORED = FiringRow.__struct_fields__[:-2]  # the turn's state is read, not stored
_FIELDS = ScheduleRow.__struct_fields__
_ROW, _FIRING = columns(ScheduleRow, "s"), ", ".join(f"f.{name}" for name in _STORED)
_LAST = 2**63 - 1
_TYPES = {
    **dict.fromkeys(("generation", "failures", "count"), "int"),
    **dict.fromkeys(("enabled", "manual"), "boolean"),
    "plan": "bytea",
    **dict.fromkeys(("since_ms", "occurrence_ms", "due_ms", "look_ms", "done_ms", "fired", "recorded"), "bigint"),
    **dict.fromkeys(("number", "last_ms", "at_ms", "sid"), "bigint"),
}


def _arrays(fields: Iterable[str], first: int) -> str:
    return ", ".join(f"${number}::{_TYPES.get(field, 'text')}[]" for number, field in enumerate(fields, first))


#: Due ones, and those that a clock which was ahead of this one holds. Who asks at the same moment gets others.
TAKE = f"""
WITH due AS MATERIALIZED (
    SELECT s.uid FROM schedules s WHERE s.look_ms <= {NOW_MS} ORDER BY s.look_ms LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
),
stranded AS MATERIALIZED (
    SELECT s.uid FROM schedules s WHERE s.look_ms > s.due_ms + {LATE_MAX_MS} AND s.look_ms > {NOW_MS} + {LOOK_MAX_MS}
    ORDER BY s.look_ms LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE schedules s SET look_ms = {NOW_MS} + $2::bigint
FROM (SELECT uid FROM due UNION SELECT uid FROM stranded) n WHERE s.uid = ANY (ARRAY[n.uid])
RETURNING {_ROW}"""
#: The time, when the first of them is looked at, and whether a clock that was ahead holds any.
NEXT = f"""
SELECT {NOW_MS}, (SELECT s.look_ms FROM schedules s WHERE s.look_ms IS NOT NULL ORDER BY s.look_ms LIMIT 1),
    EXISTS (SELECT FROM schedules s WHERE s.look_ms > s.due_ms + {LATE_MAX_MS} AND s.look_ms > {NOW_MS} + {LOOK_MAX_MS})"""
PUT_OFF = f"""
UPDATE schedules s SET look_ms = {NOW_MS} + $3::bigint, failures = s.failures + 1, error = $4
WHERE s.uid = $1 AND s.occurrence_ms = $2"""
SOME = f"SELECT {_ROW} FROM schedules s WHERE s.uid = ANY($1::text[])"
#: The time, and a row if it is there.
NOW = f"SELECT n.now, {_ROW} FROM (SELECT {NOW_MS} AS now) n LEFT JOIN schedules s ON s.uid = $1"
#: In the order in which everybody locks them.
LATER = """
WITH locked AS MATERIALIZED (SELECT s.uid FROM schedules s WHERE s.uid = ANY($1::text[]) ORDER BY s.uid FOR NO KEY UPDATE)
UPDATE schedules s SET look_ms = n.look_ms
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS n(uid, since_ms, occurrence_ms, look_ms, nth)
WHERE s.uid = ANY (ARRAY[n.uid]) AND n.uid IN (SELECT uid FROM locked)
    AND s.since_ms = n.since_ms AND s.occurrence_ms = n.occurrence_ms
RETURNING n.nth"""
DROP = """
INSERT INTO dropped_occurrences (uid, since_ms, occurrence_ms) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
ON CONFLICT DO NOTHING"""
TAKE_DROPPED = """
DELETE FROM dropped_occurrences d WHERE d.ctid IN (
    SELECT ctid FROM dropped_occurrences LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING d.uid, d.since_ms, d.occurrence_ms"""
LOCK = f"SELECT {_ROW} FROM schedules s WHERE s.uid = ANY($1::text[]) ORDER BY s.uid FOR NO KEY UPDATE"
PUT = f"""
INSERT INTO schedules ({", ".join(_FIELDS)}) SELECT * FROM unnest({_arrays(_FIELDS, 1)})
ON CONFLICT (uid) DO UPDATE SET {", ".join(f"{field} = excluded.{field}" for field in _FIELDS[1:])}"""
DELETE = """
WITH gone AS (DELETE FROM firings f WHERE f.uid = ANY($1::text[])) DELETE FROM schedules s WHERE s.uid = ANY($1::text[])"""
_RECORDS, _PRUNE = 1 + len(_FIELDS), 1 + len(_FIELDS) + len(_STORED)
#: Rows that are there and locked, what is recorded of them, and up to which number the records of each go.
FIRED = f"""
WITH moved AS (
    UPDATE schedules s SET {", ".join(f"{field} = n.{field}" for field in _FIELDS[1:])}
    FROM unnest({_arrays(_FIELDS, 1)}) AS n({", ".join(_FIELDS)}) WHERE s.uid = ANY (ARRAY[n.uid])
),
recorded AS (
    INSERT INTO firings ({", ".join(_STORED)}) SELECT * FROM unnest({_arrays(_STORED, _RECORDS)})
    AS n({", ".join(_STORED)}) WHERE n.number > coalesce((
        SELECT p.last FROM unnest(${_PRUNE}::text[], ${_PRUNE + 1}::bigint[]) AS p(uid, last) WHERE p.uid = n.uid), 0)
)
DELETE FROM firings f USING unnest(${_PRUNE}::text[], ${_PRUNE + 1}::bigint[]) AS n(uid, last)
WHERE f.uid = ANY (ARRAY[n.uid]) AND f.number <= n.last"""
# The id is read before it is looked for: behind the wall no index serves an expression that may fail.
FIRINGS = f"""
WITH f AS MATERIALIZED (
    SELECT f.*, nullif(f.turn_id, '')::uuid AS turn FROM firings f
    WHERE f.uid = $1 AND f.number < $2 ORDER BY f.number DESC LIMIT $3
)
SELECT {_FIRING}, coalesce(t.state, ''), coalesce(t.reason, '') FROM f LEFT JOIN LATERAL (
    SELECT t.state, t.reason FROM turns t WHERE t.turn_id = f.turn LIMIT 1) t ON true
ORDER BY f.number DESC"""
OUTDATED = f"""
SELECT {_ROW} FROM schedules s WHERE s.occurrence_ms IS NOT NULL AND s.tzdata < $1 AND (s.tzdata, s.uid) > ($2, $3)
ORDER BY s.tzdata, s.uid LIMIT $4"""
ANEW = f"""
UPDATE schedules s SET occurrence_ms = $4, due_ms = $5, tzdata = $7,
    look_ms = CASE WHEN $5::bigint IS NOT NULL THEN least($5::bigint, greatest({NOW_MS}, $6::bigint)) END
WHERE s.uid = $1 AND s.generation = $2 AND s.occurrence_ms = $3 RETURNING 1"""


class PostgresSchedules:
    """`talon.store.schedules.Schedules`."""

    _db: Database

    async def take_due(self, limit: int, hold_ms: int) -> Due:
        async def take(connection: Connection) -> Due:
            now, look_ms, stranded = tuple(await connection.fetchrow(NEXT) or (0, None, False))
            if look_ms is None or (look_ms > now and not stranded):
                return Due(now, (), None if look_ms is None else look_ms - now)
            rows = [ScheduleRow(*row) for row in await connection.fetch(TAKE, limit, hold_ms)]
            now, look_ms, _ = tuple(await connection.fetchrow(NEXT) or (now, None, False))
            rows.sort(key=lambda row: row.due_ms or 0)
            return Due(now, tuple(rows), None if look_ms is None else max(0, look_ms - now))

        return await self._db.pool.run(take, again=False)

    async def schedule_now(self, uid: str) -> tuple[int, ScheduleRow | None]:
        ((now, *row),) = await self._db.pool.fetch(NOW, uid)
        return now, None if row[0] is None else ScheduleRow(*row)

    async def look_later(self, looks: Sequence[Look]) -> list[bool]:
        stood = {nth for (nth,) in await self._db.pool.fetch(LATER, *transpose(map(msgspec.structs.astuple, looks), 4))}
        return [nth in stood for nth in range(1, len(looks) + 1)]

    async def take_dropped(self, limit: int) -> list[Dropped]:
        return [Dropped(*row) for row in await self._db.pool.fetch(TAKE_DROPPED, limit, again=False)]

    async def pass_over(self, firings: Sequence[Firing]) -> list[bool]:
        async def write(connection: Connection) -> list[bool]:
            await connection.execute("BEGIN")
            rows = await lock_schedules(connection, [firing.uid for firing in firings])
            seen: set[str] = set()
            stand: list[bool] = []
            for firing in firings:
                stand.append(firing.uid not in seen and stands_at(rows.get(firing.uid), firing))
                seen.add(firing.uid)
            await fire(connection, rows, [(one, None) for one, does in zip(firings, stand, strict=True) if does])
            await connection.execute("COMMIT")
            return stand

        return await self._db.pool.run(write, again=False)

    async def put_off(self, uid: str, occurrence_ms: int, wait_ms: int, error: str) -> None:
        await self._db.pool.fetch(PUT_OFF, uid, occurrence_ms, wait_ms, error[:ERROR_MAX])

    async def get_schedules(self, uids: Sequence[str]) -> list[ScheduleRow]:
        return [ScheduleRow(*row) for row in await self._db.reads.fetch(SOME, list(uids))] if uids else []

    async def list_firings(self, uid: str, cursor: str, limit: int) -> tuple[list[FiringRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        rows = await self._db.reads.fetch(FIRINGS, uid, before, limit + 1)
        found = [FiringRow(*row) for row in rows[:limit]]
        return found, cursor_after(found[-1].number) if len(rows) > limit else ""

    async def list_outdated(self, tzdata: str, after: tuple[str, str], limit: int) -> list[ScheduleRow]:
        return [ScheduleRow(*row) for row in await self._db.pool.fetch(OUTDATED, tzdata, *after, limit)]

    async def stand_anew(self, row: ScheduleRow, stand: Stand | None, tzdata: str, ahead_ms: int = 0) -> bool:
        occurrence_ms, due_ms = (None, None) if stand is None else (stand.occurrence_ms, stand.due_ms)
        place = (row.uid, row.generation, row.occurrence_ms)
        told_ms = None if due_ms is None else due_ms - ahead_ms
        return bool(await self._db.pool.fetch(ANEW, *place, occurrence_ms, due_ms, told_ms, tzdata, again=False))


async def open_firing(connection: Connection, operations: Iterable[Operation]) -> dict[str, ScheduleRow]:
    """Open a transaction in which these may fire, and lock their schedules.

    The agents of sessions that may begin come first, then schedules, sessions last: a change of resources has the same order, so
    nobody waits in a circle.
    """
    operations = list(operations)
    agents = {agent_lock(*operation.where[:2]) for operation in operations if operation.creation is not None}
    await connection.execute(begin(set(), agents))
    return await lock_schedules(connection, [one.firing.uid for one in operations if one.firing is not None])


async def lock_schedules(connection: Connection, uids: Sequence[str]) -> dict[str, ScheduleRow]:
    """Those that exist, locked until the transaction ends."""
    rows = [ScheduleRow(*row) for row in await connection.fetch(LOCK, list(uids))]
    return {row.uid: row for row in rows}


async def fire(connection: Connection, rows: Mapping[str, ScheduleRow], firings: Sequence[tuple[Firing, Receipt | None]]) -> None:
    """Move locked rows on that `stands_at` let through, in order, and record what became of the occurrences."""
    if not firings:
        return
    now: int = await connection.fetchval(f"SELECT {NOW_MS}")
    moved: dict[str, ScheduleRow] = {}
    records: list[FiringRow] = []
    limits: dict[str, int] = {}
    for firing, given in firings:
        after, told = advanced(moved.get(firing.uid) or rows[firing.uid], firing, given, now)
        moved[firing.uid] = after
        records += told
        limits[firing.uid] = after.recorded - firing.history_limit
    await connection.execute(
        FIRED,
        *transpose(map(msgspec.structs.astuple, moved.values()), len(_FIELDS)),
        *transpose([msgspec.structs.astuple(one)[: len(_STORED)] for one in records], len(_STORED)),
        *transpose(limits.items(), 2),
    )


async def change_schedules(
    connection: Connection, puts: Sequence[tuple[Fires, ResourceRow]], deleted: Iterable[ResourceRow], now: int
) -> None:
    """What a change of resources does to the rows beside them."""
    gone = [row.uid for row in deleted if row.kind == "Schedule"]
    if not puts and not gone:
        return
    rows = await lock_schedules(connection, [*(resource.uid for _, resource in puts), *gone])
    changed: list[ScheduleRow] = []
    if puts:
        changed = [changed_row(rows.get(resource.uid), fires, resource, now) for fires, resource in puts]
        await connection.execute(PUT, *transpose(map(msgspec.structs.astuple, changed), len(_FIELDS)))
    if gone:
        await connection.execute(DELETE, gone)
    after = {row.uid: row for row in changed}
    lost = [one for uid, row in rows.items() if (one := dropped(row, after.get(uid), now)) is not None]
    if lost:
        await connection.execute(DROP, *transpose(map(msgspec.structs.astuple, lost), 3))
