"""Changing resources: all or nothing, and versions that become visible in their order."""

from __future__ import annotations

import msgspec

from talon.domain.bell import Bell, encode
from talon.domain.resources import lineage
from talon.store.postgres import resources_sql as sql
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.resources import paths, rows_of, users_of
from talon.store.postgres.rows import transpose
from talon.store.postgres.schedules import change_schedules
from talon.store.postgres.sessions import agent_lock, begin, insert_session, lock_of
from talon.store.resource_apply import Found, Written, check, decide, identity, in_use, session_exists, wanted
from talon.store.resources import INHERITED_KINDS, Changes, Identity, ResourceRow


class PostgresChanges:
    """`Resources.change`."""

    _db: Database
    _notify: bool

    async def change(self, changes: Changes) -> list[ResourceRow]:
        """See `talon.store.resources.Resources`.

        Locks first, all in one order, then everything is read: what is decided is true until the commit. When the answer of COMMIT
        is lost, this raises `Unavailable`, and whether it was written is not known; the guards of the same change then tell:
        `Conflict` if it was.
        """
        check(changes)
        start = _begin(changes)

        async def write(connection: Connection) -> list[ResourceRow]:
            await connection.execute(start)
            now, found = await _find(connection, changes)
            written = decide(changes, found, now)
            await _write(connection, written, now)
            await change_schedules(connection, written.schedules, written.deleted, now)
            for new in sorted(changes.sessions, key=lambda new: (new.namespace, new.agent, new.id)):
                if not (await insert_session(connection, new))[1]:
                    raise session_exists(new)
            gone = [identity(row) for row in written.deleted if row.kind in ("Agent", "Namespace")]
            occupied = await connection.fetchrow(sql.OCCUPIED, *transpose(gone, 3)) if gone else None
            if occupied is not None:
                raise in_use(occupied[0], occupied[1])
            if self._notify and written.versions:
                await connection.fetch(sql.RING, encode(Bell(namespaces=tuple(sorted(written.versions)))))
            await connection.execute("COMMIT")
            return written.answers

        return await self._db.pool.run(write, again=False)


def _begin(changes: Changes) -> str:
    """Open a transaction and take the locks, in the one order that deliveries have too: nobody waits in a circle.

    Exclusive: the counters of namespaces that are written, that begin or end, or whose children's users are guarded; agents
    that end. Shared: the counters above these, and of what is only guarded. A counter is locked by its namespace's
    name: what nothing was ever written to has no row yet.
    """
    written = {put.namespace for put in changes.puts} | {gone.namespace for gone in changes.deletes}
    written |= {one.name for one in (*changes.puts, *changes.deletes) if one.kind == "Namespace"}
    written |= {same.namespace for same in changes.same_users if same.ref.kind in INHERITED_KINDS}
    looked_at = {guard.namespace for guard in (*changes.unchanged, *changes.same_users)}
    looked_at |= {new.namespace for new in changes.sessions}
    shared = looked_at | {above for namespace in written | looked_at for above in lineage(namespace)}
    ending = {(put.namespace, put.name) for put in changes.puts if put.kind == "Agent" and put.deleting}
    ending |= {(gone.namespace, gone.name) for gone in changes.deletes if gone.kind == "Agent"}
    exclusive = {lock_of("counter", namespace) for namespace in written} | {agent_lock(*agent) for agent in ending}
    return begin(exclusive, {lock_of("counter", namespace) for namespace in shared})


async def _find(connection: Connection, changes: Changes) -> tuple[int, Found]:
    rows = {identity(row): row for row in await rows_of(connection, wanted(changes))}
    touched = [identity(one) for one in (*changes.puts, *changes.deletes) if identity(one) in rows]
    labels: dict[Identity, dict[str, str]] = {}
    if touched:
        for namespace, kind, name, key, value in await connection.fetch(sql.LABELS_OF, paths(touched)):
            labels.setdefault((namespace, kind, name), {})[key] = value
    agents = [(put.namespace, put.name) for put in changes.puts if put.effective is not None]
    newest = await connection.fetch(sql.NEWEST, *transpose(agents, 2)) if agents else []
    users = [await users_of(connection, one.namespace, one.ref, ("", "", ""), len(one.users) + 1) for one in changes.same_users]
    namespaces = {one.namespace for one in (*changes.puts, *changes.deletes)}
    counters = await connection.fetch(sql.NOW_AND_VERSIONS, sorted(namespaces))
    return counters[0][0], Found(
        rows=rows,
        labels=labels,
        newest={(row[0], row[1]): (row[2], row[3]) for row in newest},
        versions={row[1]: row[2] for row in counters if row[1] is not None},
        users=users,
    )


async def _write(connection: Connection, written: Written, now: int) -> None:
    if not written.events:
        return
    gone = [identity(row) for row in written.deleted]
    described = list(map(identity, written.described))
    if gone or described:
        await connection.execute(sql.CLEAR, *transpose(gone, 3), paths([*gone, *described]))
    tables = (
        map(_values, written.put),
        [(*identity(put), *label) for put in written.described for label in put.labels.items()],
        [(*identity(put), ref.kind, ref.name) for put in written.described for ref in sorted(set(put.refs))],
        map(_values, written.revisions),
        map(_values, written.sealed),
        [(*_values(one.row), one.event, msgspec.json.encode(one.labels_before), now) for one in written.events],
    )
    arrays = [array for table, width in zip(tables, sql.WIDTHS, strict=True) for array in transpose(table, width)]
    await connection.execute(sql.WRITE, *arrays, *transpose(written.versions.items(), 2))


def _values(row: msgspec.Struct) -> tuple[object, ...]:
    return msgspec.structs.astuple(row)
