"""The statements about resources. Where two indexes could serve, one is over an expression that only its query uses: plans are
made once, perhaps on empty tables (`commit_sql` says more)."""

from __future__ import annotations

from talon.domain.bell import CHANNEL
from talon.store.postgres.rows import NOW_MS, RESOURCE, REVISION, columns
from talon.store.postgres.walled import two_ways
from talon.store.resources import ResourceRow, RevisionRow, SealedRow, UseRow

RING = f"SELECT pg_notify('{CHANNEL}', $1::text)"

# --- reading ----------------------------------------------------------------------------------------------------------------

GET = f"SELECT {RESOURCE} FROM resources r WHERE r.kind = $1 AND r.namespace = $2 AND r.name = $3"
_EACH = "unnest($1::text[], $2::text[], $3::text[]) AS n(namespace, kind, name)"
GET_MANY = f"""
SELECT {RESOURCE} FROM {_EACH} CROSS JOIN LATERAL (
    SELECT * FROM resources r WHERE r.kind = n.kind AND r.namespace = n.namespace AND r.name = n.name LIMIT 1) r"""
LIST = f"SELECT {RESOURCE} FROM resources r WHERE r.kind = $1 AND r.namespace = $2 AND r.name > $3 ORDER BY r.name LIMIT $4"
LIST_EVERYWHERE = f"""
SELECT {RESOURCE} FROM resources r WHERE r.kind = $1 AND (r.namespace, r.name) > ($2, $3) ORDER BY r.namespace, r.name LIMIT $4"""
LIST_ALL = two_ways(
    f"""
SELECT {RESOURCE} FROM resources r WHERE r.namespace || '/' = $1 || '/' AND (r.kind, r.name) > ($2, $3)
ORDER BY r.kind, r.name LIMIT $4""",
    f"""
SELECT {RESOURCE} FROM seen_resources($1, $2, $3, $4) n CROSS JOIN LATERAL (
    SELECT * FROM resources r WHERE r.kind = n.kind AND r.namespace = $1 AND r.name = n.name LIMIT 1) r
ORDER BY r.kind, r.name""",
)
CHILDREN = """
SELECT r.name FROM resources r WHERE r.kind = 'Namespace' AND r.namespace = '' AND r.name > $1 || ':' AND r.name < $1 || ';'
ORDER BY r.name LIMIT $2"""
_DELETING = """
(SELECT r.* FROM resources r WHERE r.kind || '/' = '{kind}/' AND r.deleting_at_ms IS NOT NULL
ORDER BY r.deleting_at_ms, r.namespace, r.name LIMIT $1)"""
DELETING = f"""
SELECT {RESOURCE} FROM ({_DELETING.format(kind="Namespace")} UNION ALL {_DELETING.format(kind="Agent")}) r
ORDER BY r.deleting_at_ms, r.kind DESC, r.namespace, r.name LIMIT $1"""

#: Candidates of a selector with the labels that it asks about. `{found}` gives namespace and name in the list's order.
_CANDIDATES = """
SELECT c.namespace, c.name, l.key, l.value FROM ({found}) c LEFT JOIN LATERAL ({labels}) l ON true
ORDER BY c.namespace, c.name"""
_LABELS = """
    SELECT l.key, l.value FROM resource_labels l
    WHERE l.namespace || '/' || l.kind || '/' || l.name = c.namespace || '/' || $1 || '/' || c.name AND l.key = ANY($3::text[])"""
_SEEN_LABELS = (
    "SELECT l.key, l.value FROM seen_labels(ARRAY[c.namespace || '/' || $1 || '/' || c.name]) l WHERE l.key = ANY($3::text[])"
)
_FOUND = "SELECT r.namespace, r.name FROM resources r WHERE r.kind = $1"
_LABELLED = "SELECT l.namespace, l.name FROM resource_labels l WHERE l.kind = $1 AND l.key = ${key} AND l.value = ${value}"
_IN_ONE = " AND {t}.namespace = $4 AND {t}.name > $5 ORDER BY {t}.name LIMIT $2"
_EVERYWHERE = " AND ({t}.namespace, {t}.name) > ($4, $5) ORDER BY {t}.namespace, {t}.name LIMIT $2"
#: (by a label that is indexed, everywhere) -> statement
CANDIDATES = {
    (labelled, everywhere): two_ways(*(_CANDIDATES.format(found=found, labels=labels) for labels in (_LABELS, _SEEN_LABELS)))
    for labelled in (False, True)
    for everywhere in (False, True)
    for found in (
        (_LABELLED.format(key=6, value=7) if labelled else _FOUND)
        + (_EVERYWHERE if everywhere else _IN_ONE).format(t="l" if labelled else "r"),
    )
}

