"""The journal on SQLite: fenced appends and reads."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from talon.domain.entries import CONTEXT_TYPES, MESSAGE_TYPES, TURN_ENDS, Entry, NewEntry
from talon.domain.session import SessionRow, TurnRow
from talon.store.inbox_apply import apply_append, min_reader, refusal, requeued_turn
from talon.store.model import Append, Appended, Fragment, TurnChange
from talon.store.pack import Found, bits, pack, select, select_last, uuid_bytes, with_payload
from talon.store.paging import BLOB_KEEP_MS, KEY_KEEP_MS, blob_digest
from talon.store.protocols import Where
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
        if not types:
            return await self._ascending(sql.ENTRIES, sid, after, limit, lambda _: True)
        names = frozenset(types)
        return await self._ascending(sql.ENTRIES_OF_TYPES, sid, after, limit, lambda entry: entry.type in names, bits(names))

    async def read_turn(self, sid: int, turn_id: str, from_seq: int, after: int = 0) -> list[Entry]:
        after = max(from_seq - 1, after)

        def read(connection: sqlite3.Connection) -> list[Entry]:
            rows = connection.execute(sql.ENTRIES_OF_TURN, (sid, after))
            found = select(rows, sys.maxsize, lambda entry: entry.turn_id == turn_id and entry.seq > after)
            return _whole(connection, sid, found)

        return await self._db.read(read)

    async def read_context(self, sid: int, before: int, limit: int) -> list[Entry]:
        def read(connection: sqlite3.Connection) -> list[Entry]:
            # One row more than entries: that of the newest may have none that is old enough.
            rows = connection.execute(sql.ENTRIES_OF_CONTEXT, (sid, before - 1, limit + 1))
            found = select_last(rows, limit, lambda entry: entry.type in CONTEXT_TYPES and entry.seq < before)
            return _whole(connection, sid, found)

        return await self._db.read(read)

    async def read_messages(self, sid: int, after: int, limit: int) -> list[Entry]:
        return await self._ascending(sql.ENTRIES_OF_MESSAGES, sid, after, limit, lambda entry: entry.type in MESSAGE_TYPES)

    async def _ascending(
        self, statement: str, sid: int, after: int, limit: int, wanted: Callable[[Entry], bool], *more: object
    ) -> list[Entry]:
        """Up to `limit` wanted entries. The rows are taken one by one, so none is read for nothing."""

        def read(connection: sqlite3.Connection) -> list[Entry]:
            rows = connection.execute(statement, (sid, after, *more, -1))
            return _whole(connection, sid, select(rows, limit, lambda entry: entry.seq > after and wanted(entry)))

        return await self._db.read(read)

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

    async def read_blobs(self, sid: int, digests: Sequence[str]) -> Mapping[str, bytes]:
        return await self._db.read(lambda connection: _blobs(connection, sid, digests))

    async def collect_blobs(self) -> int:
        def collect(connection: sqlite3.Connection, now: int) -> int:
            connection.execute(sql.KEYS_FORGET, (now - KEY_KEEP_MS,))
            return connection.execute(sql.BLOBS_COLLECT, (now - BLOB_KEEP_MS,)).rowcount

        return await self._db.write(collect)


def session_by_sid(connection: sqlite3.Connection, sid: int) -> SessionRow | None:
    """The session's row, or None."""
    row = connection.execute(sql.SESSION, (sid,)).fetchone()
    return None if row is None else SessionRow(*row)


def session_newest(connection: sqlite3.Connection, where: Where) -> SessionRow | None:
    """The newest session of that name, deleted or not: if any lives, it is that one."""
    row = connection.execute(sql.SESSION_NEWEST, where).fetchone()
    return None if row is None else SessionRow(*row)


def write_session(connection: sqlite3.Connection, before: SessionRow, after: SessionRow, reader: int) -> None:
    """Write what changed of a session's row, whose new entries need `reader`, and whether it is held."""
    grown = (after.last_seq, after.queued, after.updated_at_ms, reader)
    moved = (after.state, after.fence, after.owner, after.wake_at_ms, after.turn_id)
    if moved == (before.state, before.fence, before.owner, before.wake_at_ms, before.turn_id):
        connection.execute(sql.SESSION_GROWS, (*grown, after.sid))
    else:
        connection.execute(sql.SESSION_MOVES, (*grown, *moved, after.sid))
        if before.owner is not None and after.owner is None:
            connection.execute(sql.HELD_DROP, (after.sid,))
        elif before.owner is None and after.owner is not None:
            connection.execute(sql.HELD_PUT, (after.sid, after.owner))


