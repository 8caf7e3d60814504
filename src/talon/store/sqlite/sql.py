"""Every statement of the SQLite store, by topic. Rows come back in the order of their struct's fields.

No RETURNING: Pythons on older systems bring an SQLite before 3.35.
"""

from __future__ import annotations

from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.model import WorkerRow
from talon.store.pack import CONTEXT_BITS, MESSAGE_BITS


def columns(row: type, table: str = "") -> str:
    """The fields of a row struct, of `table` if one is named."""
    prefix = f"{table}." if table else ""
    return ", ".join(prefix + name for name in row.__struct_fields__)  # type: ignore[attr-defined]


_SESSION, _TURN, _APPROVAL = columns(SessionRow), columns(TurnRow), columns(ApprovalRow)

# --- the journal -----------------------------------------------------------------------------------------------------------

SESSION = f"SELECT {_SESSION} FROM sessions WHERE sid = ?"
# What an append or an inbox write does to its session. The first is for the many that only make the journal longer: it
# touches no index.
SESSION_GROWS = "UPDATE sessions SET last_seq = ?, queued = ?, updated_at_ms = ?, min_reader = max(min_reader, ?) WHERE sid = ?"
SESSION_MOVES = """
UPDATE sessions SET last_seq = ?, queued = ?, updated_at_ms = ?, min_reader = max(min_reader, ?),
    state = ?, fence = ?, owner = ?, wake_at_ms = ?, turn_id = ?
WHERE sid = ?"""
SESSION_TOMBSTONE = "UPDATE sessions SET deleted_at_ms = ? WHERE sid = ?"

JOURNAL_INSERT = "INSERT INTO journal (sid, last_seq, at_ms, types, append_id, pack) VALUES (?, ?, ?, ?, ?, ?)"
# When an append was written that ends at this seq; or, if it came without a guard and no such one followed it, where it ends.
APPEND_AT = "SELECT last_seq, at_ms FROM journal WHERE sid = ? AND last_seq = ? AND append_id = ?"
APPEND_UNGUARDED = """
SELECT last_seq, at_ms FROM journal WHERE sid = ?1 AND append_id = ?2 AND (SELECT unguarded FROM sessions WHERE sid = ?1) = ?2
ORDER BY last_seq DESC LIMIT 1"""
SESSION_UNGUARDED = "UPDATE sessions SET unguarded = ? WHERE sid = ?"

FRAGMENT_INSERT = 'INSERT INTO fragments (sid, seq, kind, "offset", text) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING'
FRAGMENTS_DROP = "DELETE FROM fragments WHERE sid = ? AND seq = ?"
FRAGMENTS = 'SELECT seq, "offset", text, kind FROM fragments WHERE sid = ? AND seq = ? ORDER BY kind, "offset"'

_ROWS = "SELECT last_seq, at_ms, pack FROM journal WHERE sid = ?"
ENTRIES = f"{_ROWS} AND last_seq > ? ORDER BY last_seq LIMIT ?"
ENTRIES_OF_TYPES = f"{_ROWS} AND last_seq > ? AND (types & ?) <> 0 ORDER BY last_seq LIMIT ?"
ENTRIES_OF_TURN = f"{_ROWS} AND last_seq > ? ORDER BY last_seq"
# In the words of the partial indexes, or SQLite does not see that they apply. The newest row of interest is the one that holds the
# entry at the seq; it may go on behind it.
ENTRIES_OF_CONTEXT = f"""
SELECT last_seq, at_ms, pack FROM journal
WHERE sid = ?1 AND last_seq <= coalesce((SELECT min(last_seq) FROM journal WHERE sid = ?1 AND last_seq >= ?2), ?2)
AND (types & {CONTEXT_BITS}) <> 0 ORDER BY last_seq DESC LIMIT ?3"""
ENTRIES_OF_MESSAGES = f"{_ROWS} AND last_seq > ? AND (types & {MESSAGE_BITS}) <> 0 ORDER BY last_seq LIMIT ?"
TAILS = "SELECT sid, last_seq FROM sessions WHERE sid IN (%s)"

