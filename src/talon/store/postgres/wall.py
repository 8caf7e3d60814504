"""Putting the wall up: the role that callers' reads are done with, what it may read, and whether it is really held back."""

from __future__ import annotations

import asyncio

import asyncpg

from talon.domain.errors import Unavailable
from talon.store.postgres.connections import Database
from talon.store.postgres.driver import Connection
from talon.store.postgres.walled import WalledPool
from talon.store.protocols import Where
from talon.store.sight import Sight, Wall, current

#: The role of the policies (migration 0002), whether it is there, and who we are.
_ROLE = "SELECT wall_role()::text, EXISTS (SELECT FROM pg_roles r WHERE r.rolname = wall_role()), current_user::text"
#: What is behind the wall: the tables that the role may not read yet, and the functions that it may not call yet.
_UNGRANTED = """
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), wall_role())
WHERE NOT has_schema_privilege(wall_role(), current_schema(), 'USAGE')
UNION ALL
SELECT format('GRANT SELECT ON %s TO %I', c.oid::regclass, wall_role()) FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relrowsecurity
    AND NOT has_table_privilege(wall_role(), c.oid, 'SELECT')
UNION ALL
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, wall_role()) FROM pg_proc p
WHERE p.pronamespace = current_schema()::regnamespace AND p.prosecdef
    AND NOT has_function_privilege(wall_role(), p.oid, 'EXECUTE')"""
#: Asked with the role: what it passes by (a superuser, one with BYPASSRLS and a member of the owner: everything), and what it may
#: read that has no policy.
_OPEN = """
SELECT c.relname::text FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    AND CASE WHEN c.relrowsecurity THEN NOT row_security_active(c.oid) ELSE has_table_privilege(c.oid, 'SELECT') END
ORDER BY 1 LIMIT 3"""
_COVERS = "SELECT session_in_sight($1, $2, $3)"
_CONCURRENT = (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError)
_ATTEMPTS = 5
#: So many places of callers are remembered.
_COVERED_MAX = 50_000


class PostgresWall:
    """`Walls`."""

    _db: Database
    _covered: set[tuple[Sight, Where]]

    async def raise_wall(self) -> Wall:
        """See `Walls.raise_wall`. The role is made where we may; where not, `missing` says what an administrator is to do."""
        row = await self._db.pool.fetchrow(_ROLE)
        assert row is not None
        role, there, user = str(row[0]), bool(row[1]), str(row[2])
        if self._db.walled is not None:
            return Wall(role)
        make, give = f"CREATE ROLE {_quoted(role)} NOLOGIN", f"GRANT {_quoted(role)} TO {_quoted(user)}"
        if not there and not await self._try(make):
            return _lacks(role, f"there is no role {role!r}, and {user!r} may not make it", "an administrator", f"{make}; {give}")
        walled = self._db.wall(role)
        if not await self._takes(walled) and not (await self._try(give) and await self._takes(walled)):
            return _lacks(role, f"{user!r} may not take the role {role!r}", "an administrator", give)
        for grant in [row[0] for row in await self._db.pool.fetch(_UNGRANTED)]:
            if not await self._try(grant):
                await walled.close()
                return _lacks(role, f"{user!r} may not grant what the role {role!r} needs", "the tables' owner", grant)
        passed = [row[0] for row in await walled.fetch(_OPEN)]
        if passed:
            await walled.close()
            return Wall(
                role,
                f"the role {role!r} is not held back from {', '.join(passed)}: it must be no superuser, have no BYPASSRLS, "
                "and have neither the role of the tables' owner nor other tables",
            )
        self._db.walled = walled
        return Wall(role)

    async def covers(self, where: Where) -> bool:
        """See `Walls.covers`."""
        sight, walled = current(), self._db.walled
        if sight is None or walled is None:
            return True
        place = (sight, where if sight.agent else (where[0], "", ""))
        if place in self._covered:
            return True
        if not await walled.fetchval(_COVERS, *where):
            return False
        if len(self._covered) >= _COVERED_MAX:
            self._covered.clear()
        self._covered.add(place)
        return True

    async def _try(self, statement: str) -> bool:
        """Do it; False if we may not. Others may be doing the same."""

        async def run(connection: Connection) -> bool:
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                return False
            return True

        for attempt in range(_ATTEMPTS):
            try:
                return await self._db.pool.run(run, again=True)
            except _CONCURRENT as error:
                if isinstance(error, asyncpg.DuplicateObjectError):
                    return True
                await asyncio.sleep(0.01 * 2**attempt)
        return True

    async def _takes(self, walled: WalledPool) -> bool:
        """Whether a connection may have the role."""
        try:
            await walled.fetchval("SELECT 1")
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError | asyncpg.InvalidParameterValueError):
                return False
            raise
        return True


def _lacks(role: str, why: str, who: str, sql: str) -> Wall:
    return Wall(role, f"{why}: have {who} run `{sql}`, then start again")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
