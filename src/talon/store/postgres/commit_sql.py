"""The one statement of a group commit (kernel §4). It is put together of the parts that a batch needs.

What it decides it decides from columns of the session rows that it changes: a subquery would see the snapshot from before the lock,
and lose a message that was queued in between. PostgreSQL looks again at a row that changed while its lock was awaited, condition
and all, so what is decided is decided on the newest version.

The plan is made once, perhaps on empty tables, so it must not depend on their sizes. Two forms leave the planner no choice but to
look each row up by an index: `CROSS JOIN LATERAL (… LIMIT 1)` where rows are read, and `column = ANY (ARRAY[value])` where they are
changed, which can be neither hashed nor merged. Where there are several columns their values come from one relation (`OFFSET 0`
makes one of a join), or the planner may look up by one of them only. Small joins of the batch with itself are free to be hashed.
"""

from __future__ import annotations

from functools import cache

from talon.domain.bell import CHANNEL, WIRE_MAX
from talon.store.postgres.recordset import Part, Recordset
from talon.store.postgres.rows import NOW_MS

#: One row per append of the batch, with what it changes of its turn.
BATCH = Recordset(
    *("sid bigint", "fence bigint", "if_last_seq bigint", "append_id uuid", "entries int", "types bigint", "min_reader int"),
    *("pack bytea", "queue int", "hold text", "wake_in_ms bigint", "turn_id uuid", "state text", "revision int", "reason text"),
    *("waiting_for text", "loop bytea", "input_tokens bigint", "output_tokens bigint", "progress boolean", "drained boolean"),
)

#: What every commit does: the sessions whose fence matches take what is written.
MOVED = f"""
batch AS MATERIALIZED (SELECT * FROM {BATCH.sql(1)} AS b),
-- The batch is in the order of ids, and the sessions are found and locked one by one in that order: batches that overlap cannot
-- deadlock.
moved AS (
    UPDATE sessions s SET
        last_seq = s.last_seq + b.entries,
        unguarded = CASE WHEN b.entries > 0 AND b.if_last_seq IS NULL THEN b.append_id ELSE s.unguarded END,
        min_reader = greatest(s.min_reader, b.min_reader),
        queued = s.queued + b.queue,
        owner = CASE WHEN b.hold = 'keep' THEN s.owner END,
        turn_id = CASE WHEN b.hold = 'release' THEN NULL ELSE s.turn_id END,
        state = CASE b.hold
            WHEN 'release' THEN CASE WHEN s.queued + b.queue > 0 THEN 'queued' ELSE 'idle' END
            WHEN 'park' THEN 'waiting'
            ELSE s.state END,
        wake_at_ms = CASE b.hold
            WHEN 'release' THEN CASE WHEN s.queued + b.queue > 0 THEN {NOW_MS} END
            WHEN 'park' THEN {NOW_MS} + b.wake_in_ms
            WHEN 'give_back' THEN {NOW_MS} + coalesce(b.wake_in_ms, 0)
            ELSE s.wake_at_ms END,
        updated_at_ms = {NOW_MS}
    FROM batch b
    WHERE s.sid = ANY (ARRAY[b.sid]) AND s.fence = ANY (ARRAY[b.fence]) AND s.owner IS NOT NULL
        AND (b.if_last_seq IS NULL OR b.if_last_seq = s.last_seq) AND s.unguarded IS DISTINCT FROM b.append_id
    RETURNING s.sid, s.last_seq, s.namespace, s.turn_id, s.wake_at_ms
)"""

