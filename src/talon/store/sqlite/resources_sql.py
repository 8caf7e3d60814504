"""The statements about resources on SQLite, in the manner of `sql`."""

from __future__ import annotations

from talon.store.resources import ResourceRow, RevisionRow, SealedRow, UseRow
from talon.store.sqlite.sql import columns

_RESOURCE, _REVISION, _SEALED, _USE = columns(ResourceRow), columns(RevisionRow), columns(SealedRow), columns(UseRow)
_MARKS = ", ".join("?" * len(ResourceRow.__struct_fields__))

# --- reading ----------------------------------------------------------------------------------------------------------------

GET = f"SELECT {_RESOURCE} FROM resources WHERE namespace = ? AND kind = ? AND name = ?"
LIST = f"SELECT {_RESOURCE} FROM resources WHERE kind = ? AND namespace = ? AND name > ? ORDER BY name LIMIT ?"
LIST_EVERYWHERE = f"""
SELECT {_RESOURCE} FROM resources WHERE kind = ? AND (namespace, name) > (?, ?) ORDER BY namespace, name LIMIT ?"""
LIST_ALL = f"""
SELECT {_RESOURCE} FROM resources INDEXED BY resources_of_namespace
WHERE namespace = ? AND (kind, name) > (?, ?) ORDER BY kind, name LIMIT ?"""
CHILDREN = """
SELECT name FROM resources WHERE kind = 'Namespace' AND namespace = '' AND name > ?1 || ':' AND name < ?1 || ';'
ORDER BY name LIMIT ?2"""
DELETING = f"""
SELECT {_RESOURCE} FROM resources WHERE kind = ? AND deleting_at_ms IS NOT NULL
ORDER BY deleting_at_ms, namespace, name LIMIT ?"""

_FOUND = "SELECT namespace, name FROM resources WHERE kind = ?"
_LABELLED = "SELECT namespace, name FROM resource_labels WHERE kind = ? AND key = ? AND value = ?"
_IN_ONE = " AND namespace = ? AND name > ? ORDER BY name LIMIT ?"
_EVERYWHERE = " AND (namespace, name) > (?, ?) ORDER BY namespace, name LIMIT ?"
FOUND, FOUND_EVERYWHERE = _FOUND + _IN_ONE, _FOUND + _EVERYWHERE
LABELLED, LABELLED_EVERYWHERE = _LABELLED + _IN_ONE, _LABELLED + _EVERYWHERE
LABELS_OF = "SELECT key, value FROM resource_labels WHERE namespace = ? AND kind = ? AND name = ?"

_USERS = """
SELECT f.namespace, f.kind, f.name, r.generation FROM resource_refs f INDEXED BY resource_refs_to
CROSS JOIN resources r ON r.kind = f.kind AND r.namespace = f.namespace AND r.name = f.name
WHERE f.to_kind = ? AND f.to_name = ? AND {place} ORDER BY f.namespace, f.kind, f.name LIMIT ?"""
USERS = _USERS.format(place="f.namespace = ? AND (f.kind, f.name) > (?, ?)")
USERS_BELOW = _USERS.format(place="(f.namespace, f.kind, f.name) > (?, ?, ?) AND f.namespace < ?")
REFS_OF = "SELECT to_kind, to_name FROM resource_refs WHERE namespace = ? AND kind = ? AND name = ? ORDER BY to_kind, to_name"

GET_REVISION = f"SELECT {_REVISION} FROM revisions WHERE namespace = ? AND agent = ? AND revision = ?"
LIST_REVISIONS = f"""
SELECT {_REVISION} FROM revisions WHERE namespace = ? AND agent = ? AND revision < ? ORDER BY revision DESC LIMIT ?"""

# --- a change ---------------------------------------------------------------------------------------------------------------

