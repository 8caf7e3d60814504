"""Credentials and the access log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from talon.store.access import (
    CREDENTIAL_KEEP_MS,
    FORGET_MAX,
    LOG_KEEP_MS,
    CredentialKind,
    CredentialRow,
    LogFilter,
    LogRow,
    NewCredential,
    candidates,
    indexed,
    log_page,
)
from talon.store.paging import cursor_after, position_of
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS, columns, transpose
from talon.store.postgres.walled import two_ways

_CREDENTIAL, _LOG = columns(CredentialRow, "c"), columns(LogRow, "l")
_LOG_FIELDS = LogRow.__struct_fields__
_LAST = 2**63 - 1

GET = f"SELECT {_CREDENTIAL} FROM credentials c WHERE c.id = $1"
LIST = f"""
SELECT c.number, {_CREDENTIAL} FROM credentials c WHERE c.kind || '/' = $1 || '/' AND -c.number > -$2::bigint
ORDER BY -c.number LIMIT $3"""
#: Those that reach nothing outside of the namespaces $4: the newest of each place that they may begin with, and of these the
#: newest. So it reads as many rows as the page has for each of these places, however many credentials others have.
LIST_WITHIN = f"""
WITH RECURSIVE below AS (
    SELECT w.root, (
        SELECT c.places[1] FROM credentials c
        WHERE c.kind = $1 AND c.places[1] > w.root || ':' AND c.places[1] < w.root || ';' ORDER BY c.places[1] LIMIT 1) AS place
    FROM unnest($4::text[]) AS w(root)
    UNION ALL
    SELECT b.root, (
        SELECT c.places[1] FROM credentials c
        WHERE c.kind = $1 AND c.places[1] > b.place AND c.places[1] < b.root || ';' ORDER BY c.places[1] LIMIT 1)
    FROM below b WHERE b.place IS NOT NULL
),
places AS (SELECT b.place FROM below b WHERE b.place IS NOT NULL UNION SELECT w.root FROM unnest($4::text[]) AS w(root))
SELECT c.number, {_CREDENTIAL} FROM places p CROSS JOIN LATERAL (
    SELECT * FROM credentials c WHERE c.kind = $1 AND c.places[1] = p.place AND c.number < $2 AND NOT EXISTS (
        SELECT FROM unnest(c.places) AS g(place)
        WHERE NOT EXISTS (SELECT FROM unnest($4::text[]) AS w(root) WHERE starts_with(g.place || ':', w.root || ':')))
    ORDER BY c.number DESC LIMIT $3) c
ORDER BY c.number DESC LIMIT $3"""
_ALIVE = f"c.revoked_at_ms IS NULL AND (c.expires_at_ms IS NULL OR c.expires_at_ms > {NOW_MS})"
KEY_ALIVE = f"SELECT 1 FROM credentials c WHERE c.kind || '/' = 'key/' AND {_ALIVE} ORDER BY -c.number LIMIT 1"
#: The parent's lock is shared, and taken before it is read for good: whoever revokes it waits, and then finds the new one too.
ADD = f"""
WITH parent AS (SELECT c.expires_at_ms FROM credentials c WHERE c.id = $8 AND {_ALIVE} FOR SHARE)
INSERT INTO credentials AS c
    (id, kind, digest, name, grants, agent, session, parent, created_by, created_at_ms, expires_at_ms, places)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, {NOW_MS}, least({NOW_MS} + $10::bigint, (SELECT expires_at_ms FROM parent)), $11
WHERE $8 = '' OR (SELECT true FROM parent)
ON CONFLICT (id) DO NOTHING RETURNING {_CREDENTIAL}"""
STATE_LOCK = "SELECT version FROM access_state WHERE one = 1 FOR UPDATE"
VERSION = "SELECT version FROM access_state WHERE one = 1"
VERSION_UP = "UPDATE access_state SET version = version + 1 WHERE one = 1 RETURNING version"
_REVOKE = f"UPDATE credentials c SET revoked_at_ms = {NOW_MS}, revoked_version = $2 WHERE c.revoked_at_ms IS NULL AND "
REVOKE, REVOKE_MINTED = _REVOKE + "c.id = $1", _REVOKE + "c.parent = ANY ($1::text[]) AND c.parent <> '' RETURNING c.id"
#: A row at least: the version alone, where nothing was revoked.
REVOKED_AFTER = """
SELECT s.version, c.id FROM access_state s LEFT JOIN LATERAL (
    SELECT c.id, c.revoked_version FROM credentials c WHERE c.revoked_version > $1 ORDER BY c.revoked_version) c ON true
WHERE s.one = 1 ORDER BY c.revoked_version"""
TOUCH = f"""
UPDATE credentials c SET used_at_ms = {NOW_MS}
WHERE c.number = ANY (ARRAY(SELECT o.number FROM credentials o WHERE o.id = ANY ($1::text[]) ORDER BY o.number FOR UPDATE))"""
FORGET = f"""
WITH gone AS (
    DELETE FROM credentials c WHERE c.number = ANY (ARRAY(
        (SELECT e.number FROM credentials e WHERE e.expires_at_ms < {NOW_MS} - $1::bigint ORDER BY e.expires_at_ms LIMIT $2)
        UNION
        (SELECT r.number FROM credentials r WHERE r.revoked_at_ms < {NOW_MS} - $1::bigint ORDER BY r.revoked_at_ms LIMIT $2)))
    RETURNING 1)
