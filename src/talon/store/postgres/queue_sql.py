"""The statements of dispatch: workers, claims, giving back. `commit_sql` explains the forms of their joins."""

from __future__ import annotations

from talon.domain.bell import CHANNEL
from talon.store.inbox_apply import BACKOFF_MS
from talon.store.postgres.rows import NOW_MS, SESSION, TURN, WORKER

REGISTER = f"""
INSERT INTO workers AS w (id, name, expires_at_ms, draining, catalogue, started_at_ms)
VALUES ($1, $2, {NOW_MS} + $3::bigint, false, $4, {NOW_MS})
ON CONFLICT (id) DO UPDATE SET expires_at_ms = excluded.expires_at_ms, draining = false, catalogue = excluded.catalogue"""

FORGET_BOOTS = "DELETE FROM workers WHERE name = $1 AND id <> $2"

HEARTBEAT = f"UPDATE workers SET expires_at_ms = {NOW_MS} + $2::bigint, draining = $3 WHERE id = $1 RETURNING id"

#: Take workers out whose lease has ended; a heartbeat that comes at the same moment either keeps the row or finds it gone.
EXPIRE = f"DELETE FROM workers WHERE expires_at_ms <= {NOW_MS}"

#: Sessions that were written later than now: the clock was set back, and would let them sleep until it has caught up.
WAKE_BY_THE_CLOCK = f"""
WITH early AS MATERIALIZED (
    SELECT s.sid FROM sessions s WHERE s.wake_at_ms > {NOW_MS} AND s.updated_at_ms > {NOW_MS} + 1000
    ORDER BY s.sid FOR NO KEY UPDATE OF s SKIP LOCKED
)
UPDATE sessions s SET wake_at_ms = {NOW_MS} + greatest(0, s.wake_at_ms - s.updated_at_ms), updated_at_ms = {NOW_MS}
FROM early y WHERE s.sid = ANY (ARRAY[y.sid])"""

RETIRE = "DELETE FROM workers WHERE id = $1"

WORKERS = f"SELECT {WORKER} FROM workers w WHERE w.expires_at_ms > {NOW_MS} ORDER BY w.id"

OWNED = """
SELECT s.sid, s.fence FROM (SELECT h.sid FROM held h WHERE h.owner = $1 OFFSET 0) h JOIN sessions s ON s.sid = ANY (ARRAY[h.sid])
WHERE s.owner = $1 ORDER BY s.sid"""

#: In ms from now, of the sessions that this program can fold; the wake-ups are few, and the first one is the answer.
NEXT_WAKE = f"""
SELECT greatest(0, s.wake_at_ms - {NOW_MS}) FROM sessions s
WHERE s.wake_at_ms IS NOT NULL AND s.min_reader <= $1 ORDER BY s.wake_at_ms LIMIT 1"""

PUT_DEFINITION = "INSERT INTO definitions (digest, body) VALUES ($1, $2) ON CONFLICT DO NOTHING"
GET_DEFINITION = "SELECT body FROM definitions WHERE digest = $1"

#: Claims under caps run one after the other: each has to count what the one before took.
CLAIM_LOCK = "SELECT pg_advisory_xact_lock(7441002, 1)"

_BACKOFF = f"(ARRAY{list(BACKOFF_MS)}::bigint[])[least(coalesce(t.attempts, 0), {len(BACKOFF_MS) - 1}) + 1]"


def _give_back(whose: str, wait_ms: str) -> str:
    """Sessions whose owner is gone become runnable after `wait_ms`; their turn goes on as it stands. One bell if there were any."""
    return f"""
WITH theirs AS MATERIALIZED (
    SELECT h.sid, h.owner FROM held h WHERE {whose}
),
lost AS MATERIALIZED (
    SELECT s.sid, s.turn_id FROM theirs h JOIN sessions s ON s.sid = ANY (ARRAY[h.sid])
    WHERE s.owner = ANY (ARRAY[h.owner]) ORDER BY s.sid FOR NO KEY UPDATE OF s
),
let_go AS (
    DELETE FROM held h USING lost l WHERE h.sid = ANY (ARRAY[l.sid])
),
freed AS (
    UPDATE sessions s SET owner = NULL, wake_at_ms = {NOW_MS} + {wait_ms}, updated_at_ms = {NOW_MS}
    FROM lost l LEFT JOIN LATERAL (SELECT t.attempts FROM turns t WHERE t.turn_id = l.turn_id LIMIT 1) t ON true
    WHERE s.sid = ANY (ARRAY[l.sid])
    RETURNING s.sid
),
counted AS MATERIALIZED (SELECT count(*) AS freed FROM freed),
rung AS MATERIALIZED (SELECT pg_notify('{CHANNEL}', 'r') FROM counted WHERE freed > 0 AND $1::boolean)
SELECT c.freed, (SELECT count(*) FROM rung) FROM counted c"""


#: $1 notify: the sessions of workers that are not registered any more.
GIVE_BACK_LOST = _give_back("NOT EXISTS (SELECT FROM workers w WHERE w.id = h.owner)", _BACKOFF)
#: $1 notify, $2 worker.
GIVE_BACK_RETIRED = _give_back("h.owner = $2", _BACKOFF)
#: $1 notify, $2 worker: those of earlier boots of its name, at once. `name/` begins their owner, and `0` follows `/`.
GIVE_BACK_BOOTS = _give_back(
    "h.owner > split_part($2, '/', 1) || '/' AND h.owner < split_part($2, '/', 1) || '0' AND h.owner <> $2", "0"
)

