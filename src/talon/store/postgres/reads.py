"""Reading the journal, its fragments and its blobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from talon.domain.entries import CONTEXT_TYPES, MESSAGE_TYPES, Entry
from talon.store.model import Fragment
from talon.store.pack import CONTEXT_BITS, MESSAGE_BITS, Found, bits, select, select_last, with_payload
from talon.store.paging import BLOB_KEEP_MS, KEY_KEEP_MS, blob_digest
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.rows import NOW_MS

_ROWS = "SELECT j.last_seq, j.at_ms, j.pack FROM journal j WHERE j.sid = $1 AND j.last_seq"
_ENTRIES = f"{_ROWS} > $2 ORDER BY j.last_seq LIMIT $3"
_ENTRIES_OF_TYPES = f"{_ROWS} > $2 AND (j.types & $4::bigint) <> 0 ORDER BY j.last_seq LIMIT $3"
_TURN = f"{_ROWS} > $2 ORDER BY j.last_seq"
# The bits as literals: only so does a prepared statement use the partial indexes over them. The newest row of interest is the one
# that holds the entry at `$2`; it may go on behind it.
_CONTEXT = f"""{_ROWS} <= coalesce((
    SELECT n.last_seq FROM journal n WHERE n.sid = $1 AND n.last_seq >= $2 ORDER BY n.last_seq LIMIT 1), $2)
AND (j.types & {CONTEXT_BITS}) <> 0 ORDER BY j.last_seq DESC LIMIT $3"""
_MESSAGES = f"{_ROWS} > $2 AND (j.types & {MESSAGE_BITS}) <> 0 ORDER BY j.last_seq LIMIT $3"
_BLOBS = """
SELECT b.digest, b.payload FROM blobs b
WHERE b.namespace = (SELECT s.namespace FROM sessions s WHERE s.sid = $1) AND b.digest = ANY ($2::text[])"""
_FRAGMENTS = """
SELECT f."offset", f.text, f.kind FROM fragments f WHERE f.sid = $1 AND f.seq = $2 ORDER BY f.kind, f."offset" """
_TAILS = "SELECT s.sid, s.last_seq FROM sessions s WHERE s.sid = ANY($1::bigint[])"
_PUT_BLOB = f"""
INSERT INTO blobs (namespace, digest, key_id, payload, put_at_ms) VALUES ($1, $2, $1, $3, {NOW_MS})
ON CONFLICT (namespace, digest) DO UPDATE SET put_at_ms = excluded.put_at_ms"""
_COLLECT_BLOBS = f"""
WITH gone AS (
    DELETE FROM blobs b
    WHERE b.put_at_ms < {NOW_MS} - {BLOB_KEEP_MS} AND NOT b.kept RETURNING b.digest
)
SELECT count(*) FROM gone"""
_FORGET_KEYS = f"DELETE FROM keys WHERE at_ms < {NOW_MS} - {KEY_KEEP_MS}"


class PostgresReads:
    """The reading part of `Journal`, and blobs."""

    _db: Database

    async def read_entries(self, sid: int, after: int, limit: int, types: Sequence[str] = ()) -> list[Entry]:
        if not types:
            return await self._ascending(_ENTRIES, sid, after, limit, lambda _: True)
        names = frozenset(types)
        return await self._ascending(_ENTRIES_OF_TYPES, sid, after, limit, lambda entry: entry.type in names, bits(names))

    async def read_turn(self, sid: int, turn_id: str, from_seq: int, after: int = 0) -> list[Entry]:
        after = max(from_seq - 1, after)
        rows = await self._db.reads.fetch(_TURN, sid, after)
        return await self._whole(sid, select(rows, sys.maxsize, lambda entry: entry.turn_id == turn_id and entry.seq > after))

    async def read_context(self, sid: int, before: int, limit: int) -> list[Entry]:
        # One row more than entries: that of the newest may have none that is old enough.
        rows = await self._db.reads.fetch(_CONTEXT, sid, before - 1, limit + 1)
        found = select_last(rows, limit, lambda entry: entry.type in CONTEXT_TYPES and entry.seq < before)
        return await self._whole(sid, found)

    async def read_messages(self, sid: int, after: int, limit: int) -> list[Entry]:
        return await self._ascending(_MESSAGES, sid, after, limit, lambda entry: entry.type in MESSAGE_TYPES)

    async def _ascending(
        self, statement: str, sid: int, after: int, limit: int, wanted: Callable[[Entry], bool], *more: object
    ) -> list[Entry]:
        """Up to `limit` wanted entries; as many rows are enough, except where a row that was asked for has none of them."""
        found: list[Found] = []
        place = after
        while len(found) < limit:
            missing = limit - len(found)
            rows = await self._db.reads.fetch(statement, sid, place, missing, *more)
            found += select(rows, missing, lambda entry: entry.seq > after and wanted(entry))
            if len(rows) < missing:
                break
            place = rows[-1][0]
        return await self._whole(sid, found)

    async def _whole(self, sid: int, found: Sequence[Found]) -> list[Entry]:
        """The entries with their payloads; nearly all hold them themselves, and look for none."""
        digests = [digest for _, digest in found if digest]
        blobs = await self.read_blobs(sid, digests)
        return [with_payload(one, blobs) for one in found]

    async def read_fragments(self, sid: int, seq: int) -> list[Fragment]:
        return [Fragment(seq, row[0], row[1].decode(), row[2]) for row in await self._db.reads.fetch(_FRAGMENTS, sid, seq)]

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        return {row[0]: row[1] for row in await self._db.pool.fetch(_TAILS, list(sids))} if sids else {}

    async def put_blob(self, namespace: str, payload: bytes) -> str:
        digest = blob_digest(namespace, payload)
        await self._db.pool.fetch(_PUT_BLOB, namespace, digest, payload)
        return digest

    async def read_blobs(self, sid: int, digests: Sequence[str]) -> Mapping[str, bytes]:
        return {row[0]: row[1] for row in await self._db.reads.fetch(_BLOBS, sid, list(digests))} if digests else {}

    async def collect_blobs(self) -> int:
        async def write(connection: Connection) -> int:
            await connection.execute(_FORGET_KEYS)
            return await connection.fetchval(_COLLECT_BLOBS)

        return await self._db.pool.run(write, again=True)
