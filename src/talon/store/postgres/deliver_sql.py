"""The statements of a delivery: lock and look, then write everything at once. `commit_sql` explains the forms of their joins."""

from __future__ import annotations

from talon.domain.bell import CHANNEL
from talon.domain.session import SessionRow, TurnRow
from talon.store.postgres.resources_sql import NAMESPACE_ENDS
from talon.store.postgres.rows import APPROVAL, NOW_MS, SESSION, TURN

_NO_SESSION = ", ".join(f"(NULL::sessions).{field}" for field in SessionRow.__struct_fields__)
#: What is known of a session that could be created: its place, and the number that it would get.
_FREE = {"sid": "nextval(pg_get_serial_sequence('sessions', 'sid'))", "namespace": "n.namespace", "agent": "n.agent", "id": "n.id"}
_NEW_SESSION = ", ".join(_FREE.get(field, f"(NULL::sessions).{field}") for field in SessionRow.__struct_fields__)
_KEY_FIELDS = ("namespace", "source", "key", "body_sha256", "sid", "session_uid", "seq", "turn_id", "strategy")
_KEY = ", ".join(f"k.{field}" for field in _KEY_FIELDS)
_NO_KEY = ", ".join(f"(NULL::keys).{field}" for field in _KEY_FIELDS)

#: The receipts that keys gave before, one row each, then the sessions, locked in id order, one row each, then the places of
#: `$6 … $8` that no session ever had. All begin with the time and end with the newest revision of the session's agent.
LOCK = f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS w(namespace, agent, id, source, key)
),
locked AS MATERIALIZED (
    SELECT {SESSION} FROM sessions s
    WHERE s.sid = ANY (ARRAY(
        SELECT f.sid FROM wanted w CROSS JOIN LATERAL (
            SELECT f.sid FROM sessions f
            WHERE f.namespace || '/' || f.agent || '/' || f.id = w.namespace || '/' || w.agent || '/' || w.id
              AND f.deleted_at_ms + 0 IS NULL LIMIT 1) f))
    ORDER BY s.sid
    FOR NO KEY UPDATE OF s
)
SELECT {NOW_MS}, {_KEY}, {_NO_SESSION}, NULL::int
FROM wanted w CROSS JOIN LATERAL (
    SELECT * FROM keys k WHERE k.namespace = w.namespace AND k.source = w.source AND k.key = w.key LIMIT 1) k
UNION ALL
SELECT {NOW_MS}, {_NO_KEY}, {SESSION},
    (SELECT r.revision FROM resources r WHERE r.namespace = s.namespace AND r.kind = 'Agent' AND r.name = s.agent)
FROM locked s WHERE s.deleted_at_ms IS NULL
UNION ALL
SELECT {NOW_MS}, {_NO_KEY}, {_NEW_SESSION},
    (SELECT r.revision FROM resources r WHERE r.namespace = n.namespace AND r.kind = 'Agent' AND r.name = n.agent
        AND r.deleting_at_ms IS NULL AND NOT {NAMESPACE_ENDS.format(namespace="n.namespace")})
FROM unnest($6::text[], $7::text[], $8::text[]) AS n(namespace, agent, id)
    LEFT JOIN LATERAL (
        SELECT f.sid FROM sessions f
        WHERE f.namespace || '/' || f.agent || '/' || f.id = n.namespace || '/' || n.agent || '/' || n.id LIMIT 1) f ON true
WHERE f.sid IS NULL"""
#: Where the session's columns begin in a row of `LOCK`.
LOCK_SESSION = 10

#: The open turns of locked sessions; read after the lock, so that nothing can have been added since.
OPEN_TURNS = f"""
SELECT {TURN} FROM unnest($1::bigint[]) AS n(sid) CROSS JOIN LATERAL (
    SELECT * FROM turns t WHERE t.sid = n.sid AND t.state IN ('queued', 'running', 'waiting')
    ORDER BY t.priority DESC, t.seq LIMIT 1000000) t
