"""Session, turn and approval rows, and their lists."""

from __future__ import annotations

import hashlib
from collections.abc import Set

from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.inbox_apply import check_agent, first_seq_after, min_reader, new_session_row
from talon.store.model import NewSession, SessionPatch
from talon.store.pack import bits, is_uuid, pack
from talon.store.paging import cursor_after, position_of
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.resources_sql import AGENT
from talon.store.postgres.rows import APPROVAL, NOW_MS, SESSION, TURN, approval_row, session_row, turn_row
from talon.store.postgres.walled import two_ways
from talon.store.protocols import Where

_LAST = 2**63 - 1
AGENT_LOCKS = 256
# A plan made on an empty table, and kept, may take any index that helps a little: one over the first column of a name, or over all
# living sessions, or the primary key for its order. So names and orders are looked up as expressions that one index knows.
_NAMED = "s.namespace || '/' || s.agent || '/' || s.id = $1 || '/' || $2 || '/' || $3"
# If any session of a name lives, it is the newest one.
_LIVING = f"s.sid = (SELECT s.sid FROM sessions s WHERE {_NAMED} ORDER BY s.first_seq DESC LIMIT 1) AND s.deleted_at_ms + 0 IS NULL"
_NEWEST = f"SELECT {NOW_MS}, {SESSION} FROM sessions s WHERE {_NAMED} ORDER BY s.first_seq DESC LIMIT 1"
_NOW = f"SELECT {NOW_MS}"
#: All columns but `sid`, which the database gives, and `deleted_at_ms`.
_NEW_FIELDS = [field for field in SessionRow.__struct_fields__ if field not in ("sid", "deleted_at_ms")]
_INSERT = f"""
INSERT INTO sessions AS s ({", ".join(_NEW_FIELDS)}, min_reader)
VALUES ({", ".join(f"${number}" for number in range(1, len(_NEW_FIELDS) + 2))})
ON CONFLICT DO NOTHING RETURNING {SESSION}"""
_HISTORY = "INSERT INTO journal (sid, last_seq, at_ms, types, pack) VALUES ($1, $2, $3, $4, $5)"
_KEEP = "UPDATE blobs b SET kept = true WHERE b.namespace = $1 AND b.digest = ANY ($2::text[])"
_GET = two_ways(
    f"SELECT {SESSION} FROM sessions s WHERE {_LIVING}",
    f"SELECT {SESSION} FROM sessions s WHERE s.sid = seen_session($1, $2, $3) AND s.deleted_at_ms IS NULL",
)
_GET_BY_SID = f"SELECT {SESSION} FROM sessions s WHERE s.sid = $1"
_PATCH = f"""
UPDATE sessions s SET metadata = coalesce($4, s.metadata), features = coalesce($5, s.features), profile = coalesce($6, s.profile),
    config = coalesce($7, s.config), updated_at_ms = greatest(s.updated_at_ms, {NOW_MS})
WHERE {_LIVING} RETURNING {SESSION}"""
_SEEN = f"""
SELECT {SESSION} FROM seen_sessions($1, {{agent}}, $2, $3) n CROSS JOIN LATERAL (
    SELECT * FROM sessions s WHERE s.sid = n.sid LIMIT 1) s
ORDER BY s.sid DESC"""
_LIST_OF_NAMESPACE = two_ways(
    f"""
SELECT {SESSION} FROM sessions s WHERE s.namespace || '/' = $1 || '/' AND -s.sid > -$2::bigint AND s.deleted_at_ms IS NULL
ORDER BY -s.sid LIMIT $3""",
    _SEEN.format(agent="''"),
)
_LIST_OF_AGENT = two_ways(
    f"""
SELECT {SESSION} FROM sessions s
WHERE s.namespace || '/' || s.agent = $1 || '/' || $4 AND -s.sid > -$2::bigint AND s.deleted_at_ms IS NULL
ORDER BY -s.sid LIMIT $3""",
    _SEEN.format(agent="$4"),
)
_GET_TURN = f"SELECT {TURN} FROM turns t WHERE t.turn_id = $2 AND t.sid = $1"
_LIST_TURNS = f"SELECT {TURN} FROM turns t WHERE t.sid = $1 AND t.seq < $2 ORDER BY t.seq DESC LIMIT $3"
_GET_APPROVAL = f"""
SELECT {APPROVAL}, {SESSION} FROM approvals a JOIN sessions s ON s.sid = a.sid WHERE a.id = $2 AND a.namespace = $1"""
_LIST_APPROVALS = f"""
SELECT {APPROVAL}, {SESSION} FROM approvals a JOIN sessions s ON s.sid = a.sid
WHERE a.namespace = $1 AND (a.created_at_ms, a.id) < ($2, $3) AND s.deleted_at_ms IS NULL
ORDER BY a.created_at_ms DESC, a.id DESC LIMIT $4"""
_LIST_APPROVALS_OF_STATE = _LIST_APPROVALS.replace("a.namespace = $1", "a.namespace = $1 AND a.state = $5")
_SESSION_AT = len(ApprovalRow.__struct_fields__)


