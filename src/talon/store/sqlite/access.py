"""Credentials and the access log on SQLite."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

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
from talon.store.sqlite.connection import Database, snapshot
from talon.store.sqlite.sql import columns

_CREDENTIAL, _LOG = columns(CredentialRow), columns(LogRow)
_LAST = 2**63 - 1

GET = f"SELECT {_CREDENTIAL} FROM credentials WHERE id = ?"
LIST = f"SELECT number, {_CREDENTIAL} FROM credentials WHERE kind = ? AND number < ? ORDER BY number DESC LIMIT ?"
_PLACE = "json_extract(places, '$[0]')"
#: The place that a credential begins with, the next one behind another and before a third; and the credentials that begin with one.
NEXT_PLACE = f"SELECT {_PLACE} FROM credentials WHERE kind = ? AND {_PLACE} > ? AND {_PLACE} < ? ORDER BY {_PLACE} LIMIT 1"
LIST_AT = f"""
SELECT number, {_CREDENTIAL}, places FROM credentials WHERE kind = ? AND {_PLACE} = ? AND number < ? ORDER BY number DESC"""
_ALIVE = "revoked_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?)"
KEY_ALIVE = f"SELECT 1 FROM credentials WHERE kind = 'key' AND {_ALIVE} LIMIT 1"
PARENT = f"SELECT expires_at_ms FROM credentials WHERE id = ? AND {_ALIVE}"
INSERT = (
    f"INSERT OR IGNORE INTO credentials ({_CREDENTIAL}, places) VALUES ({', '.join('?' * len(CredentialRow.__struct_fields__))}, ?)"
)
VERSION = "SELECT version FROM access_state WHERE one = 1"
VERSION_UP = "UPDATE access_state SET version = version + 1 WHERE one = 1"
REVOKE = f"UPDATE credentials SET revoked_at_ms = ?, revoked_version = ({VERSION}) WHERE revoked_at_ms IS NULL AND id = ?"
MINTED = "SELECT id FROM credentials WHERE parent = ? AND parent <> '' AND revoked_at_ms IS NULL"
REVOKED_AFTER = "SELECT id FROM credentials WHERE revoked_version > ? ORDER BY revoked_version"
TOUCH = "UPDATE credentials SET used_at_ms = ? WHERE id = ?"
FORGET = """
DELETE FROM credentials WHERE number IN (SELECT number FROM credentials WHERE expires_at_ms < ?1 LIMIT ?2)
OR number IN (SELECT number FROM credentials WHERE revoked_at_ms < ?1 LIMIT ?2)"""

LOG_APPEND = f"INSERT INTO access_log ({_LOG}) VALUES ({', '.join('?' * len(LogRow.__struct_fields__))})"
_LOG_LIST = f"SELECT number, {_LOG} FROM access_log WHERE number < ? %s ORDER BY number DESC LIMIT ?"
LOG_LIST = {"": _LOG_LIST % ""} | {
    name: _LOG_LIST % f"AND {place}"
    for name, place in {"who": "who = ?", "namespace": "namespace = ?", "refused": "outcome <> 'ok'"}.items()
}
LOG_FORGET = """
DELETE FROM access_log WHERE number IN (SELECT number FROM access_log ORDER BY number LIMIT ?) AND at_ms < ?"""


class AccessPart:
    """`talon.store.access.AccessRows`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add_credential(self, new: NewCredential) -> CredentialRow | None:
        return await self._db.write(lambda connection, now: _add(connection, new, now))

    async def get_credential(self, credential: str) -> CredentialRow | None:
        return await self._db.read(lambda connection: _get(connection, credential))

    async def list_credentials(
        self, kind: CredentialKind, cursor: str, limit: int, within: Sequence[str] | None = None
    ) -> tuple[list[CredentialRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)

        def read(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            if within is None:
                return connection.execute(LIST, (kind, before, limit + 1)).fetchall()
            with snapshot(connection):
                return _within(connection, kind, int(before), limit + 1, within)

        rows = await self._db.read(read)
        return [CredentialRow(*row[1:]) for row in rows[:limit]], cursor_after(rows[limit - 1][0]) if len(rows) > limit else ""

    async def revoke_credential(self, credential: str) -> CredentialRow | None:
        def revoke(connection: sqlite3.Connection, now: int) -> CredentialRow | None:
            row = _get(connection, credential)
            if row is None or row.revoked_at_ms is not None:
                return row
            connection.execute(VERSION_UP)
            ending = [credential]
            for one in ending:  # grows as it goes: what was minted with it, and with that
                connection.execute(REVOKE, (now, one))
                ending += [row[0] for row in connection.execute(MINTED, (one,))]
            return _get(connection, credential)

        return await self._db.write(revoke)

    async def touch_credentials(self, credentials: Sequence[str]) -> None:
        def touch(connection: sqlite3.Connection, now: int) -> None:
            connection.executemany(TOUCH, [(now, one) for one in credentials])

        await self._db.write(touch)

    async def access_version(self) -> int:
        return await self._db.read(_version)

    async def revoked_after(self, version: int) -> tuple[list[str], int]:
        def read(connection: sqlite3.Connection) -> tuple[list[str], int]:
            with snapshot(connection):
                newest = _version(connection)
                rows = connection.execute(REVOKED_AFTER, (version,)).fetchall() if newest > version else []
            return [row[0] for row in rows], newest

        return await self._db.read(read)

    async def append_log(self, rows: Sequence[LogRow]) -> None:
        values = [tuple(getattr(row, name) for name in LogRow.__struct_fields__) for row in rows]
        await self._db.write(lambda connection, _: connection.executemany(LOG_APPEND, values))

    async def list_log(self, which: LogFilter, cursor: str, limit: int) -> tuple[list[LogRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        by = indexed(which)
        place = (getattr(which, by),) if by in ("who", "namespace") else ()
        arguments = (before, *place, candidates(which, limit))
        rows = await self._db.read(lambda connection: connection.execute(LOG_LIST[by], arguments).fetchall())
        return log_page([(row[0], LogRow(*row[1:])) for row in rows], which, limit, cursor_after)

    async def forget_access(self) -> int:
        def forget(connection: sqlite3.Connection, now: int) -> int:
            ended = connection.execute(FORGET, (now - CREDENTIAL_KEEP_MS, FORGET_MAX)).rowcount
            return ended + connection.execute(LOG_FORGET, (FORGET_MAX, now - LOG_KEEP_MS)).rowcount

        return await self._db.write(forget)


def _within(
    connection: sqlite3.Connection, kind: CredentialKind, before: int, limit: int, within: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Those that reach nothing outside of `within`: the newest of each place that they may begin with, and of these the newest."""
    below = tuple(f"{root}:" for root in within)
    places = list(within)
    for root in below:
        place = connection.execute(NEXT_PLACE, (kind, root, f"{root[:-1]};")).fetchone()
        while place is not None:
            places.append(place[0])
            place = connection.execute(NEXT_PLACE, (kind, place[0], f"{root[:-1]};")).fetchone()
    found: list[tuple[Any, ...]] = []
    for place in places:
        rows = connection.execute(LIST_AT, (kind, place, before))
        ours = (
            row[:-1] for row in rows if all(f"{one}:".startswith(below) for one in msgspec.json.decode(row[-1], type=list[str]))
        )
        found += itertools.islice(ours, limit)
    return sorted(found, key=lambda row: -row[0])[:limit]


def _get(connection: sqlite3.Connection, credential: str) -> CredentialRow | None:
    row = connection.execute(GET, (credential,)).fetchone()
    return None if row is None else CredentialRow(*row)


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute(VERSION).fetchone()[0]


def _add(connection: sqlite3.Connection, new: NewCredential, now: int) -> CredentialRow | None:
    expires = None if new.ttl_ms is None else now + new.ttl_ms
    if new.if_first and connection.execute(KEY_ALIVE, (now,)).fetchone() is not None:
        return None
    if new.parent:
        parent = connection.execute(PARENT, (new.parent, now)).fetchone()
        if parent is None:
            return None
        expires = min((one for one in (expires, parent[0]) if one is not None), default=None)
    row = CredentialRow(
        id=new.id,
        kind=new.kind,
        digest=new.digest,
        name=new.name,
        grants=new.grants,
        agent=new.agent,
        session=new.session,
        parent=new.parent,
        created_by=new.created_by,
        created_at_ms=now,
        expires_at_ms=expires,
        revoked_at_ms=None,
        used_at_ms=None,
    )
    places = msgspec.json.encode(sorted(set(new.places))).decode()
    values = (*(getattr(row, name) for name in CredentialRow.__struct_fields__), places)
    return row if connection.execute(INSERT, values).rowcount == 1 else None