BLOB_PUT = """
INSERT INTO blobs (namespace, digest, key_id, payload, put_at_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (namespace, digest) DO UPDATE SET put_at_ms = excluded.put_at_ms"""
BLOB = "SELECT payload FROM blobs WHERE digest = ? AND namespace = (SELECT namespace FROM sessions WHERE sid = ?)"
BLOB_KEEP = "UPDATE blobs SET kept = 1 WHERE namespace = ? AND digest = ? AND NOT kept"
BLOBS_COLLECT = "DELETE FROM blobs WHERE put_at_ms < ? AND NOT kept"

# --- the projections beside it ---------------------------------------------------------------------------------------------

TURN_INSERT = f"INSERT INTO turns ({_TURN}, queued) VALUES ({', '.join('?' * len(TurnRow.__struct_fields__))}, ?)"
# The new values of a turn; null leaves one as it is.
TURN_CHANGED = """
UPDATE turns SET revision = coalesce(?, revision), reason = coalesce(?, reason), waiting_for = coalesce(?, waiting_for),
    loop = coalesce(?, loop), input_tokens = coalesce(?, input_tokens), output_tokens = coalesce(?, output_tokens),
    attempts = CASE WHEN ? THEN 0 ELSE attempts END, state = coalesce(?, state), started_at_ms = coalesce(started_at_ms, ?),
    ended_at_ms = coalesce(ended_at_ms, ?)
WHERE turn_id = ? AND sid = ?"""
TURN_DRAINED = "UPDATE turns SET attempts = max(attempts - 1, 0) WHERE turn_id = ? AND sid = ?"
TURN_STEERED = "UPDATE turns SET steered = steered + 1 WHERE turn_id = ? AND sid = ?"
TURN_CANCELLED = "UPDATE turns SET state = 'cancelled', queued = 0, reason = ?, ended_at_ms = ? WHERE turn_id = ? AND sid = ?"
TURN_CLAIMED = """
UPDATE turns SET state = 'running', queued = 0, attempts = attempts + 1, started_at_ms = coalesce(started_at_ms, ?),
    waiting_for = ''
WHERE turn_id = ?"""
TURN = f"SELECT {_TURN} FROM turns WHERE sid = ? AND turn_id = ?"
TURNS_QUEUED = f"SELECT {_TURN} FROM turns WHERE sid = ? AND queued ORDER BY priority DESC, seq LIMIT ?"
TURNS = f"SELECT {_TURN} FROM turns WHERE sid = ? AND (seq, turn_id) < (?, ?) ORDER BY seq DESC, turn_id DESC LIMIT ?"

APPROVAL_INSERT = """
INSERT INTO approvals (id, sid, namespace, turn_id, call, kind, state, payload, outcome, resolved_by, created_at_ms)
VALUES (?, ?, ?, ?, ?, ?, 'open', ?, '', '', ?) ON CONFLICT DO NOTHING"""
APPROVALS_CANCEL = """
UPDATE approvals SET state = 'cancelled', outcome = 'cancelled', resolved_at_ms = ?
WHERE sid = ? AND turn_id = ? AND state = 'open'"""
APPROVAL_RESOLVE = """
UPDATE approvals SET state = 'resolved', outcome = ?, resolved_by = ?, resolved_at_ms = ? WHERE id = ? AND sid = ?"""
APPROVAL_OF_SESSION = f"SELECT {_APPROVAL} FROM approvals WHERE id = ? AND sid = ?"
APPROVAL = f"""
SELECT {columns(ApprovalRow, "a")}, {columns(SessionRow, "s")} FROM approvals a JOIN sessions s USING (sid)
WHERE a.id = ? AND a.namespace = ?"""
_APPROVALS = f"""
SELECT {columns(ApprovalRow, "a")}, {columns(SessionRow, "s")} FROM approvals a JOIN sessions s USING (sid)
WHERE a.namespace = ? AND (a.created_at_ms, a.id) < (?, ?) AND s.deleted_at_ms IS NULL%s
ORDER BY a.created_at_ms DESC, a.id DESC LIMIT ?"""
APPROVALS, APPROVALS_IN_STATE = _APPROVALS % "", _APPROVALS % " AND a.state = ?"