NEWEST = "SELECT revision, digest FROM revisions WHERE namespace = ? AND agent = ? ORDER BY revision DESC LIMIT 1"
VERSION = "SELECT version, forgotten FROM namespace_versions WHERE namespace = ?"
VERSION_PUT = """
INSERT INTO namespace_versions (namespace, version) VALUES (?, ?)
ON CONFLICT (namespace) DO UPDATE SET version = excluded.version"""
PUT = f"INSERT OR REPLACE INTO resources ({_RESOURCE}) VALUES ({_MARKS})"
DELETE = "DELETE FROM resources WHERE namespace = ? AND kind = ? AND name = ?"
LABELS_CLEAR = "DELETE FROM resource_labels WHERE namespace = ? AND kind = ? AND name = ?"
LABEL_INSERT = "INSERT INTO resource_labels (namespace, kind, name, key, value) VALUES (?, ?, ?, ?, ?)"
REFS_CLEAR = "DELETE FROM resource_refs WHERE namespace = ? AND kind = ? AND name = ?"
REF_INSERT = "INSERT INTO resource_refs (namespace, kind, name, to_kind, to_name) VALUES (?, ?, ?, ?, ?)"
REVISION_INSERT = f"INSERT INTO revisions ({_REVISION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SEALED_PUT = f"INSERT OR REPLACE INTO sealed_values ({_SEALED}) VALUES (?, ?, ?, ?, ?)"
SEALED_CLEAR = "DELETE FROM sealed_values WHERE namespace = ? AND name = ?"
EVENT_INSERT = f"INSERT INTO resource_events ({_RESOURCE}, event, labels_before, at_ms) VALUES ({_MARKS}, ?, ?, ?)"
AGENT_OCCUPIED = "SELECT 1 FROM sessions WHERE namespace = ? AND agent = ? AND deleted_at_ms IS NULL LIMIT 1"
NAMESPACE_OCCUPIED = """
SELECT 1 WHERE EXISTS (SELECT 1 FROM resources WHERE namespace = ?1)
    OR EXISTS (SELECT 1 FROM sessions WHERE namespace = ?1 AND deleted_at_ms IS NULL)
    OR EXISTS (SELECT 1 FROM resources WHERE kind = 'Namespace' AND namespace = '' AND name > ?1 || ':' AND name < ?1 || ';')"""

# --- watches ----------------------------------------------------------------------------------------------------------------

_EVENTS = f"""
SELECT event, labels_before, {_RESOURCE} FROM resource_events WHERE namespace = ? AND version > ?%s ORDER BY version LIMIT ?"""
EVENTS, EVENTS_OF_KIND = (_EVENTS.replace("%s", more) for more in ("", " AND kind = ?"))
FORGET_BY_AGE = """
SELECT namespace, max(version) FROM resource_events INDEXED BY resource_events_age WHERE at_ms < ? GROUP BY namespace"""
FORGET_BY_NUMBER = "SELECT namespace, version - ?1 FROM namespace_versions WHERE version - forgotten > ?1"
FORGET = "DELETE FROM resource_events WHERE namespace = ? AND version <= ?"
FORGOTTEN = "UPDATE namespace_versions SET forgotten = max(forgotten, ?) WHERE namespace = ?"

# --- secrets ----------------------------------------------------------------------------------------------------------------

SEALED = f"SELECT {_SEALED} FROM sealed_values WHERE namespace = ? AND name = ?"
LIST_SEALED = f"""
SELECT {_SEALED} FROM sealed_values WHERE (namespace, name) > (?, ?) AND key_id <> ? ORDER BY namespace, name LIMIT ?"""
RESEAL = """
UPDATE sealed_values SET key_id = ?, sealed = ? WHERE namespace = ? AND name = ? AND uid = ? AND key_id = ? AND sealed = ?"""
USED = "INSERT INTO secret_uses (namespace, name, used_by, purpose, at_ms) VALUES (?, ?, ?, ?, ?)"
USES = f"SELECT id, {_USE} FROM secret_uses WHERE namespace = ? AND name = ? AND id < ? ORDER BY id DESC LIMIT ?"
FORGET_USES = "DELETE FROM secret_uses WHERE at_ms < ?"