ORDER BY t.sid, t.priority DESC, t.seq"""

NAMED_APPROVALS = f"SELECT {APPROVAL} FROM approvals a WHERE a.id = ANY($1::text[])"

_SESSION_FIELDS = ("state", "last_seq", "fence", "owner", "wake_at_ms", "turn_id", "queued", "updated_at_ms", "deleted_at_ms")
SESSION_ARRAYS = ("sid", *_SESSION_FIELDS)
TURN_ARRAYS = TurnRow.__struct_fields__
assert set(SESSION_ARRAYS) <= set(SessionRow.__struct_fields__)

_SET = ", ".join(f"{field} = n.{field}" for field in _SESSION_FIELDS)
_TURNS = ", ".join(TURN_ARRAYS)
#: A session that begins with this delivery, and its `min_reader`.
BORN_ARRAYS = SessionRow.__struct_fields__

_WRITE = f"""
WITH moved AS (
    UPDATE sessions s SET {_SET}, min_reader = greatest(s.min_reader, n.min_reader)
    FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], $9::text[], $10::int[],
        $11::bigint[], $12::bigint[], $13::int[]) AS n({", ".join(SESSION_ARRAYS)}, min_reader)
    WHERE s.sid = ANY (ARRAY[n.sid])
),
written AS (
    INSERT INTO entries (at_ms, sid, seq, append_id, turn_id, type, payload, blob, key_id, traceparent, v, min_reader)
    SELECT $1, n.* FROM unnest($14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::text[], $19::bytea[], $20::text[],
        $21::text[], $22::text[], $23::int[], $24::int[]) AS n
),
queued AS (
    INSERT INTO turns ({_TURNS})
    SELECT * FROM unnest($25::text[], $26::bigint[], $27::bigint[], $28::text[], $29::text[], $30::text[], $31::int[], $32::int[],
        $33::int[], $34::text[], $35::text[], $36::bytea[], $37::bigint[], $38::bigint[], $39::bigint[], $40::bigint[],
        $41::bigint[], $42::int[])
),
ended AS (
    UPDATE turns t SET state = 'cancelled', reason = n.reason, ended_at_ms = $1
    FROM unnest($43::text[], $44::text[]) AS n(turn_id, reason)
    WHERE t.turn_id = ANY (ARRAY[n.turn_id])
),
steered AS (
    UPDATE turns t SET steered = t.steered + n.times
    FROM unnest($59::text[], $60::int[]) AS n(turn_id, times)
    WHERE t.turn_id = ANY (ARRAY[n.turn_id])
),
cancelled AS (
    UPDATE approvals a SET state = 'cancelled', outcome = 'cancelled', resolved_at_ms = $1
    FROM unnest($45::bigint[], $46::text[]) AS n(sid, turn_id)
    WHERE a.sid = ANY (ARRAY[n.sid]) AND a.turn_id = ANY (ARRAY[n.turn_id]) AND a.state || '' = 'open' AND a.id <> ALL($47::text[])
),
resolved AS (
    UPDATE approvals a SET state = 'resolved', outcome = n.outcome, resolved_by = n.resolved_by, resolved_at_ms = $1
    FROM unnest($47::text[], $48::text[], $49::text[]) AS n(id, outcome, resolved_by)
    WHERE a.id = ANY (ARRAY[n.id])
),
remembered AS (
    INSERT INTO keys (at_ms, namespace, source, key, body_sha256, sid, session_uid, seq, turn_id, strategy)
    SELECT $1, n.* FROM unnest($50::text[], $51::text[], $52::text[], $53::text[], $54::bigint[], $55::text[], $56::bigint[],
        $57::text[], $58::text[]) AS n
)"""
_BORN = f""",
born AS (
    INSERT INTO sessions ({", ".join(BORN_ARRAYS)}, min_reader) OVERRIDING SYSTEM VALUE
    SELECT n.* FROM unnest($61::bigint[], $62::text[], $63::text[], $64::text[], $65::text[], $66::text[], $67::bigint[],
        $68::bigint[], $69::bigint[], $70::text[], $71::bigint[], $72::text[], $73::int[], $74::bytea[], $75::bytea[], $76::text[],
        $77::text[], $78::bigint[], $79::bigint[], $80::bigint[], $81::int[]) AS n
)"""
_BELL = f"""
SELECT pg_notify('{CHANNEL}', $2::text) WHERE $2::text <> ''"""
#: Everything that a batch of operations writes, by whether sessions begin with it. $1 is the time of the whole batch, $2 the bell
#: (empty: none is rung).
WRITE = {born: _WRITE + (_BORN if born else "") + _BELL for born in (False, True)}

#: Wait for whoever holds a session; the answer to `FOUND` is final afterwards.
WAIT = "SELECT FROM sessions WHERE sid = $1 FOR NO KEY UPDATE"
#: What stands where a delivery whose answer was lost would have written its first entry, and the row it would have left.
FOUND = f"""
SELECT (SELECT e.append_id FROM entries e WHERE e.sid = s.sid AND e.seq = $2), {SESSION} FROM sessions s WHERE s.sid = $1"""
