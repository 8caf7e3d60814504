"""The journal on SQLite: fenced appends and reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from talon.domain.entries import TURN_ENDS, Entry, NewEntry
from talon.domain.session import SessionRow
from talon.store.inbox_apply import apply_append, min_reader, refusal, requeued_turn
from talon.store.model import Append, Appended, Fragment, TurnChange
from talon.store.paging import BLOB_KEEP_MS, KEY_KEEP_MS, blob_digest
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database

_END_STATES = frozenset(name.removeprefix("turn.") for name in TURN_ENDS)
#: Host parameters that one statement may have on the oldest SQLite that is supported.
_PARAMETERS_MAX = 900


class JournalPart:
    """`talon.store.protocols.Journal` without `deliver`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def commit(self, batch: Sequence[Append]) -> list[Appended | Exception]:
        if not batch:
            return []
        sids = [append.sid for append in batch]
        if len(set(sids)) < len(sids):
            twice = next(sid for sid in sids if sids.count(sid) > 1)
            raise ValueError(f"a batch holds at most one append per session, this one several for {twice}")
        return await self._db.write(lambda connection, now: _commit(connection, batch, now))

    async def read_entries(self, sid: int, after: int, limit: int, types: Sequence[str] = ()) -> list[Entry]:
        if types:
            statement = sql.ENTRIES_OF_TYPES % _marks(len(types))
            return await self._entries(sid, statement, (sid, after, *types, limit))
        return await self._entries(sid, sql.ENTRIES, (sid, after, limit))

    async def read_turn(self, sid: int, turn_id: str, from_seq: int, after: int = 0) -> list[Entry]:
        return await self._entries(sid, sql.ENTRIES_OF_TURN, (sid, max(from_seq - 1, after), turn_id))

    async def read_context(self, sid: int, before: int, limit: int) -> list[Entry]:
        return (await self._entries(sid, sql.ENTRIES_OF_CONTEXT, (sid, before, limit)))[::-1]

    async def read_messages(self, sid: int, after: int, limit: int) -> list[Entry]:
        return await self._entries(sid, sql.ENTRIES_OF_MESSAGES, (sid, after, limit))

    async def read_fragments(self, sid: int, seq: int) -> list[Fragment]:
        rows = await self._db.read(lambda connection: connection.execute(sql.FRAGMENTS, (sid, seq)).fetchall())
        return [Fragment(seq, offset, text.decode(), kind) for seq, offset, text, kind in rows]

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        def read(connection: sqlite3.Connection) -> dict[int, int]:
            found: dict[int, int] = {}
            for start in range(0, len(sids), _PARAMETERS_MAX):
                some = sids[start : start + _PARAMETERS_MAX]
                found.update(connection.execute(sql.TAILS % _marks(len(some)), some))
            return found

        return await self._db.read(read)

    async def put_blob(self, namespace: str, payload: bytes) -> str:
        digest = blob_digest(namespace, payload)
        await self._db.write(lambda connection, now: connection.execute(sql.BLOB_PUT, (namespace, digest, namespace, payload, now)))
        return digest

    async def collect_blobs(self) -> int:
        def collect(connection: sqlite3.Connection, now: int) -> int:
            connection.execute(sql.KEYS_FORGET, (now - KEY_KEEP_MS,))
            return connection.execute(sql.BLOBS_COLLECT, (now - BLOB_KEEP_MS,)).rowcount

        return await self._db.write(collect)

    async def _entries(self, sid: int, statement: str, parameters: Sequence[Any]) -> list[Entry]:
        def read(connection: sqlite3.Connection) -> list[Entry]:
            return [
                Entry(seq, kind, _blob(connection, sid, blob) if blob else payload, *rest)
                for seq, kind, payload, *rest, blob in connection.execute(statement, parameters).fetchall()
            ]

        return await self._db.read(read)


def session_by_sid(connection: sqlite3.Connection, sid: int) -> SessionRow | None:
    """The session's row, or None."""
    row = connection.execute(sql.SESSION, (sid,)).fetchone()
    return None if row is None else SessionRow(*row)


