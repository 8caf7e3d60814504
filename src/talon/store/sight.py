"""For whom a read is done: what he sees goes with the request to the database, where row-level security is a second wall.

The sight of a request lies in its context (decision 0017). Who has none (workers, upkeep, whoever sees everything) reads with the
process's own role.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar

import msgspec

from talon.domain.resources import lineage


class Sight(msgspec.Struct, frozen=True):
    """What somebody sees: `namespaces` and all below them; with `agent` and `session` of that agent, or of that session of it, only
    ("" does not narrow). `above`: also what is inherited from the namespaces that these lie in."""

    namespaces: tuple[str, ...] = ()
    agent: str = ""
    session: str = ""
    above: bool = False

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The namespaces that his lie in, as far as he may look up to them."""
        return tuple(sorted({one for place in self.namespaces for one in lineage(place)[1:]})) if self.above else ()


#: Of a request before it is known whose it is.
NOTHING = Sight()
_sight: ContextVar[Sight | None] = ContextVar("sight", default=None)


def current() -> Sight | None:
    """The sight of whoever asks in this context; None for the process itself, and for who sees everything."""
    return _sight.get()


def look_as(sight: Sight | None) -> None:
    """From now on, in this context."""
    _sight.set(sight)


@contextlib.contextmanager
def seeing(sight: Sight | None) -> Generator[None]:
    """For a while. What is started meanwhile keeps it: what outlives a request is to be started `seeing(None)`."""
    token = _sight.set(sight)
    try:
        yield
    finally:
        _sight.reset(token)


@contextlib.contextmanager
def looking_up() -> Generator[None]:
    """While references are resolved: what is inherited is seen too."""
    sight = _sight.get()
    with seeing(None if sight is None else msgspec.structs.replace(sight, above=True)):
        yield


class Wall(msgspec.Struct, frozen=True):
    """The wall in front of a store's reads. It stands where there is a `role` to read with and nothing is `missing`; a store that
    cannot have one has neither."""

    role: str = ""
    missing: str = ""

    @property
    def stands(self) -> bool:
        """Whether reads of callers go through it."""
        return bool(self.role) and not self.missing


NO_WALL = Wall()