#: How many have each of the labels $2, $3, up to $6. everywhere -> statement
COUNTED = {
    everywhere: f"""
SELECT (SELECT count(*) FROM (
    SELECT FROM resource_labels l WHERE l.kind = $1 AND l.key = n.key AND l.value = n.value AND {place} LIMIT $6) f)
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n(key, value, place) ORDER BY n.place"""
    for everywhere, place in (
        (False, "l.namespace = $4 AND l.name > $5 ORDER BY l.name"),
        (True, "(l.namespace, l.name) > ($4, $5) ORDER BY l.namespace, l.name"),
    )
}

_USING = """
SELECT f.namespace, f.kind, f.name FROM resource_refs f WHERE f.to_kind = $1 AND f.to_name = $2 AND {place}
AND (f.namespace, f.kind, f.name) > ($4, $5, $6) ORDER BY f.namespace, f.kind, f.name LIMIT $7"""
_HERE, _BELOW = (
    _USING.format(place=place) for place in ("f.namespace = $3", "f.namespace > $3 || ':' AND f.namespace < $3 || ';'")
)
_USERS = """
SELECT u.namespace, u.kind, u.name, r.generation FROM ({using}) u CROSS JOIN LATERAL (
    SELECT r.generation FROM resources r WHERE r.kind = u.kind AND r.namespace = u.namespace AND r.name = u.name LIMIT 1) r
ORDER BY u.namespace, u.kind, u.name LIMIT $7"""
#: whether those below the namespace too -> statement
USERS = {False: _USERS.format(using=_HERE), True: _USERS.format(using=f"({_HERE}) UNION ALL ({_BELOW})")}
REFS_OF = two_ways(
    """
SELECT f.namespace, f.kind, f.name, f.to_kind, f.to_name FROM resource_refs f
WHERE f.namespace || '/' || f.kind || '/' || f.name = ANY($1::text[]) ORDER BY f.to_kind, f.to_name""",
    "SELECT f.namespace, f.kind, f.name, f.to_kind, f.to_name FROM seen_refs($1) f ORDER BY f.to_kind, f.to_name",
)
LABELS_OF = """
SELECT l.namespace, l.kind, l.name, l.key, l.value FROM resource_labels l
WHERE l.namespace || '/' || l.kind || '/' || l.name = ANY($1::text[])"""

GET_REVISION = f"SELECT {REVISION} FROM revisions v WHERE v.namespace = $1 AND v.agent = $2 AND v.revision = $3"
GET_REVISIONS = f"""
SELECT {REVISION} FROM unnest($1::text[], $2::text[], $3::int[]) AS n(namespace, agent, revision) CROSS JOIN LATERAL (
    SELECT * FROM revisions v WHERE v.namespace = n.namespace AND v.agent = n.agent AND v.revision = n.revision LIMIT 1) v"""
LIST_REVISIONS = f"""
SELECT {REVISION} FROM revisions v WHERE v.namespace = $1 AND v.agent = $2 AND v.revision < $3 ORDER BY v.revision DESC LIMIT $4"""

# --- a change ---------------------------------------------------------------------------------------------------------------

NEWEST = """
SELECT n.namespace, n.agent, v.revision, v.digest FROM unnest($1::text[], $2::text[]) AS n(namespace, agent) CROSS JOIN LATERAL (
    SELECT v.revision, v.digest FROM revisions v WHERE v.namespace = n.namespace AND v.agent = n.agent
    ORDER BY v.revision DESC LIMIT 1) v"""
#: The time, and the versions of namespaces: one row at least.
NOW_AND_VERSIONS = f"""
SELECT {NOW_MS}, v.namespace, v.version FROM (SELECT) AS one LEFT JOIN namespace_versions v ON v.namespace = ANY($1::text[])"""

#: What goes ($1 … $3), and the labels and refs of what is described anew ($4: all of both as paths).
CLEAR = f"""
WITH labels AS (
    DELETE FROM resource_labels l WHERE l.namespace || '/' || l.kind || '/' || l.name = ANY($4::text[])
),
refs AS (
    DELETE FROM resource_refs f WHERE f.namespace || '/' || f.kind || '/' || f.name = ANY($4::text[])
),
opened AS (
    DELETE FROM sealed_values v USING {_EACH}
    WHERE n.kind = 'Secret' AND v.namespace = ANY (ARRAY[n.namespace]) AND v.name = ANY (ARRAY[n.name])
)
DELETE FROM resources r USING {_EACH}
WHERE r.kind = ANY (ARRAY[n.kind]) AND r.namespace = ANY (ARRAY[n.namespace]) AND r.name = ANY (ARRAY[n.name])"""