SELECT count(*) FROM gone"""

_TYPES = {"at_ms": "bigint"}
_ARRAYS = ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(_LOG_FIELDS, 1))
LOG_APPEND = f"INSERT INTO access_log ({', '.join(_LOG_FIELDS)}) SELECT * FROM unnest({_ARRAYS})"
_LOG_LIST = f"SELECT l.number, {_LOG} FROM access_log l WHERE %s ORDER BY %s LIMIT $2"
_LOG_SEEN = f"""
SELECT l.number, {_LOG} FROM seen_log(%s, %s, $1, $2) n CROSS JOIN LATERAL (
    SELECT * FROM access_log l WHERE l.number = n.number LIMIT 1) l
ORDER BY l.number DESC"""
LOG_LIST = {"": _LOG_LIST % ("l.number < $1", "l.number DESC")} | {
    name: two_ways(_LOG_LIST % (f"-l.number > -$1::bigint AND {place}", "-l.number"), _LOG_SEEN % (f"'{name}'", value))
    for name, place, value in (
        ("who", "l.who || '/' = $3 || '/'", "$3"),
        ("namespace", "l.namespace || '/' = $3 || '/'", "$3"),
        ("refused", "l.outcome <> 'ok'", "''"),
    )
}
LOG_FORGET = f"""
WITH gone AS (
    DELETE FROM access_log l WHERE l.number = ANY (ARRAY(SELECT o.number FROM access_log o ORDER BY o.number LIMIT $2))
    AND l.at_ms < {NOW_MS} - $1::bigint RETURNING 1)
SELECT count(*) FROM gone"""


class PostgresAccess:
    """`talon.store.access.AccessRows`."""

    _db: Database

    async def add_credential(self, new: NewCredential) -> CredentialRow | None:
        values = (new.id, new.kind, new.digest, new.name, new.grants, new.agent, new.session, new.parent, new.created_by)

        async def add(connection: Connection) -> CredentialRow | None:
            async with connection.transaction():
                if new.if_first:
                    await connection.fetchval(STATE_LOCK)
                    if await connection.fetchval(KEY_ALIVE) is not None:
                        return None
                row = await connection.fetchrow(ADD, *values, new.ttl_ms, sorted(set(new.places)))
            return None if row is None else CredentialRow(*row)

        # Not again: of one that was written, its answer lost, the secret is lost as well.
        return await self._db.pool.run(add, again=False)

    async def get_credential(self, credential: str) -> CredentialRow | None:
        row = await self._db.pool.fetchrow(GET, credential)
        return None if row is None else CredentialRow(*row)

    async def list_credentials(
        self, kind: CredentialKind, cursor: str, limit: int, within: Sequence[str] | None = None
    ) -> tuple[list[CredentialRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        if within is None:
            found = await self._db.reads.fetch(LIST, kind, before, limit + 1)
        else:
            found = await self._db.reads.fetch(LIST_WITHIN, kind, before, limit + 1, list(within))
        rows = [tuple(row) for row in found]
        return [CredentialRow(*row[1:]) for row in rows[:limit]], cursor_after(rows[limit - 1][0]) if len(rows) > limit else ""

    async def revoke_credential(self, credential: str) -> CredentialRow | None:
        async def revoke(connection: Connection) -> CredentialRow | None:
            async with connection.transaction():
                row = await connection.fetchrow(GET, credential)
                if row is None or row["revoked_at_ms"] is not None:
                    return None if row is None else CredentialRow(*row)
                version = await connection.fetchval(VERSION_UP)
                await connection.execute(REVOKE, credential, version)
                ended = [credential]
                while ended:
                    # After the lock on these is ours: what was minted with them meanwhile is there, and nothing more will be.
                    ended = [one[0] for one in await connection.fetch(REVOKE_MINTED, ended, version)]
                row = await connection.fetchrow(GET, credential)
            return None if row is None else CredentialRow(*row)

        return await self._db.pool.run(revoke, again=True)

    async def touch_credentials(self, credentials: Sequence[str]) -> None:
        await self._db.pool.fetch(TOUCH, list(credentials))

    async def access_version(self) -> int:
        return await self._db.pool.fetchval(VERSION)

    async def revoked_after(self, version: int) -> tuple[list[str], int]:
        rows = await self._db.pool.fetch(REVOKED_AFTER, version)
        return [row[1] for row in rows if row[1] is not None], rows[0][0]

    async def append_log(self, rows: Sequence[LogRow]) -> None:
        values = transpose(([getattr(row, name) for name in _LOG_FIELDS] for row in rows), len(_LOG_FIELDS))
        await self._db.pool.fetch(LOG_APPEND, *values, again=False)

    async def list_log(self, which: LogFilter, cursor: str, limit: int) -> tuple[list[LogRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        by = indexed(which)
        place = (getattr(which, by),) if by in ("who", "namespace") else ()
        rows = [tuple(row) for row in await self._db.reads.fetch(LOG_LIST[by], before, candidates(which, limit), *place)]
        return log_page([(row[0], LogRow(*row[1:])) for row in rows], which, limit, cursor_after)

    async def forget_access(self) -> int:
        ended = await self._db.pool.fetchval(FORGET, CREDENTIAL_KEEP_MS, FORGET_MAX)
        return ended + await self._db.pool.fetchval(LOG_FORGET, LOG_KEEP_MS, FORGET_MAX)