KEY = "SELECT body_sha256, sid, session_uid, seq, turn_id, strategy FROM keys WHERE namespace = ? AND source = ? AND key = ?"
KEY_INSERT = """
INSERT INTO keys (namespace, source, key, body_sha256, sid, session_uid, seq, turn_id, strategy, at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
KEYS_FORGET = "DELETE FROM keys WHERE at_ms < ?"

# --- sessions ---------------------------------------------------------------------------------------------------------------

SESSION_NEWEST = f"SELECT {_SESSION} FROM sessions WHERE namespace = ? AND agent = ? AND id = ? ORDER BY first_seq DESC LIMIT 1"
# sid 0 is none: a null gives the next number.
SESSION_INSERT = f"""
INSERT INTO sessions ({_SESSION}, min_reader) VALUES (nullif(?, 0), {", ".join("?" * len(SessionRow.__struct_fields__))})"""
SESSION_PATCH = """
UPDATE sessions SET metadata = coalesce(?1, metadata), features = coalesce(?2, features), profile = coalesce(?3, profile),
    config = coalesce(?4, config), updated_at_ms = max(updated_at_ms, ?5)
WHERE sid = ?6"""
_SESSIONS = f"""
SELECT {_SESSION} FROM sessions WHERE namespace = ? AND sid < ? AND deleted_at_ms IS NULL%s ORDER BY sid DESC LIMIT ?"""
SESSIONS, SESSIONS_OF_AGENT = _SESSIONS % "", _SESSIONS % " AND agent = ?"

# --- dispatch ---------------------------------------------------------------------------------------------------------------

WORKER_PUT = """
INSERT INTO workers (id, name, expires_at_ms, draining, catalogue, started_at_ms) VALUES (?, ?, ?, 0, ?, ?)
ON CONFLICT (id) DO UPDATE SET expires_at_ms = excluded.expires_at_ms, draining = 0, catalogue = excluded.catalogue"""
WORKER_BEAT = "UPDATE workers SET expires_at_ms = ?, draining = ? WHERE id = ?"
WORKER_ALIVE = "SELECT 1 FROM workers WHERE id = ? AND expires_at_ms > ?"
WORKER_END = "DELETE FROM workers WHERE id = ?"
WORKERS_EARLIER = "SELECT id FROM workers WHERE name = ? AND id <> ?"
WORKERS_EXPIRE = "DELETE FROM workers WHERE expires_at_ms <= ?"
WORKERS_END = "DELETE FROM workers"
WORKERS = f"SELECT {columns(WorkerRow)} FROM workers WHERE expires_at_ms > ? ORDER BY id"

# `held` has as many rows as turns run now, and is read whole.
OWNED = "SELECT s.sid, s.fence FROM held CROSS JOIN sessions s USING (sid) WHERE held.owner = ? ORDER BY held.sid"
HELD_PUT = "INSERT INTO held (sid, owner) VALUES (?, ?)"
HELD_DROP = "DELETE FROM held WHERE sid = ?"
# Sessions to give back, with the attempts of their turns: of a worker; of every boot of a name but one; of unknown workers; all.
_HELD = """
SELECT s.sid, coalesce(t.attempts, 0) FROM held CROSS JOIN sessions s USING (sid) LEFT JOIN turns t ON t.turn_id = s.turn_id
WHERE """
HELD_BY = _HELD + "held.owner = ?"
HELD_BY_EARLIER_BOOTS = _HELD + "substr(held.owner, 1, length(?1) + 1) = ?1 || '/' AND held.owner <> ?2"
HELD_BY_NOBODY = _HELD + "held.owner NOT IN (SELECT id FROM workers)"
HELD = _HELD + "1"
GIVE_BACK = "UPDATE sessions SET owner = NULL, wake_at_ms = ?, updated_at_ms = ? WHERE sid = ?"
# Sessions that were written later than now: the clock was set back, and would let them sleep until it has caught up.
WAKE_BY_THE_CLOCK = """
UPDATE sessions SET wake_at_ms = ?1 + max(0, wake_at_ms - updated_at_ms), updated_at_ms = ?1
WHERE wake_at_ms > ?1 AND updated_at_ms > ?1 + 1000"""

# A cross join is done in its own order; else SQLite reads all sessions in the order of the groups.
RUNNING = "SELECT namespace, agent, count(*) FROM held CROSS JOIN sessions USING (sid) GROUP BY namespace, agent"
# The namespaces with a wake-up, one index seek each.
NAMESPACES_AWAKE = """
WITH RECURSIVE awake (name) AS (
    SELECT min(namespace) FROM sessions WHERE wake_at_ms IS NOT NULL
    UNION ALL
    SELECT (SELECT min(namespace) FROM sessions WHERE wake_at_ms IS NOT NULL AND namespace > awake.name)
    FROM awake WHERE awake.name IS NOT NULL)
