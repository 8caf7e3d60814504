"""The state as a plan looks at it: what is not known yet is noted, and taken for absent until it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from talon.domain.resources import Identity, Ref, candidates
from talon.domain.session import SessionRow
from talon.manifest.read import Manifest
from talon.manifest.state import Needs, Same, State, Stored, User

K = TypeVar("K")
V = TypeVar("V")


class Lookup:
    """`state`, overlaid by the manifests that are being applied. `broken` are those whose manifests cannot be read: they are taken
    to be there, so that nothing complains of their absence."""

    def __init__(self, state: State, applied: Mapping[Identity, Manifest], broken: Collection[Identity]) -> None:
        self._state, self._applied, self._broken = state, applied, broken
        self._resources: dict[Identity, None] = {}
        self._users: dict[tuple[str, Ref], None] = {}
        self._sessions: dict[Identity, None] = {}
        self._values: dict[Identity, None] = {}

    @property
    def needs(self) -> Needs:
        """What was asked for and is not known."""
        return Needs(tuple(self._resources), tuple(self._users), tuple(self._sessions), tuple(self._values))

    def stored(self, identity: Identity) -> Stored | None:
        """A resource as it is stored."""
        return _known(self._state.resources, identity, self._resources, None)

    def knows(self, identity: Identity) -> bool:
        """Whether the store was asked for it already."""
        return identity in self._state.resources

    def users(self, namespace: str, ref: Ref) -> tuple[User, ...]:
        """Those that name `ref` in `namespace` and below."""
        return _known(self._state.users, (namespace, ref), self._users, ())

    def session(self, where: Identity) -> SessionRow | None:
        """A living session, by (namespace, agent, id)."""
        return _known(self._state.sessions, where, self._sessions, None)

    def same_value(self, identity: Identity) -> bool:
        """Whether a Secret's manifest gives the value that is stored."""
        return _known(self._state.same_values, identity, self._values, default=False)

    def exists(self, identity: Identity) -> bool:
        """Whether a resource is there once all is applied."""
        there = self.stored(identity) is not None
        return there or identity in self._applied or identity in self._broken

    def nearest(self, namespace: str, ref: Ref) -> Identity | None:
        """Who `ref` means in `namespace`, once all is applied."""
        there = [one for one in candidates(namespace, ref) if self.exists(one)]
        return there[0] if there else None

    def guards(self, namespace: str, ref: Ref, meant: Identity) -> list[Same]:
        """What must stay for `ref` to mean `meant`: that it is as it is, and that none nearer comes to be. What is applied itself
        needs no guard."""
        found: list[Same] = []
        for one in candidates(namespace, ref):
            stored = self.stored(one)
            if one not in self._applied:
                found.append(Same(one, stored.generation if stored else 0))
            elif stored is not None and one == meant:
                found.append(Same(one, stored.generation))
            if one == meant:
                break
        return found


def _known(known: Mapping[K, V], key: K, missing: dict[K, None], default: V) -> V:
    if key in known:
        return known[key]
    missing[key] = None
    return default