def write_session(connection: sqlite3.Connection, before: SessionRow, after: SessionRow, reader: int) -> None:
    """Write what changed of a session's row, whose new entries need `reader`."""
    grown = (after.last_seq, after.queued, after.updated_at_ms, reader)
    moved = (after.state, after.fence, after.owner, after.wake_at_ms, after.turn_id)
    if moved == (before.state, before.fence, before.owner, before.wake_at_ms, before.turn_id):
        connection.execute(sql.SESSION_GROWS, (*grown, after.sid))
    else:
        connection.execute(sql.SESSION_MOVES, (*grown, *moved, after.sid))


def entry_rows(session: SessionRow, entries: Sequence[NewEntry], append_id: str | None, now: int) -> list[tuple[Any, ...]]:
    """The rows to insert for `entries` after the end of `session` (its row before the write)."""
    return [
        (
            session.sid,
            seq,
            append_id if seq == session.last_seq + 1 else None,
            new.turn_id,
            new.type,
            new.payload,
            new.blob,
            session.key_id,
            new.traceparent,
            new.v,
            new.min_reader,
            now,
        )
        for seq, new in enumerate(entries, session.last_seq + 1)
    ]


def _commit(connection: sqlite3.Connection, batch: Sequence[Append], now: int) -> list[Appended | Exception]:
    answers: list[Appended | Exception] = []
    rows: list[tuple[Any, ...]] = []
    for append in batch:
        written = connection.execute(sql.APPEND_WRITTEN, (append.id,)).fetchone() if append.entries else None
        if written is not None:
            sid, base, at_ms, runnable = written
            answers.append(Appended(sid, base, at_ms, bool(runnable)))
            continue
        session = session_by_sid(connection, append.sid)
        refused = refusal(session, append)
        if refused is not None:
            answers.append(refused)
            continue
        assert session is not None, "an unknown session is refused"
        rows += entry_rows(session, append.entries, append.id, now)
        after = apply_append(session, append, now)
        write_session(connection, session, after, min_reader(append.entries))
        _write_projections(connection, session, append, now)
        answers.append(Appended(session.sid, session.last_seq, now, after.wake_at_ms is not None))
    connection.executemany(sql.ENTRY_INSERT, rows)
    return answers


def _write_projections(connection: sqlite3.Connection, session: SessionRow, append: Append, now: int) -> None:
    sid = session.sid
    if append.turn is not None:
        _write_turn(connection, sid, append.turn, now)
    if append.drained:
        connection.execute(sql.TURN_DRAINED, (session.turn_id, sid))
    for turn in append.queue:
        connection.execute(sql.TURN_INSERT, values_of(requeued_turn(session, turn, now)))
    if append.fragments:
        connection.executemany(
            sql.FRAGMENT_INSERT, [(sid, piece.seq, piece.kind, piece.offset, piece.text.encode()) for piece in append.fragments]
        )
    for seq in append.drop_fragments:
        connection.execute(sql.FRAGMENTS_DROP, (sid, seq))
    if append.cancel_approvals:
        # Those that come with this append are about what is still to be found out: they stay open.
        turn_id = append.turn.turn_id if append.turn is not None else session.turn_id
        connection.execute(sql.APPROVALS_CANCEL, (now, sid, turn_id))
    for new in append.approvals:
        values = (new.id, sid, session.namespace, new.turn_id, new.call, new.kind, new.payload, now)
        connection.execute(sql.APPROVAL_INSERT, values)


def _write_turn(connection: sqlite3.Connection, sid: int, change: TurnChange, now: int) -> None:
    grown = (change.revision, change.reason, change.waiting_for, change.loop, change.input_tokens, change.output_tokens)
    connection.execute(sql.TURN_GROWS, (*grown, change.progress, change.turn_id, sid))
    if change.state is not None:
        started = now if change.state == "running" else None
        ended = now if change.state in _END_STATES else None
        connection.execute(sql.TURN_MOVES, (change.state, started, ended, change.turn_id, sid))


def values_of(row: Any) -> tuple[Any, ...]:
    """The values of a row struct in the order of its fields."""
    return tuple(getattr(row, name) for name in row.__struct_fields__)


def _blob(connection: sqlite3.Connection, sid: int, digest: str) -> bytes:
    row = connection.execute(sql.BLOB, (digest, sid)).fetchone()
    return b"" if row is None else row[0]


def _marks(count: int) -> str:
    return ", ".join("?" * count)
