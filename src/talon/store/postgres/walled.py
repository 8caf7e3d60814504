"""Connections that look through the wall, and what they ask otherwise.

Such a connection has the role of the wall for its whole life, and never another: so plans are made once, and one whose sight nobody
has set shows nothing. Its sight is a setting, put there before it is used by somebody who sees something else than whoever had it
before; whoever sees the same as another takes that one's connection, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from talon.store.postgres.driver import Connection, Row
from talon.store.postgres.pool import Pool
from talon.store.sight import NOTHING, Sight, current

T = TypeVar("T")

_SEE = """
SELECT set_config('talon.namespaces', $1, false), set_config('talon.above', $2, false),
    set_config('talon.agent', $3, false), set_config('talon.session', $4, false)"""
_WALLED: dict[str, str] = {}


def two_ways(own: str, walled: str) -> str:
    """`own`, which is asked as `walled` through the wall. For what is found by an index over an expression: behind the wall the
    planner may not use one, since expressions can tell of rows in their errors. `walled` takes the same arguments and finds
    by a function of migration 0002 (`seen_…`), which finds only what is seen."""
    _WALLED[own] = walled
    return own


class WalledPool(Pool):
    """Connections with the role of the wall, each with the sight of whoever uses it."""

    def __init__(self, url: str, role: str) -> None:
        super().__init__(url, role)
        self._sights: dict[Connection, Sight] = {}

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, again: bool) -> T:
        """See `Pool.run`: as whoever asks in this context."""
        sight = current() or NOTHING

        async def seeing(connection: Connection) -> T:
            if self._sights.get(connection) != sight:
                self._sights.pop(connection, None)  # should it fail, nobody knows what the connection shows
                await connection.fetchrow(_SEE, *settings_of(sight))
                self._sights[connection] = sight
            return await work(connection)

        return await super().run(seeing, again=again)

    async def fetch(self, query: str, *args: object, again: bool = True) -> list[Row]:
        """See `Pool.fetch`."""
        return await super().fetch(_WALLED.get(query, query), *args, again=again)

    async def fetchrow(self, query: str, *args: object, again: bool = True) -> Row | None:
        """See `Pool.fetchrow`."""
        return await super().fetchrow(_WALLED.get(query, query), *args, again=again)

    async def fetchval(self, query: str, *args: object, again: bool = True) -> Any:
        """See `Pool.fetchval`."""
        return await super().fetchval(_WALLED.get(query, query), *args, again=again)

    def _pick(self, free: list[Connection]) -> Connection:
        """One that has this sight already, if there is one; else the one used last."""
        for closed in [one for one in self._sights if one.is_closed()]:
            del self._sights[closed]
        sight = current() or NOTHING
        for place in range(len(free) - 1, -1, -1):
            if self._sights.get(free[place]) == sight:
                return free.pop(place)
        return free.pop()


def settings_of(sight: Sight) -> tuple[str, str, str, str]:
    """A sight as the functions `in_sight`, `inherited`, `unscoped` and `session_in_sight` of migration 0002 read it."""
    return " ".join(f"{one}:" for one in sight.namespaces), " ".join(sight.ancestors), sight.agent, sight.session
