"""Manifests and their revisions; changes are all or nothing."""

from __future__ import annotations

from talon.domain.errors import Conflict
from talon.store.model import Changes, DeleteResource, PutResource, ResourceRow, RevisionRow
from talon.store.paging import cursor_after, position_of
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.rows import NOW_MS, RESOURCE, REVISION
from talon.store.postgres.sessions import begin_with_names, insert_session

_NAMED = "r.kind = $1 AND r.namespace = $2 AND r.name = $3"
_GET = f"SELECT {RESOURCE} FROM resources r WHERE {_NAMED}"
_LIST = f"SELECT {RESOURCE} FROM resources r WHERE r.kind = $1 AND r.namespace = $2 AND r.name > $3 ORDER BY r.name LIMIT $4"
_LIST_EVERYWHERE = f"""
SELECT {RESOURCE} FROM resources r WHERE r.kind = $1 AND (r.namespace, r.name) > ($2, $3) ORDER BY r.namespace, r.name LIMIT $4"""
_GET_REVISION = f"SELECT {REVISION} FROM revisions v WHERE v.namespace = $1 AND v.agent = $2 AND v.revision = $3"
_LIST_REVISIONS = f"""
SELECT {REVISION} FROM revisions v WHERE v.namespace = $1 AND v.agent = $2 AND v.revision < $3 ORDER BY v.revision DESC LIMIT $4"""
_NOW = f"SELECT {NOW_MS}"
_CREATE = f"""
INSERT INTO resources AS r (kind, namespace, name, uid, generation, revision, body, status, created_at_ms, updated_at_ms)
VALUES ($1, $2, $3, $4, 1, 0, $5, $6, $7, $7) ON CONFLICT DO NOTHING RETURNING {RESOURCE}"""
_REPLACE = f"""
UPDATE resources r SET body = coalesce($5, r.body), status = $6, updated_at_ms = $7,
    generation = r.generation + CASE WHEN $5 IS DISTINCT FROM r.body AND $5 IS NOT NULL THEN 1 ELSE 0 END
WHERE {_NAMED} AND r.generation = $4 RETURNING {RESOURCE}""".replace("$5", "$5::bytea")
_DELETE = f"DELETE FROM resources r WHERE {_NAMED} AND r.generation = $4 RETURNING r.name"
_NEWEST = """
SELECT v.revision, v.digest FROM revisions v WHERE v.namespace = $1 AND v.agent = $2 ORDER BY v.revision DESC LIMIT 1"""
_REVISE = """
INSERT INTO revisions (namespace, agent, revision, effective, digest, cause, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)"""
_POINT = f"UPDATE resources r SET revision = $4 WHERE {_NAMED} RETURNING {RESOURCE}"
_REVISION_LAST = 2**31 - 1


class PostgresResources:
    """`Resources`."""

    _db: Database

    async def get_resource(self, namespace: str, kind: str, name: str) -> ResourceRow | None:
        row = await self._db.fetchrow(_GET, kind, namespace, name)
        return None if row is None else ResourceRow(*row)

    async def list_resources(self, namespace: str, kind: str, cursor: str, limit: int) -> tuple[list[ResourceRow], str]:
        if namespace == "*":
            after = position_of(cursor, str, str) or ("", "")
            rows = [ResourceRow(*row) for row in await self._db.fetch(_LIST_EVERYWHERE, kind, *after, limit + 1)]
            return rows[:limit], cursor_after(rows[limit - 1].namespace, rows[limit - 1].name) if len(rows) > limit else ""
        (name,) = position_of(cursor, str) or ("",)
        rows = [ResourceRow(*row) for row in await self._db.fetch(_LIST, kind, namespace, name, limit + 1)]
        return rows[:limit], cursor_after(rows[limit - 1].name) if len(rows) > limit else ""

    async def list_revisions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[RevisionRow], str]:
        (before,) = position_of(cursor, int) or (_REVISION_LAST,)
        found = await self._db.fetch(_LIST_REVISIONS, namespace, agent, min(int(before), _REVISION_LAST), limit + 1)
        rows = [RevisionRow(*row) for row in found]
        return rows[:limit], cursor_after(rows[limit - 1].revision) if len(rows) > limit else ""

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        row = await self._db.fetchrow(_GET_REVISION, namespace, agent, revision)
        return None if row is None else RevisionRow(*row)

    async def change(self, changes: Changes) -> list[ResourceRow]:
        async def write(connection: Connection) -> list[ResourceRow]:
            await begin_with_names(connection, [(new.namespace, new.agent, new.id) for new in changes.sessions])
            now = await connection.fetchval(_NOW)
            rows: dict[int, ResourceRow] = {}
            # In one order, so that two changes never wait for each other in a circle.
            steps = sorted([*enumerate(changes.puts), *((-1, one) for one in changes.deletes)], key=lambda step: _place(step[1]))
            for nth, step in steps:
                if isinstance(step, PutResource):
                    rows[nth] = await _put(connection, step, now)
                elif await connection.fetchrow(_DELETE, *_place(step), step.if_generation) is None:
                    raise _conflict(step)
            for new in changes.sessions:
                _, created = await insert_session(connection, new)
                if not created:
                    raise Conflict(
                        "conflict", f"session {new.id!r} of agent {new.agent!r} was created in the meantime; read it and try again"
                    )
            await connection.execute("COMMIT")
            return [rows[nth] for nth in range(len(changes.puts))]

        return await self._db.pool.run(write, again=False)


async def _put(connection: Connection, put: PutResource, now: int) -> ResourceRow:
    row: Row | None
    if put.if_generation == 0:
        row = await connection.fetchrow(_CREATE, *_place(put), put.uid, put.body, put.status, now)
    else:
        row = await connection.fetchrow(_REPLACE, *_place(put), put.if_generation, put.body, put.status, now)
    if row is None:
        raise _conflict(put)
    if put.effective is not None:
        row = await connection.fetchrow(_POINT, *_place(put), await _revision(connection, put, put.effective, now))
        assert row is not None
    return ResourceRow(*row)


async def _revision(connection: Connection, put: PutResource, effective: bytes, now: int) -> int:
    """The agent's newest revision, a new one if its digest differs. The agent's row is locked: nobody else makes one."""
    newest = await connection.fetchrow(_NEWEST, put.namespace, put.name)
    if newest is not None and newest["digest"] == put.digest:
        return newest["revision"]
    revision = 1 if newest is None else newest["revision"] + 1
    await connection.execute(_REVISE, put.namespace, put.name, revision, effective, put.digest, put.cause, now)
    return revision


def _place(what: PutResource | DeleteResource) -> tuple[str, str, str]:
    return what.kind, what.namespace, what.name


def _conflict(what: PutResource | DeleteResource) -> Conflict:
    named = f"{what.kind} {what.name!r}" + (f" in {what.namespace!r}" if what.namespace else "")
    if what.if_generation == 0:
        return Conflict("conflict", f"{named} was created in the meantime; read it and try again")
    return Conflict("conflict", f"{named} is not at generation {what.if_generation} any more; read it and try again")
