"""The one statement of a group commit (kernel §4), in three sizes, each with or without NOTIFY: most batches need the smallest,
and what a statement could do costs time even where it does nothing.

What it decides it decides from columns of the locked session rows: a subquery would see the snapshot from before the lock, and
lose a message that was queued in between. PostgreSQL re-reads a row that changed while its lock was awaited, in `locked` as well
as in `moved`, so both see the newest version.

The plan is made once, perhaps on empty tables, so it must not depend on their sizes. Two forms leave the planner no choice but to
look each row up by an index: `CROSS JOIN LATERAL (… LIMIT 1)` where rows are read, and `column = ANY (ARRAY[value])` where they are
changed, which can be neither hashed nor merged. The small joins of the batch with itself are free to be hashed.
"""

from __future__ import annotations

from enum import IntEnum

from talon.domain.bell import CHANNEL, WIRE_MAX
from talon.store.postgres.rows import NOW_MS


class Size(IntEnum):
    """What a batch needs of the statement; each size has the parts of those before it."""

    STEPS = 0
    FRAGMENTS = 1
    ALL = 2


#: One row per append of the batch, per turn that changes, per entry. The order of the arguments is the order of the arrays.
_BATCH = """
batch AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[], $7::int[], $8::int[], $9::text[],
        $10::bigint[], $11::boolean[])
    AS b(ord, append_id, sid, fence, if_last_seq, entries, min_reader, queue, hold, wake_in_ms, touches)
),
-- The sessions whose fence matches, locked in id order: batches that overlap cannot deadlock.
locked AS MATERIALIZED (
    SELECT b.ord, s.sid, s.last_seq, s.owner, s.turn_id, s.namespace, s.key_id, s.wake_at_ms
    FROM batch b JOIN sessions s ON s.sid = ANY (ARRAY[b.sid])
    WHERE s.fence = b.fence
    ORDER BY s.sid
    FOR NO KEY UPDATE OF s
),
-- Appends whose first answer was lost.
repeated AS MATERIALIZED (
    SELECT b.ord, f.base, f.at_ms
    FROM batch b CROSS JOIN LATERAL (
        SELECT e.sid, e.seq - 1 AS base, e.at_ms FROM entries e WHERE e.append_id = b.append_id LIMIT 1) f
    WHERE f.sid = b.sid
),
ok AS MATERIALIZED (
    SELECT b.*, l.last_seq AS base, l.turn_id, l.namespace, l.key_id
    FROM locked l JOIN batch b ON b.ord = l.ord
    WHERE l.owner IS NOT NULL AND (b.if_last_seq IS NULL OR b.if_last_seq = l.last_seq)
      AND NOT EXISTS (SELECT FROM repeated r WHERE r.ord = b.ord)
),
moved AS (
    UPDATE sessions s SET
        last_seq = s.last_seq + o.entries,
        min_reader = greatest(s.min_reader, o.min_reader),
        queued = s.queued + o.queue,
        owner = CASE WHEN o.hold = 'keep' THEN s.owner END,
        turn_id = CASE WHEN o.hold = 'release' THEN NULL ELSE s.turn_id END,
        state = CASE o.hold
            WHEN 'release' THEN CASE WHEN s.queued + o.queue > 0 THEN 'queued' ELSE 'idle' END
            WHEN 'park' THEN 'waiting'
            ELSE s.state END,
        wake_at_ms = CASE o.hold
            WHEN 'release' THEN CASE WHEN s.queued + o.queue > 0 THEN {now} END
            WHEN 'park' THEN {now} + o.wake_in_ms
            WHEN 'give_back' THEN {now} + coalesce(o.wake_in_ms, 0)
            ELSE s.wake_at_ms END,
        updated_at_ms = {now}
    FROM ok o WHERE s.sid = ANY (ARRAY[o.sid]) AND o.touches
    RETURNING o.ord, s.wake_at_ms
),
turned AS (
    UPDATE turns t SET
        state = coalesce(c.state, t.state),
        revision = coalesce(c.revision, t.revision),
        reason = coalesce(c.reason, t.reason),
        waiting_for = coalesce(c.waiting_for, t.waiting_for),
        loop = coalesce(c.loop, t.loop),
        input_tokens = coalesce(c.input_tokens, t.input_tokens),
        output_tokens = coalesce(c.output_tokens, t.output_tokens),
        attempts = CASE WHEN c.progress THEN 0 WHEN c.drained THEN greatest(t.attempts - 1, 0) ELSE t.attempts END,
        started_at_ms = CASE WHEN c.state = 'running' THEN coalesce(t.started_at_ms, {now}) ELSE t.started_at_ms END,
        ended_at_ms = CASE WHEN c.state IN ('completed', 'failed', 'cancelled', 'denied') THEN {now} ELSE t.ended_at_ms END
    FROM unnest(
        $12::int[], $13::text[], $14::text[], $15::int[], $16::text[], $17::text[], $18::bytea[], $19::bigint[], $20::bigint[],
        $21::boolean[], $22::boolean[])
    AS c(ord, turn_id, state, revision, reason, waiting_for, loop, input_tokens, output_tokens, progress, drained)
    JOIN ok o ON o.ord = c.ord
    -- Found by its id; that it is the session's own is only checked (`+ 0`: by no index, a session may have many turns).
    WHERE t.turn_id = ANY (ARRAY[coalesce(c.turn_id, o.turn_id)]) AND t.sid + 0 = o.sid
),
written AS (
    INSERT INTO entries (sid, seq, append_id, turn_id, type, payload, blob, key_id, traceparent, v, min_reader, at_ms)
    SELECT o.sid, o.base + n.nth, CASE WHEN n.nth = 1 THEN o.append_id END, n.turn_id, n.type, n.payload, n.blob, o.key_id,
        n.traceparent, n.v, n.min_reader, {now}
    FROM unnest(
        $23::int[], $24::int[], $25::text[], $26::text[], $27::bytea[], $28::text[], $29::text[], $30::int[], $31::int[])
    AS n(ord, nth, turn_id, type, payload, blob, traceparent, v, min_reader)
    JOIN ok o ON o.ord = n.ord
)"""