_FIELDS = ResourceRow.__struct_fields__
_TYPES = {
    "generation": "int",
    "revision": "int",
    "version": "bigint",
    "body": "bytea",
    "effective": "bytea",
    "sealed": "bytea",
    "labels_before": "bytea",
}


def _arrays(fields: tuple[str, ...], first: int) -> str:
    """`$first::type[], …`, one array per field."""
    types = (_TYPES.get(field, "bigint" if field.endswith("_at_ms") or field == "at_ms" else "text") for field in fields)
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, first))


_LABEL = ("namespace", "kind", "name", "key", "value")
_REF = ("namespace", "kind", "name", "to_kind", "to_name")
_REVISION, _SEALED = RevisionRow.__struct_fields__, SealedRow.__struct_fields__
#: Beside the row's own fields.
EVENT_FIELDS = ("event", "labels_before", "at_ms")
_EVENT = (*_FIELDS, *EVENT_FIELDS)
_STARTS = [1]
for _fields in (_FIELDS, _LABEL, _REF, _REVISION, _SEALED, _EVENT):
    _STARTS.append(_STARTS[-1] + len(_fields))
WRITE = f"""
WITH put AS (
    INSERT INTO resources ({", ".join(_FIELDS)}) SELECT * FROM unnest({_arrays(_FIELDS, _STARTS[0])})
    ON CONFLICT (kind, namespace, name) DO UPDATE SET {", ".join(f"{field} = excluded.{field}" for field in _FIELDS[3:])}
),
labels AS (
    INSERT INTO resource_labels ({", ".join(_LABEL)}) SELECT * FROM unnest({_arrays(_LABEL, _STARTS[1])})
),
refs AS (
    INSERT INTO resource_refs ({", ".join(_REF)}) SELECT * FROM unnest({_arrays(_REF, _STARTS[2])})
),
revised AS (
    INSERT INTO revisions ({", ".join(_REVISION)}) SELECT * FROM unnest({_arrays(_REVISION, _STARTS[3])})
),
sealed AS (
    INSERT INTO sealed_values ({", ".join(_SEALED)}) SELECT * FROM unnest({_arrays(_SEALED, _STARTS[4])})
    ON CONFLICT (namespace, name) DO UPDATE SET uid = excluded.uid, key_id = excluded.key_id, sealed = excluded.sealed
),
told AS (
    INSERT INTO resource_events ({", ".join(_EVENT)}) SELECT * FROM unnest({_arrays(_EVENT, _STARTS[5])})
)
INSERT INTO namespace_versions (namespace, version)
SELECT n.* FROM unnest(${_STARTS[6]}::text[], ${_STARTS[6] + 1}::bigint[]) AS n(namespace, version) ORDER BY n.namespace
ON CONFLICT (namespace) DO UPDATE SET version = excluded.version"""
WIDTHS = tuple(map(len, (_FIELDS, _LABEL, _REF, _REVISION, _SEALED, _EVENT)))

#: Agents of $1 … $3 that have living sessions, and namespaces that hold anything. (An EXISTS might be hashed, and read all.)
OCCUPIED = f"""
SELECT n.kind, n.name FROM {_EACH}
WHERE CASE n.kind
    WHEN 'Agent' THEN (SELECT true FROM sessions s
        WHERE s.namespace || '/' || s.agent = n.namespace || '/' || n.name AND s.deleted_at_ms IS NULL ORDER BY -s.sid LIMIT 1)
    WHEN 'Namespace' THEN coalesce(
        (SELECT true FROM resources r WHERE r.namespace || '/' = n.name || '/' ORDER BY r.kind, r.name LIMIT 1),
        (SELECT true FROM sessions s WHERE s.namespace || '/' = n.name || '/' AND s.deleted_at_ms IS NULL ORDER BY -s.sid LIMIT 1),
        (SELECT true FROM resources r WHERE r.kind = 'Namespace' AND r.namespace = ''
            AND r.name > n.name || ':' AND r.name < n.name || ';' ORDER BY r.name LIMIT 1))
    END
LIMIT 1"""

#: Whether the agent of a new session is there and stays, and no namespace above it ends. $1 namespace, $2 agent.
NAMESPACE_ENDS = """
EXISTS (SELECT FROM resources d WHERE d.kind || '/' = 'Namespace/' AND d.deleting_at_ms IS NOT NULL
    AND starts_with({namespace} || ':', d.name || ':'))"""
