"""The statements of a delivery: look without a lock, then write everything at once, where nothing has changed since.

What is written is guarded by the version of each session's row that was looked at (`xmin`: every change of a session, of its turns
and of its approvals changes its row too). A session that has changed meanwhile is left as it is, and its operations look again. So
nobody holds a lock while somebody decides, and a delivery is two round trips. `commit_sql` explains the forms of the joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from talon.domain.bell import CHANNEL, WIRE_MAX
from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.postgres.recordset import Part
from talon.store.postgres.resources_sql import NAMESPACE_ENDS
from talon.store.postgres.rows import APPROVAL, NOW_MS, SESSION, TURN

#: What is known of a session that could be created: its place, and the number that it would get.
_FREE = {"sid": "nextval(pg_get_serial_sequence('sessions', 'sid'))", "namespace": "n.namespace", "agent": "n.agent", "id": "n.id"}
_NEW_SESSION = ", ".join(_FREE.get(field, f"(NULL::sessions).{field}") for field in SessionRow.__struct_fields__)
_KEY_FIELDS = ("namespace", "source", "key", "body_sha256", "sid", "session_uid", "seq", "turn_id", "strategy")
_TURN_FIELDS, _APPROVAL_FIELDS = TurnRow.__struct_fields__, ApprovalRow.__struct_fields__


def _none(table: str, fields: tuple[str, ...]) -> str:
    return ", ".join(f"(NULL::{table}).{field}" for field in fields)


#: The columns of a row of `LOOK` are in five parts, of which it fills one: a receipt, a session, its agent's newest revision beside
#: it, a turn, an approval. The first column is the time.
_KEY = ", ".join(f"k.{field}" for field in _KEY_FIELDS)
_NO_KEY, _NO_SESSION = _none("keys", _KEY_FIELDS), _none("sessions", SessionRow.__struct_fields__) + ", NULL::xid, NULL::int"
_NO_TURN, _NO_APPROVAL = _none("turns", _TURN_FIELDS), _none("approvals", _APPROVAL_FIELDS)
LOOK_SESSION = 1 + len(_KEY_FIELDS)
LOOK_VERSION = LOOK_SESSION + len(SessionRow.__struct_fields__)
LOOK_TURN = LOOK_VERSION + 2
LOOK_APPROVAL = LOOK_TURN + len(_TURN_FIELDS)


def _newest(place: str) -> str:
    """The newest session of a name, living or not: if any lives, it is that one."""
    return f"""LATERAL (
        SELECT f.*, f.xmin AS version FROM sessions f
        WHERE f.namespace || '/' || f.agent || '/' || f.id = {place}.namespace || '/' || {place}.agent || '/' || {place}.id
        ORDER BY f.first_seq DESC LIMIT 1) s"""


def _revision(place: str) -> str:
    return f"""(
        SELECT r.revision FROM resources r WHERE r.namespace = {place}.namespace AND r.kind = 'Agent' AND r.name = {place}.agent"""


#: What a look is for. Places are always asked for: the sessions there with the versions of their rows, and the open turns of these
#: (the current one, and those that are queued). The rest some ask for besides: the receipts that keys gave before, the places that
#: no session ever had, approvals.
_LOOKS = {
    "places": Part(
        ("namespace text", "agent text", "id text"),
        f"""
WITH seen AS MATERIALIZED (
    SELECT s.* FROM {{rows}} CROSS JOIN {_newest("n")} WHERE s.deleted_at_ms IS NULL
)
SELECT {NOW_MS}, {_NO_KEY}, {SESSION}, s.version, {_revision("s")}), {_NO_TURN}, {_NO_APPROVAL} FROM seen s
UNION ALL
SELECT {NOW_MS}, {_NO_KEY}, {_NO_SESSION}, {TURN}, {_NO_APPROVAL} FROM seen s CROSS JOIN LATERAL (
    (SELECT * FROM turns t WHERE t.turn_id = s.turn_id LIMIT 1)
    UNION ALL
    (SELECT * FROM turns t WHERE t.sid = s.sid AND t.queued ORDER BY t.priority DESC, t.seq LIMIT 1000000)) t""",
    ),
    "keys": Part(
        ("namespace text", "source text", "key text"),
        f"""
SELECT {NOW_MS}, {_KEY}, {_NO_SESSION}, {_NO_TURN}, {_NO_APPROVAL} FROM {{rows}} CROSS JOIN LATERAL (
    SELECT * FROM keys k WHERE k.namespace = n.namespace AND k.source = n.source AND k.key = n.key LIMIT 1) k""",
    ),
    "free": Part(
        ("namespace text", "agent text", "id text"),
        f"""