# $1 worker, $2 slots, $3 reader, $4 cap per namespace, $5 cap per agent (0: none).
#
# Runnable sessions are looked for once per (namespace, agent) that has wake-ups, from one index: a long queue of one agent costs
# the others nothing. Each candidate gets the number of turns that its namespace would be running with it; the lowest number goes
# first, then the oldest. A candidate is taken if its row is, when it is locked, still the one that was looked at: so what was
# read beside it, its turns above all, is true.
CLAIM = f"""
WITH RECURSIVE worker AS MATERIALIZED (
    SELECT FROM workers w WHERE w.id = $1 AND w.expires_at_ms > {NOW_MS}
),
places AS (
    (SELECT s.namespace, s.agent FROM sessions s, worker
     WHERE s.wake_at_ms IS NOT NULL ORDER BY s.namespace, s.agent LIMIT 1)
    UNION ALL
    SELECT n.namespace, n.agent FROM places p CROSS JOIN LATERAL (
        SELECT s.namespace, s.agent FROM sessions s
        WHERE s.wake_at_ms IS NOT NULL AND (s.namespace, s.agent) > (p.namespace, p.agent)
        ORDER BY s.namespace, s.agent LIMIT 1) n
),
running AS MATERIALIZED (
    SELECT s.namespace, s.agent, count(*) AS turns FROM held h JOIN sessions s ON s.sid = ANY (ARRAY[h.sid])
    GROUP BY s.namespace, s.agent
),
runnable AS (
    SELECT c.*, p.namespace, row_number() OVER (PARTITION BY p.namespace, p.agent ORDER BY c.wake_at_ms, c.sid)
        + coalesce((SELECT r.turns FROM running r WHERE r.namespace = p.namespace AND r.agent = p.agent), 0) AS of_agent
    FROM places p CROSS JOIN LATERAL (
        SELECT s.sid, s.wake_at_ms, s.fence, s.last_seq FROM sessions s
        WHERE s.namespace = p.namespace AND s.agent = p.agent AND s.wake_at_ms <= {NOW_MS} AND s.min_reader <= $3
        ORDER BY s.wake_at_ms LIMIT $2::int + 8) c
),
ranked AS (
    SELECT a.*, row_number() OVER (PARTITION BY a.namespace ORDER BY a.wake_at_ms, a.sid)
        + coalesce((SELECT sum(r.turns) FROM running r WHERE r.namespace = a.namespace), 0) AS of_namespace
    FROM runnable a WHERE $5::int = 0 OR a.of_agent <= $5::int
),
chosen AS MATERIALIZED (
    SELECT s.sid, s.turn_id FROM ranked c JOIN sessions s ON s.sid = ANY (ARRAY[c.sid])
    WHERE ($4::int = 0 OR c.of_namespace <= $4::int)
      AND s.owner IS NULL AND s.fence = c.fence AND s.last_seq = c.last_seq AND coalesce(s.wake_at_ms, -1) = c.wake_at_ms
    ORDER BY c.of_namespace, c.wake_at_ms, c.sid
    LIMIT $2::int
    FOR NO KEY UPDATE OF s SKIP LOCKED
),
found AS MATERIALIZED (
    SELECT c.sid, t.turn_id, t.state AS was, c.turn_id IS NULL AS queued
    FROM chosen c CROSS JOIN LATERAL (
        (SELECT t.turn_id, t.state FROM turns t WHERE t.turn_id = c.turn_id LIMIT 1)
        UNION ALL
        (SELECT t.turn_id, t.state FROM turns t WHERE c.turn_id IS NULL AND t.sid = c.sid AND t.queued
        ORDER BY t.priority DESC, t.seq LIMIT 1)) t
),
begun AS (
    UPDATE turns t SET state = 'running', queued = false, attempts = t.attempts + 1, waiting_for = '',
        started_at_ms = coalesce(t.started_at_ms, {NOW_MS})
    FROM found f WHERE t.turn_id = ANY (ARRAY[f.turn_id])
    RETURNING {TURN}, f.was
),
taken AS (
    UPDATE sessions s SET state = 'running', owner = $1, fence = s.fence + 1, wake_at_ms = NULL, turn_id = f.turn_id,
        queued = s.queued - CASE WHEN f.queued THEN 1 ELSE 0 END, updated_at_ms = {NOW_MS}
    FROM found f WHERE s.sid = ANY (ARRAY[f.sid])
    RETURNING {SESSION}
),
taken_down AS (
    INSERT INTO held (sid, owner) SELECT k.sid, $1 FROM taken k
),
-- Woken, and nothing to do.
asleep AS (
    UPDATE sessions s SET wake_at_ms = NULL FROM chosen c
    WHERE s.sid = ANY (ARRAY[c.sid]) AND NOT EXISTS (SELECT FROM found f WHERE f.sid = c.sid)
)
SELECT {SESSION}, {TURN}, t.was,
    coalesce((SELECT r.revision FROM resources r WHERE r.kind = 'Agent' AND r.namespace = s.namespace AND r.name = s.agent), 0)
FROM taken s JOIN begun t ON t.sid = s.sid JOIN ranked c ON c.sid = s.sid
ORDER BY c.of_namespace, c.wake_at_ms, c.sid"""