#: Streamed text.
_FRAGMENTS = """,
dropped AS (
    DELETE FROM fragments f USING unnest($32::int[], $33::bigint[]) AS d(ord, seq) JOIN ok o ON o.ord = d.ord
    WHERE f.sid = ANY (ARRAY[o.sid]) AND f.seq = ANY (ARRAY[d.seq])
),
streamed AS (
    INSERT INTO fragments (sid, seq, kind, "offset", text)
    SELECT o.sid, f.seq, f.kind, f."offset", f.text
    FROM unnest($34::int[], $35::bigint[], $36::text[], $37::bigint[], $38::bytea[]) AS f(ord, seq, kind, "offset", text)
    JOIN ok o ON o.ord = f.ord
    ON CONFLICT DO NOTHING
)"""

#: Steering messages that become turns, and approvals: few batches have any.
_RARE = """,
queued AS (
    INSERT INTO turns (turn_id, sid, seq, state, strategy, source, priority, attempts, revision, reason, waiting_for, loop,
        input_tokens, output_tokens, created_at_ms)
    SELECT q.turn_id, o.sid, q.seq, 'queued', q.strategy, q.source, 0, 0, 0, '', '', '\\x7b7d', 0, 0, {now}
    FROM unnest($39::int[], $40::text[], $41::bigint[], $42::text[], $43::text[]) AS q(ord, turn_id, seq, strategy, source)
    JOIN ok o ON o.ord = q.ord
),
cancelled AS (
    UPDATE approvals a SET state = 'cancelled', outcome = 'cancelled', resolved_at_ms = {now}
    FROM unnest($44::int[], $45::text[]) AS c(ord, turn_id) JOIN ok o ON o.ord = c.ord
    WHERE a.sid = ANY (ARRAY[o.sid]) AND a.turn_id = ANY (ARRAY[coalesce(c.turn_id, o.turn_id)]) AND a.state || '' = 'open'
),
opened AS (
    INSERT INTO approvals (id, sid, namespace, turn_id, call, kind, state, payload, outcome, resolved_by, created_at_ms)
    SELECT p.id, o.sid, o.namespace, p.turn_id, p.call, p.kind, 'open', p.payload, '', '', {now}
    FROM unnest($46::int[], $47::text[], $48::text[], $49::int[], $50::text[], $51::bytea[])
    AS p(ord, id, turn_id, call, kind, payload)
    JOIN ok o ON o.ord = p.ord
)"""

#: One NOTIFY for the whole batch, in the form of `talon.domain.bell`.
_BELL = """,
bell AS (
    SELECT CASE WHEN length(w.wire) > {wire_max} THEN '*' ELSE w.wire END AS wire
    FROM (
        SELECT concat_ws(' ', (SELECT 'r' FROM moved m WHERE m.wake_at_ms <= {now} LIMIT 1),
            string_agg(o.sid || ':' || (o.base + o.entries), ' ')) AS wire
        FROM ok o
    ) w
    WHERE w.wire <> ''
),
rung AS MATERIALIZED (SELECT pg_notify('{channel}', bell.wire) FROM bell)"""

_ANSWER = """
SELECT b.ord, l.owner IS NOT NULL AS held, o.base AS base, {now} AS at_ms, r.base AS repeated_base, r.at_ms AS repeated_at_ms,
    coalesce(m.wake_at_ms, l.wake_at_ms) IS NOT NULL AS runnable{rung}
FROM batch b
LEFT JOIN locked l ON l.ord = b.ord
LEFT JOIN ok o ON o.ord = b.ord
LEFT JOIN moved m ON m.ord = b.ord
LEFT JOIN repeated r ON r.ord = b.ord"""


def _statement(size: Size, *, notify: bool) -> str:
    text = "WITH" + _BATCH + (_FRAGMENTS if size else "") + (_RARE if size == Size.ALL else "") + (_BELL if notify else "")
    text += _ANSWER.replace("{rung}", ", (SELECT count(*) FROM rung) AS rung" if notify else "")
    return text.format(now=NOW_MS, wire_max=WIRE_MAX, channel=CHANNEL)


#: (size, notify) -> statement
COMMIT = {(size, notify): _statement(size, notify=notify) for size in Size for notify in (False, True)}

#: The first answers of appends that are in the journal.
FIND_APPENDS = """
SELECT e.append_id, e.sid, e.seq - 1 AS base, e.at_ms, s.wake_at_ms IS NOT NULL AS runnable
FROM entries e JOIN sessions s ON s.sid = ANY (ARRAY[e.sid]) WHERE e.append_id = ANY($1::text[])"""