SELECT {NOW_MS}, {_NO_KEY}, {_NEW_SESSION}, NULL::xid, {_revision("n")}
        AND r.deleting_at_ms IS NULL AND NOT {NAMESPACE_ENDS.format(namespace="n.namespace")}), {_NO_TURN}, {_NO_APPROVAL}
FROM {{rows}} LEFT JOIN {_newest("n")} ON true WHERE s.sid IS NULL""",
    ),
    "approvals": Part(
        ("id text",),
        f"""
SELECT {NOW_MS}, {_NO_KEY}, {_NO_SESSION}, {_NO_TURN}, {APPROVAL} FROM {{rows}}
    CROSS JOIN LATERAL (SELECT * FROM approvals a WHERE a.id = n.id LIMIT 1) a""",
    ),
}
LOOK_PARTS = tuple(_LOOKS)


@cache
def look(parts: tuple[str, ...]) -> str:
    """The statement that looks for `parts`, in that order; one, so one moment: what is refused was to be refused then.

    Its parameters are the rows of each part.
    """
    return "\nUNION ALL".join([_LOOKS[name].sql(number) for number, name in enumerate(parts, 1)])


_COLUMN_TYPES = {
    "uid": "uuid",
    "turn_id": "uuid",
    "metadata": "bytea",
    "features": "bytea",
    "loop": "bytea",
    "config": "bytea",
    **dict.fromkeys(("queued", "priority", "attempts", "revision", "steered"), "int"),
    **dict.fromkeys(("sid", "seq", "first_seq", "last_seq", "fence", "input_tokens", "output_tokens"), "bigint"),
    **dict.fromkeys(("wake_at_ms", "created_at_ms", "updated_at_ms", "deleted_at_ms", "started_at_ms", "ended_at_ms"), "bigint"),
}
_MOVED_FIELDS = ("state", "last_seq", "fence", "owner", "wake_at_ms", "turn_id", "queued", "updated_at_ms", "deleted_at_ms")
MOVED_ARRAYS, BORN_ARRAYS, TURN_ARRAYS = ("sid", *_MOVED_FIELDS), SessionRow.__struct_fields__, TurnRow.__struct_fields__


def _typed(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{field} {_COLUMN_TYPES.get(field, 'text')}" for field in fields)


#: $1 is the time of the whole batch. Sessions come in the order of their ids, and `done` are those that are written: everything
#: else follows them. A name that was taken meanwhile, or a key that was used, fails it all.
_PARTS = {
    "moved": Part(
        (*_typed(MOVED_ARRAYS), "min_reader int", "version xid"),
        f"""
    UPDATE sessions s
    SET {", ".join(f"{field} = n.{field}" for field in _MOVED_FIELDS)}, min_reader = greatest(s.min_reader, n.min_reader)
    FROM {{rows}} WHERE s.sid = ANY (ARRAY[n.sid]) AND s.xmin = ANY (ARRAY[n.version])
    RETURNING s.sid, s.last_seq, s.wake_at_ms""",
    ),
    "born": Part(
        (*_typed(BORN_ARRAYS), "min_reader int", "agent_lock bigint", "agent_revision int"),
        f"""
    INSERT INTO sessions ({", ".join(BORN_ARRAYS)}, min_reader) OVERRIDING SYSTEM VALUE
    SELECT {", ".join(f"n.{field}" for field in BORN_ARRAYS)}, n.min_reader FROM {{rows}}
    WHERE agent_stays(n.agent_lock, n.namespace, n.agent, n.agent_revision)
    RETURNING sid, last_seq, wake_at_ms""",
    ),
    "written": Part(
        ("sid bigint", "last_seq bigint", "types bigint", "append_id uuid", "pack bytea"),
        """
    INSERT INTO journal (at_ms, sid, last_seq, types, append_id, pack) SELECT $1, n.* FROM {rows} JOIN done d ON d.sid = n.sid""",
    ),
    "held": Part(
        ("sid bigint", "owner text"),
        """
    INSERT INTO held (sid, owner) SELECT n.* FROM {rows} JOIN done d ON d.sid = n.sid""",
    ),
    "queued": Part(
        _typed(TURN_ARRAYS),
        f"""
    INSERT INTO turns ({", ".join(TURN_ARRAYS)}, queued)
    SELECT n.*, n.state = 'queued' FROM {{rows}} JOIN done d ON d.sid = n.sid""",
    ),
    "ended": Part(
        ("sid bigint", "turn_id uuid", "reason text", "times int"),
        """
    UPDATE turns t SET state = 'cancelled', queued = false, reason = n.reason, steered = t.steered + n.times, ended_at_ms = $1
    FROM {rows} JOIN done d ON d.sid = n.sid WHERE t.turn_id = ANY (ARRAY[n.turn_id])""",
    ),
    "steered": Part(
        ("sid bigint", "turn_id uuid", "times int"),
        """
    UPDATE turns t SET steered = t.steered + n.times
    FROM {rows} JOIN done d ON d.sid = n.sid WHERE t.turn_id = ANY (ARRAY[n.turn_id])""",
    ),
    # `spared`, parted by spaces, are decided in the same batch: one statement changes a row once.
    "cancelled": Part(
        ("sid bigint", "turn_id uuid", "spared text"),
        """
    UPDATE approvals a SET state = 'cancelled', outcome = 'cancelled', resolved_at_ms = $1
    FROM {rows} JOIN done d ON d.sid = n.sid
    WHERE a.sid = ANY (ARRAY[n.sid]) AND a.turn_id = ANY (ARRAY[n.turn_id]) AND a.state || '' = 'open'
        AND a.id || '' <> ALL (string_to_array(n.spared, ' '))""",
    ),
    "resolved": Part(
        ("sid bigint", "id text", "outcome text", "resolved_by text"),
        """
    UPDATE approvals a SET state = 'resolved', outcome = n.outcome, resolved_by = n.resolved_by, resolved_at_ms = $1
    FROM {rows} JOIN done d ON d.sid = n.sid WHERE a.id = ANY (ARRAY[n.id])""",
    ),
    "kept": Part(
        ("sid bigint", "namespace text", "digest text"),
        """
    UPDATE blobs b SET kept = true FROM {rows} JOIN done d ON d.sid = n.sid
    WHERE b.namespace = ANY (ARRAY[n.namespace]) AND b.digest = ANY (ARRAY[n.digest])""",
    ),
    "remembered": Part(
        (
            "sid bigint",
            "namespace text",
            "source text",
            "key text",
            "body text",
            "uid text",
            "seq bigint",
            "turn_id text",
            "how text",
        ),
        """
    INSERT INTO keys (at_ms, sid, namespace, source, key, body_sha256, session_uid, seq, turn_id, strategy)
    SELECT $1, n.* FROM {rows} JOIN done d ON d.sid = n.sid""",
    ),
}
PART_NAMES = tuple(_PARTS)
_SESSIONS = ("moved", "born")
#: One NOTIFY for the whole batch, in the form of `talon.domain.bell`.
_BELL = f""",
bell AS (
    SELECT concat_ws(' ', (SELECT 'r' FROM done d WHERE d.wake_at_ms <= $1 LIMIT 1),
        string_agg(d.sid || ':' || d.last_seq, ' ')) AS wire
    FROM done d
),
rung AS MATERIALIZED (
    SELECT pg_notify('{CHANNEL}', CASE WHEN length(b.wire) > {WIRE_MAX} THEN '*' ELSE b.wire END) FROM bell b WHERE b.wire <> '')"""


@cache
def write(parts: tuple[str, ...], *, notify: bool) -> str:
    """The statement that writes `parts`, in the order of `PART_NAMES`; -> the sids of the sessions that were written.

    $1 is the time, then come the rows of each part.
    """
    named = {name: f"{name} AS ({_PARTS[name].sql(number)}\n)" for number, name in enumerate(parts, 2)}
    sessions = [name for name in _SESSIONS if name in named]
    done = " UNION ALL ".join(f"SELECT * FROM {name}" for name in sessions)
    first = [*(named.pop(name) for name in sessions), f"done AS MATERIALIZED ({done})"]
    # `done` is asked for first, so all sessions are locked before anything else is touched.
    # Not every part needs the time, but each parameter of a statement needs a type.
    answer = f"\nSELECT d.sid{', (SELECT count(*) FROM rung)' if notify else ''} FROM done d WHERE $1::bigint IS NOT NULL"
    return "WITH " + ",\n".join([*first, *named.values()]) + (_BELL if notify else "") + answer


def argument(part: str, rows: Iterable[Sequence[object]]) -> str:
    """The rows of a part of either statement as its parameter."""
    return (_PARTS.get(part) or _LOOKS[part]).argument(rows)


#: What stands where deliveries whose answer was lost would have written their last entry, and the rows they would have left.
FOUND = f"""
SELECT f.append_id, {SESSION} FROM unnest($1::bigint[], $2::bigint[]) AS w(sid, last_seq)
    CROSS JOIN LATERAL (SELECT * FROM sessions s WHERE s.sid = w.sid LIMIT 1) s
    LEFT JOIN LATERAL (SELECT j.append_id FROM journal j WHERE j.sid = w.sid AND j.last_seq = w.last_seq LIMIT 1) f ON true"""