def begin(exclusive: Set[int], shared: Set[int]) -> str:
    """Open a transaction and take advisory locks, in one order wherever several are taken, so that nobody waits in a circle.

    The numbers are ours, so the text is safe; together with BEGIN they are one round trip.
    """
    locks = "".join(
        f"SELECT pg_advisory_xact_lock{'' if number in exclusive else '_shared'}({number});"
        for number in sorted(exclusive | shared)
    )
    return f"BEGIN ISOLATION LEVEL READ COMMITTED;{locks}"


async def insert_session(connection: Connection, new: NewSession) -> tuple[SessionRow, bool]:
    """Create it, or find the living one of its name; -> (row, created). Inside a transaction; whether its agent is there, and
    stays, the caller finds out. Who creates the same name at the same moment is waited for.
    """
    while True:
        found = await connection.fetchrow(_NEWEST, new.namespace, new.agent, new.id)
        old = None if found is None else session_row(found, 1)
        if old is not None and old.deleted_at_ms is None:
            return old, False
        now = await connection.fetchval(_NOW) if found is None else found[0]
        row = new_session_row(0, new, first_seq_after(old), now)
        values = [getattr(row, field) for field in _NEW_FIELDS]
        inserted = await connection.fetchrow(_INSERT, *values, min_reader(new.history))
        if inserted is None:
            continue
        session = session_row(inserted)
        if new.history:
            types = bits(entry.type for entry in new.history)
            await connection.execute(_HISTORY, session.sid, session.last_seq, now, types, pack(new.history))
            await connection.execute(_KEEP, session.namespace, sorted({digest for entry in new.history for digest in entry.blobs}))
        return session, True


class PostgresSessions:
    """`Sessions`."""

    _db: Database

    async def create_session(self, new: NewSession) -> tuple[SessionRow, bool]:
        start = begin(frozenset(), {agent_lock(new.namespace, new.agent)})

        async def write(connection: Connection) -> tuple[SessionRow, bool]:
            await connection.execute(start)
            row, created = await insert_session(connection, new)
            if created:
                check_agent(new, await connection.fetchval(AGENT, new.namespace, new.agent))
            await connection.execute("COMMIT")
            return row, created

        return await self._db.pool.run(write, again=True)

    async def get_session(self, where: Where) -> SessionRow | None:
        row = await self._db.reads.fetchrow(_GET, *where)
        return None if row is None else session_row(row)

    async def get_session_by_sid(self, sid: int) -> SessionRow | None:
        row = await self._db.reads.fetchrow(_GET_BY_SID, sid)
        return None if row is None else session_row(row)

    async def patch_session(self, where: Where, patch: SessionPatch) -> SessionRow | None:
        row = await self._db.pool.fetchrow(_PATCH, *where, patch.metadata, patch.features, patch.profile, patch.config)
        return None if row is None else session_row(row)

    async def list_sessions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[SessionRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        statement, more = (_LIST_OF_AGENT, (agent,)) if agent else (_LIST_OF_NAMESPACE, ())
        rows = [session_row(row) for row in await self._db.reads.fetch(statement, namespace, before, limit + 1, *more)]
        return rows[:limit], cursor_after(rows[limit - 1].sid) if len(rows) > limit else ""

    async def get_turn(self, sid: int, turn_id: str) -> TurnRow | None:
        row = await self._db.reads.fetchrow(_GET_TURN, sid, turn_id) if is_uuid(turn_id) else None
        return None if row is None else turn_row(row)

    async def list_turns(self, sid: int, cursor: str, limit: int) -> tuple[list[TurnRow], str]:
        (before,) = position_of(cursor, int) or (_LAST,)
        rows = [turn_row(row) for row in await self._db.reads.fetch(_LIST_TURNS, sid, before, limit + 1)]
        return rows[:limit], cursor_after(rows[limit - 1].seq) if len(rows) > limit else ""

    async def get_approval(self, namespace: str, approval: str) -> tuple[ApprovalRow, SessionRow] | None:
        row = await self._db.reads.fetchrow(_GET_APPROVAL, namespace, approval)
        return None if row is None else (approval_row(row), session_row(row, _SESSION_AT))

    async def list_approvals(
        self, namespace: str, state: str, cursor: str, limit: int
    ) -> tuple[list[tuple[ApprovalRow, SessionRow]], str]:
        before = position_of(cursor, int, str) or (_LAST, "")
        statement, more = (_LIST_APPROVALS_OF_STATE, (state,)) if state else (_LIST_APPROVALS, ())
        found = await self._db.reads.fetch(statement, namespace, *before, limit + 1, *more)
        rows = [(approval_row(row), session_row(row, _SESSION_AT)) for row in found]
        if len(rows) <= limit:
            return rows, ""
        last = rows[limit - 1][0]
        return rows[:limit], cursor_after(last.created_at_ms, last.id)


def agent_lock(namespace: str, agent: str) -> int:
    """The advisory lock that the creation of a session shares, and the end of its agent has alone.

    Agents share `AGENT_LOCKS` of them: so the end of a whole namespace does not fill the server's table of locks.
    """
    return lock_of("agent", str(lock_of(namespace, agent) % AGENT_LOCKS))


def lock_of(*name: str) -> int:
    """A 64-bit number for an advisory lock; two names that share one only wait for each other."""
    text = "\0".join(name).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)