#: What a batch may need besides, in the order of the statement: changes of turns, journal rows, sessions that are let go; streamed
#: text; and, rarely, steering messages that become turns, approvals, and payloads in blobs.
PARTS = {
    "turned": Part(
        (),
        f"""
    UPDATE turns t SET
        state = coalesce(b.state, t.state),
        revision = coalesce(b.revision, t.revision),
        reason = coalesce(b.reason, t.reason),
        waiting_for = coalesce(b.waiting_for, t.waiting_for),
        loop = coalesce(b.loop, t.loop),
        input_tokens = coalesce(b.input_tokens, t.input_tokens),
        output_tokens = coalesce(b.output_tokens, t.output_tokens),
        attempts = CASE WHEN b.progress THEN 0 WHEN b.drained THEN greatest(t.attempts - 1, 0) ELSE t.attempts END,
        started_at_ms = CASE WHEN b.state = 'running' THEN coalesce(t.started_at_ms, {NOW_MS}) ELSE t.started_at_ms END,
        ended_at_ms = CASE WHEN b.state IN ('completed', 'failed', 'cancelled', 'denied') THEN {NOW_MS} ELSE t.ended_at_ms END
    FROM batch b JOIN moved m ON m.sid = b.sid
    -- Found by its id; that it is the session's own is only checked (`+ 0`: by no index, a session may have many turns).
    WHERE t.turn_id = ANY (ARRAY[coalesce(b.turn_id, CASE WHEN b.drained THEN m.turn_id END)]) AND t.sid + 0 = m.sid""",
    ),
    "written": Part(
        (),
        f"""
    INSERT INTO journal (sid, last_seq, at_ms, types, append_id, pack)
    SELECT m.sid, m.last_seq, {NOW_MS}, b.types, b.append_id, b.pack
    FROM batch b JOIN moved m ON m.sid = b.sid WHERE b.entries > 0""",
    ),
    "let_go": Part(
        (),
        """
    DELETE FROM held h USING batch b JOIN moved m ON m.sid = b.sid WHERE b.hold <> 'keep' AND h.sid = ANY (ARRAY[m.sid])""",
    ),
    "dropped": Part(
        ("sid bigint", "seq bigint"),
        """
    DELETE FROM fragments f USING {rows} JOIN moved m ON m.sid = n.sid
    WHERE f.sid = ANY (ARRAY[n.sid]) AND f.seq = ANY (ARRAY[n.seq])""",
    ),
    "streamed": Part(
        ("sid bigint", "seq bigint", "kind text", "offset bigint", "text bytea"),
        """
    INSERT INTO fragments (sid, seq, kind, "offset", text)
    SELECT m.sid, n.seq, n.kind, n."offset", n.text
    FROM {rows} JOIN moved m ON m.sid = n.sid
    ON CONFLICT DO NOTHING""",
    ),
    "queued": Part(
        ("sid bigint", "turn_id uuid", "seq bigint", "strategy text", "source text"),
        f"""
    INSERT INTO turns (turn_id, sid, seq, state, queued, strategy, source, priority, attempts, revision, reason, waiting_for, loop,
        input_tokens, output_tokens, created_at_ms)
    SELECT n.turn_id, m.sid, n.seq, 'queued', true, n.strategy, n.source, 0, 0, 0, '', '', '\\x7b7d', 0, 0, {NOW_MS}
    FROM {{rows}} JOIN moved m ON m.sid = n.sid""",
    ),
    "cancelled": Part(
        ("sid bigint", "turn_id uuid"),
        f"""
    UPDATE approvals a SET state = 'cancelled', outcome = 'cancelled', resolved_at_ms = {NOW_MS}
    FROM (SELECT m.sid, coalesce(n.turn_id, m.turn_id) AS turn_id FROM {{rows}} JOIN moved m ON m.sid = n.sid OFFSET 0) n
    WHERE a.sid = ANY (ARRAY[n.sid]) AND a.turn_id = ANY (ARRAY[n.turn_id]) AND a.state || '' = 'open'""",
    ),
    "opened": Part(
        ("sid bigint", "id text", "turn_id uuid", "call int", "kind text", "payload bytea"),
        f"""
    INSERT INTO approvals (id, sid, namespace, turn_id, call, kind, state, payload, outcome, resolved_by, created_at_ms)
    SELECT n.id, m.sid, m.namespace, n.turn_id, n.call, n.kind, 'open', n.payload, '', '', {NOW_MS}
    FROM {{rows}} JOIN moved m ON m.sid = n.sid""",
    ),
    "kept": Part(
        ("sid bigint", "digest text"),
        """
    UPDATE blobs b SET kept = true
    FROM (SELECT m.namespace, n.digest FROM {rows} JOIN moved m ON m.sid = n.sid OFFSET 0) n
    WHERE b.namespace = ANY (ARRAY[n.namespace]) AND b.digest = ANY (ARRAY[n.digest])""",
    ),
}

#: One NOTIFY for the whole batch, in the form of `talon.domain.bell`.
_BELL = f""",
bell AS (
    SELECT CASE WHEN length(w.wire) > {WIRE_MAX} THEN '*' ELSE w.wire END AS wire
    FROM (
        SELECT concat_ws(' ', (SELECT 'r' FROM moved m WHERE m.wake_at_ms <= {NOW_MS} LIMIT 1),
            string_agg(m.sid || ':' || m.last_seq, ' ')) AS wire
        FROM moved m
    ) w
    WHERE w.wire <> ''
),
rung AS MATERIALIZED (SELECT pg_notify('{CHANNEL}', bell.wire) FROM bell)"""


@cache
def commit(parts: tuple[str, ...], *, notify: bool) -> str:
    """The statement that commits a batch with `parts`, in the order of `PARTS`; -> sid, last_seq, at_ms and runnable of each
    session that was written. $1 is the batch, then come the rows of each part that has its own."""
    text, parameter = MOVED, 2
    for name in parts:
        text += f",\n{name} AS ({PARTS[name].sql(parameter)}\n)"
        parameter += PARTS[name].parameters
    rung = ", (SELECT count(*) FROM rung) AS rung" if notify else ""
    return f"""WITH{text}{_BELL if notify else ""}
SELECT m.sid, m.last_seq, {NOW_MS} AS at_ms, m.wake_at_ms IS NOT NULL AS runnable{rung} FROM moved m"""


#: Why appends were refused: whether their session is still held under their fence; and where those are that had been written
#: before, which is no refusal. A guarded one can only be where its guard let it in, `$4`; one without a guard (null) is known if it
#: is the newest such one of its session.
REFUSED = """
SELECT w.sid, s.fence = w.fence AND s.owner IS NOT NULL AS held, coalesce(g.last_seq, u.last_seq) AS last_seq,
    coalesce(g.at_ms, u.at_ms) AS at_ms, s.wake_at_ms IS NOT NULL AS runnable
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[]) AS w(sid, fence, append_id, last_seq)
    CROSS JOIN LATERAL (SELECT * FROM sessions s WHERE s.sid = w.sid LIMIT 1) s
    LEFT JOIN LATERAL (
        SELECT j.last_seq, j.at_ms FROM journal j WHERE j.sid = w.sid AND j.last_seq = w.last_seq AND j.append_id = w.append_id
        LIMIT 1) g ON true
    LEFT JOIN LATERAL (
        SELECT j.last_seq, j.at_ms FROM journal j
        WHERE j.sid = w.sid AND j.append_id = w.append_id AND w.last_seq IS NULL AND s.unguarded = w.append_id
        ORDER BY j.last_seq DESC LIMIT 1) u ON true"""