SELECT name FROM awake WHERE name IS NOT NULL"""
# The runnable sessions of a namespace, oldest first.
RUNNABLE = """
SELECT wake_at_ms, sid, agent, turn_id IS NOT NULL OR queued > 0 FROM sessions
WHERE namespace = ? AND wake_at_ms IS NOT NULL AND wake_at_ms <= ? AND min_reader <= ? ORDER BY wake_at_ms, sid"""
SESSION_CLAIMED = """
UPDATE sessions SET owner = ?, fence = fence + 1, state = 'running', wake_at_ms = NULL, turn_id = ?, queued = ?,
    updated_at_ms = ?
WHERE sid = ?"""
SESSION_SLEEPS = "UPDATE sessions SET wake_at_ms = NULL, state = 'idle' WHERE sid = ?"
NEXT_WAKE = "SELECT wake_at_ms FROM sessions WHERE wake_at_ms IS NOT NULL AND min_reader <= ? ORDER BY wake_at_ms LIMIT 1"
_NAMESPACE_ENDS = """
EXISTS (SELECT 1 FROM resources ends WHERE ends.kind = 'Namespace' AND ends.deleting_at_ms IS NOT NULL
    AND substr(?1 || ':', 1, length(ends.name) + 1) = ends.name || ':')"""
# The newest revision of an agent, and whether it, or a namespace above it, is being deleted: then no session of it begins.
AGENT_ENDS = f"""
SELECT revision, deleting_at_ms IS NOT NULL OR {_NAMESPACE_ENDS}
FROM resources WHERE kind = 'Agent' AND namespace = ?1 AND name = ?2"""
AGENT_REVISION = "SELECT revision FROM resources WHERE kind = 'Agent' AND namespace = ? AND name = ?"

DEFINITION_PUT = "INSERT INTO definitions (digest, body) VALUES (?, ?) ON CONFLICT DO NOTHING"
DEFINITION = "SELECT body FROM definitions WHERE digest = ?"

# --- the schema -------------------------------------------------------------------------------------------------------------

SCHEMA_IS_THERE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_info'"
SCHEMA_VERSION = "SELECT version, min_program FROM schema_info ORDER BY version DESC LIMIT 1"
SCHEMA_APPLIED = "INSERT INTO schema_info (version, min_program, at_ms) VALUES (?, ?, ?)"
# Changes nothing, and yet has to be written to the log and synced.
PING = "UPDATE schema_info SET at_ms = at_ms"