def write_entries(
    connection: sqlite3.Connection, session: SessionRow, entries: Sequence[NewEntry], append_id: str | None, now: int
) -> None:
    """One row of the journal for `entries`, if there are any, after the end of `session` (its row before the write)."""
    if not entries:
        return
    last_seq, mark = session.last_seq + len(entries), None if append_id is None else uuid_bytes(append_id)
    types = bits([new.type for new in entries])
    connection.execute(sql.JOURNAL_INSERT, (session.sid, last_seq, now, types, mark, pack(entries)))
    for new in entries:
        for digest in new.blobs:
            connection.execute(sql.BLOB_KEEP, (session.namespace, digest))


def _commit(connection: sqlite3.Connection, batch: Sequence[Append], now: int) -> list[Appended | Exception]:
    return [_append(connection, append, now) for append in batch]


def _append(connection: sqlite3.Connection, append: Append, now: int) -> Appended | Exception:
    session = session_by_sid(connection, append.sid)
    refused = refusal(session, append)
    # What was written before is refused by its guard, or was the newest one without any.
    if append.entries and (refused is not None or append.if_last_seq is None):
        written = _written_before(connection, append)
        if written is not None and session is not None:
            last_seq, at_ms = written
            return Appended(append.sid, last_seq - len(append.entries), at_ms, session.wake_at_ms is not None)
    if refused is not None:
        return refused
    assert session is not None, "an unknown session is refused"
    write_entries(connection, session, append.entries, append.id, now)
    after = apply_append(session, append, now)
    write_session(connection, session, after, min_reader(append.entries))
    if append.entries and append.if_last_seq is None:
        connection.execute(sql.SESSION_UNGUARDED, (uuid_bytes(append.id), session.sid))
    _write_projections(connection, after, append, now)
    return Appended(session.sid, session.last_seq, now, after.wake_at_ms is not None)


def _written_before(connection: sqlite3.Connection, append: Append) -> tuple[int, int] | None:
    """(last seq, time) of the append if it is in the journal."""
    mark = uuid_bytes(append.id)
    if append.if_last_seq is None:
        return connection.execute(sql.APPEND_UNGUARDED, (append.sid, mark)).fetchone()
    return connection.execute(sql.APPEND_AT, (append.sid, append.if_last_seq + len(append.entries), mark)).fetchone()


def _write_projections(connection: sqlite3.Connection, session: SessionRow, append: Append, now: int) -> None:
    sid = session.sid
    turn_id = session.turn_id if append.turn is None else append.turn.turn_id
    if append.turn is not None:
        _write_turn(connection, sid, append.turn, now)
    if append.drained:
        connection.execute(sql.TURN_DRAINED, (turn_id, sid))
    for turn in append.queue:
        write_turn(connection, requeued_turn(session, turn, now))
    if append.fragments:
        connection.executemany(
            sql.FRAGMENT_INSERT, [(sid, piece.seq, piece.kind, piece.offset, piece.text.encode()) for piece in append.fragments]
        )
    for seq in append.drop_fragments:
        connection.execute(sql.FRAGMENTS_DROP, (sid, seq))
    if append.cancel_approvals:
        # Those that come with this append are about what is still to be found out: they stay open.
        connection.execute(sql.APPROVALS_CANCEL, (now, sid, turn_id))
    for new in append.approvals:
        values = (new.id, sid, session.namespace, new.turn_id, new.call, new.kind, new.payload, now)
        connection.execute(sql.APPROVAL_INSERT, values)


def write_turn(connection: sqlite3.Connection, turn: TurnRow) -> None:
    """Insert the row of a turn."""
    connection.execute(sql.TURN_INSERT, (*values_of(turn), turn.state == "queued"))


def _write_turn(connection: sqlite3.Connection, sid: int, change: TurnChange, now: int) -> None:
    started = now if change.state == "running" else None
    ended = now if change.state in _END_STATES else None
    values = (change.revision, change.reason, change.waiting_for, change.loop, change.input_tokens, change.output_tokens)
    times = (change.progress, change.state, started, ended)
    connection.execute(sql.TURN_CHANGED, (*values, *times, change.turn_id, sid))


def values_of(row: Any) -> tuple[Any, ...]:
    """The values of a row struct in the order of its fields."""
    return tuple(getattr(row, name) for name in row.__struct_fields__)


def _whole(connection: sqlite3.Connection, sid: int, found: Sequence[Found]) -> list[Entry]:
    """The entries with their payloads; nearly all hold them themselves, and look for none."""
    digests = {digest for _, digest in found if digest}
    blobs = _blobs(connection, sid, digests)
    return [with_payload(one, blobs) for one in found]


def _blobs(connection: sqlite3.Connection, sid: int, digests: Iterable[str]) -> dict[str, bytes]:
    return {digest: row[0] for digest in digests if (row := connection.execute(sql.BLOB, (digest, sid)).fetchone())}


def _marks(count: int) -> str:
    return ", ".join("?" * count)
