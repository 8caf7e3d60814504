"""Reading the journal, its fragments and its blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from talon.domain.entries import CONTEXT_TYPES, MESSAGE_TYPES, Entry
from talon.store.model import Fragment
from talon.store.paging import BLOB_KEEP_MS, KEY_KEEP_MS, blob_digest
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import ENTRY, NOW_MS, entry


def _types(types: frozenset[str]) -> str:
    """As a literal list: only so does a prepared statement use the partial index over them."""
    return "e.type IN (" + ", ".join(f"'{name}'" for name in sorted(types)) + ")"


_ENTRIES = f"SELECT {ENTRY} FROM entries e WHERE e.sid = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3"
_ENTRIES_OF_TYPES = (
    f"SELECT {ENTRY} FROM entries e WHERE e.sid = $1 AND e.seq > $2 AND e.type = ANY($4::text[]) ORDER BY e.seq LIMIT $3"
)
_TURN = f"SELECT {ENTRY} FROM entries e WHERE e.sid = $1 AND e.seq >= $2 AND e.turn_id = $3 ORDER BY e.seq"
_CONTEXT = f"SELECT {ENTRY} FROM entries e WHERE e.sid = $1 AND e.seq < $2 AND {_types(CONTEXT_TYPES)} ORDER BY e.seq DESC LIMIT $3"
_MESSAGES = f"SELECT {ENTRY} FROM entries e WHERE e.sid = $1 AND e.seq > $2 AND {_types(MESSAGE_TYPES)} ORDER BY e.seq LIMIT $3"
_FRAGMENTS = """
SELECT f."offset", f.text, f.kind FROM fragments f WHERE f.sid = $1 AND f.seq = $2 ORDER BY f.kind, f."offset" """
_TAILS = "SELECT s.sid, s.last_seq FROM sessions s WHERE s.sid = ANY($1::bigint[])"
_PUT_BLOB = f"""
INSERT INTO blobs (namespace, digest, key_id, payload, put_at_ms) VALUES ($1, $2, $1, $3, {NOW_MS})
ON CONFLICT (namespace, digest) DO UPDATE SET put_at_ms = excluded.put_at_ms"""
_COLLECT_BLOBS = f"""
WITH gone AS (
    DELETE FROM blobs b
    WHERE b.put_at_ms < {NOW_MS} - {BLOB_KEEP_MS} AND NOT EXISTS (SELECT FROM entries e WHERE e.blob = b.digest AND e.blob <> '')
    RETURNING b.digest
)
SELECT count(*) FROM gone"""
_FORGET_KEYS = f"DELETE FROM keys WHERE at_ms < {NOW_MS} - {KEY_KEEP_MS}"


class PostgresReads:
    """The reading part of `Journal`, and blobs."""

    _db: Database

    async def read_entries(self, sid: int, after: int, limit: int, types: Sequence[str] = ()) -> list[Entry]:
        if types:
            return [entry(row) for row in await self._db.fetch(_ENTRIES_OF_TYPES, sid, after, limit, list(types))]
        return [entry(row) for row in await self._db.fetch(_ENTRIES, sid, after, limit)]

    async def read_turn(self, sid: int, turn_id: str, from_seq: int, after: int = 0) -> list[Entry]:
        return [entry(row) for row in await self._db.fetch(_TURN, sid, max(from_seq, after + 1), turn_id)]

    async def read_context(self, sid: int, before: int, limit: int) -> list[Entry]:
        return [entry(row) for row in reversed(await self._db.fetch(_CONTEXT, sid, before, limit))]

    async def read_messages(self, sid: int, after: int, limit: int) -> list[Entry]:
        return [entry(row) for row in await self._db.fetch(_MESSAGES, sid, after, limit)]

    async def read_fragments(self, sid: int, seq: int) -> list[Fragment]:
        return [Fragment(seq, row[0], row[1].decode(), row[2]) for row in await self._db.fetch(_FRAGMENTS, sid, seq)]

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        return {row[0]: row[1] for row in await self._db.fetch(_TAILS, list(sids))} if sids else {}

    async def put_blob(self, namespace: str, payload: bytes) -> str:
        digest = blob_digest(namespace, payload)
        await self._db.fetch(_PUT_BLOB, namespace, digest, payload)
        return digest

    async def collect_blobs(self) -> int:
        async def write(connection: Connection) -> int:
            await connection.execute(_FORGET_KEYS)
            return await connection.fetchval(_COLLECT_BLOBS)

        return await self._db.pool.run(write, again=True)
