"""What a turn is pinned to (K12): kept in the store under its digest, named by `turn.started`, the same after any restart."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import msgspec

from talon.domain.errors import Defect
from talon.domain.session import SessionRow
from talon.manifest.effective import Effective, Limits, Profile, decode
from talon.manifest.features import feature_values
from talon.manifest.prompt import render_prompt
from talon.store.protocols import Queue, Resources
from talon.tools.protocol import Tool, ToolSpec
from talon.tools.registry import Pinned, Registry


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prompt, models, limits and tool schemas of one turn, every place filled in. `profiles` are tried in order."""

    namespace: str
    agent: str
    revision: int
    system_prompt: str
    profiles: tuple[Profile, ...]
    limits: Limits = Limits()
    tools: tuple[Pinned, ...] = ()
    features: dict[str, Any] = {}


class Pin(msgspec.Struct, frozen=True):
    """A definition under its digest, with the code behind its tools as far as this process has it (it is not pinned)."""

    digest: str
    definition: Definition
    specs: dict[str, ToolSpec]
    tools: dict[str, Tool]


class Unresolved(msgspec.Struct, frozen=True):
    """Why a turn may not run: `reason` is the code of its `turn.denied`."""

    reason: str
    detail: str


_NO_SERVERS = "; to an McpServer that is a resource this version does not connect"


class DefinitionStore(Queue, Resources, Protocol):
    """What `Definitions` reads and writes."""


class Definitions:
    """Pins turns and finds what they were pinned to. Everything it remembers is immutable; bounded by `entries_max`."""

    def __init__(self, store: DefinitionStore, registry: Registry, providers: frozenset[str], entries_max: int = 1024) -> None:
        self._store, self._registry, self._providers = store, registry, providers
        self._pins: dict[str, Pin] = {}
        self._recent: dict[tuple[str, str, int, bytes, str], Pin] = {}
        self._effective: dict[tuple[str, str, int], Effective] = {}
        self._max = entries_max
        self._decoder = msgspec.json.Decoder(Definition)

    async def pin(self, session: SessionRow, revision: int) -> Pin | Unresolved:
        """The definition of a turn that starts now on the agent's newest `revision`, durable under its digest."""
        known = self.known(session, revision)
        if known is not None:
            return known
        effective = await self._agent(session, revision)
        if effective is None:
            return Unresolved(
                "agent_not_found", f"agent {session.agent!r} of namespace {session.namespace!r} does not exist any more"
            )
        found = self._resolve(session, revision, effective)
        if isinstance(found, Unresolved):
            return found
        body = msgspec.json.encode(found, order="deterministic")
        digest = hashlib.sha256(body).hexdigest()
        if digest not in self._pins:
            await self._store.put_definition(digest, body)
        if len(self._recent) >= self._max:
            self._recent.clear()
        pin = self._recent[_place(session, revision)] = self._remember(digest, found)
        return pin

    def known(self, session: SessionRow, revision: int) -> Pin | None:
        """What `pin` would give, if it is known here without asking the store."""
        return self._recent.get(_place(session, revision))

    async def pinned(self, digest: str) -> Pin:
        """What a turn was pinned to. Raises `Defect` if the store has lost it."""
        known = self._pins.get(digest)
        if known is not None:
            return known
        body = await self._store.get_definition(digest)
        if body is None:
            raise Defect("defect", f"definition {digest[:12]} of a running turn is not in the store")
        return self._remember(digest, self._decoder.decode(body))

    def _remember(self, digest: str, definition: Definition) -> Pin:
        known = self._pins.get(digest)
        if known is not None:
            return known
        if len(self._pins) >= self._max:
            self._pins.clear()
        bound = self._registry.bind(definition.tools)
        self._pins[digest] = Pin(digest, definition, bound.specs, bound.tools)
        return self._pins[digest]

    async def _agent(self, session: SessionRow, revision: int) -> Effective | None:
        key = (session.namespace, session.agent, revision)
        if key not in self._effective:
            row = await self._store.get_revision(*key)
            if row is None:
                return None
            if len(self._effective) >= self._max:
                self._effective.clear()
            self._effective[key] = decode(row.effective)
        return self._effective[key]

    def _resolve(self, session: SessionRow, revision: int, effective: Effective) -> Definition | Unresolved:
        granted = self._registry.resolve(effective.tool_refs, effective.allowed_tools)
        if granted.unresolved:
            servers = set(granted.unresolved) & set(effective.tool_refs)
            return Unresolved("unresolved_reference", granted.detail + (_NO_SERVERS if servers else ""))
        if effective.knowledge_refs:
            names = ", ".join(map(repr, effective.knowledge_refs))
            return Unresolved("unresolved_reference", f"knowledgeRefs names {names}: this version gives no knowledge to agents")
        wanted = session.profile or effective.profile
        profiles = tuple(profile for profile in effective.profiles if not wanted or profile.name == wanted)
        if not profiles:
            return Unresolved("unresolved_reference", f"agent {effective.name!r} has no model profile {wanted!r}")
        served = tuple(profile for profile in profiles if profile.provider in self._providers)
        if not served:
            names = ", ".join(sorted({repr(profile.provider) for profile in profiles}))
            return Unresolved("unresolved_reference", f"no provider {names} is configured (providers.NAME in talon.yaml)")
        features = msgspec.json.decode(session.features, type=dict[str, Any])
        return Definition(
            namespace=session.namespace,
            agent=session.agent,
            revision=revision,
            system_prompt=render_prompt(effective, features),
            profiles=served,
            limits=effective.limits,
            tools=tuple(granted.pinned.values()),
            features=feature_values(effective, features),
        )


def _place(session: SessionRow, revision: int) -> tuple[str, str, int, bytes, str]:
    """All that a definition is made from."""
    return session.namespace, session.agent, revision, session.features, session.profile