AGENT = f"""
SELECT r.deleting_at_ms IS NOT NULL OR {NAMESPACE_ENDS.format(namespace="$1")}
FROM resources r WHERE r.kind = 'Agent' AND r.namespace = $1 AND r.name = $2"""

# --- watches ----------------------------------------------------------------------------------------------------------------

VERSIONS = "SELECT v.namespace, v.version FROM namespace_versions v WHERE v.namespace = ANY($1::text[])"
_EVENTS = f"""
SELECT v.version, v.forgotten, e.event, e.labels_before, {columns(ResourceRow, "e")} FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT * FROM namespace_versions v WHERE v.namespace = $1 LIMIT 1) v ON true
LEFT JOIN LATERAL ({{events}}) e ON true
ORDER BY e.version"""
_AFTER = "SELECT * FROM resource_events e WHERE {which} AND e.version > $2 ORDER BY e.version LIMIT $3"
_SEEN_AFTER = """
SELECT e.* FROM seen_events($1, $4, $2, $3) n CROSS JOIN LATERAL (
    SELECT * FROM resource_events e WHERE e.namespace = $1 AND e.version = n.version LIMIT 1) e"""
#: Whether of one kind -> statement. A row begins with the namespace's newest version and the newest forgotten, null if it has none.
EVENTS = {
    False: _EVENTS.format(events=_AFTER.format(which="e.namespace = $1")),
    True: two_ways(
        _EVENTS.format(events=_AFTER.format(which="e.namespace || '/' || e.kind = $1 || '/' || $4")),
        _EVENTS.format(events=_SEEN_AFTER),
    ),
}
#: Namespaces with changes older than $1, or with more than $2 that are kept.
FORGETTABLE = """
SELECT e.namespace FROM resource_events e WHERE e.at_ms < $1
UNION SELECT v.namespace FROM namespace_versions v WHERE v.version - v.forgotten > $2"""
FORGET_UP_TO = """
UPDATE namespace_versions v SET forgotten = greatest(v.forgotten, v.version - $3, coalesce((
    SELECT max(e.version) FROM resource_events e WHERE e.namespace = $1 AND e.at_ms < $2), 0))
WHERE v.namespace = $1 RETURNING v.forgotten"""
FORGET = (
    "WITH gone AS (DELETE FROM resource_events e WHERE e.namespace = $1 AND e.version <= $2 RETURNING 1) SELECT count(*) FROM gone"
)

# --- secrets ----------------------------------------------------------------------------------------------------------------

_VALUE = columns(SealedRow, "v")
SEALED = f"SELECT {_VALUE} FROM sealed_values v WHERE v.namespace = $1 AND v.name = $2"
HAVE_VALUES = """
SELECT v.namespace, v.name FROM unnest($1::text[], $2::text[]) AS n(namespace, name) CROSS JOIN LATERAL (
    SELECT v.namespace, v.name FROM sealed_values v WHERE v.namespace = n.namespace AND v.name = n.name LIMIT 1) v"""
# Of the column itself the planner may know that all have one value, expects to find none, and reads all.
LIST_SEALED = f"""
SELECT {_VALUE} FROM sealed_values v WHERE (v.namespace, v.name) > ($1, $2) AND v.key_id || '' <> $3
ORDER BY v.namespace, v.name LIMIT $4"""
RESEAL = """
UPDATE sealed_values v SET key_id = $6, sealed = $7
WHERE v.namespace = $1 AND v.name = $2 AND v.uid = $3 AND v.key_id = $4 AND v.sealed = $5 RETURNING 1"""
USED = f"INSERT INTO secret_uses (namespace, name, used_by, purpose, at_ms) VALUES ($1, $2, $3, $4, {NOW_MS})"
USES = two_ways(
    f"""
SELECT u.id, {columns(UseRow, "u")} FROM secret_uses u WHERE u.namespace || '/' || u.name = $1 || '/' || $2 AND u.id < $3
ORDER BY u.id DESC LIMIT $4""",
    f"""
SELECT u.id, {columns(UseRow, "u")} FROM seen_uses($1, $2, $3, $4) n CROSS JOIN LATERAL (
    SELECT * FROM secret_uses u WHERE u.id = n.id LIMIT 1) u
ORDER BY u.id DESC""",
)
FORGET_USES = "WITH gone AS (DELETE FROM secret_uses u WHERE u.at_ms < $1 RETURNING 1) SELECT count(*) FROM gone"
