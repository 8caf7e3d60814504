"""What a turn is pinned to (K12): kept in the store under its digest, named by `turn.started`, the same after any restart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from talon.domain.errors import Defect
from talon.domain.models import Models
from talon.domain.session import SessionConfig, SessionRow
from talon.manifest.choosing import Wanted, choose, task_of
from talon.manifest.effective import Effective, Limits, Profile, decode
from talon.manifest.features import feature_values
from talon.manifest.prompt import render_prompt
from talon.store.protocols import Queue, Resources
from talon.tools.protocol import Tool, ToolSpec
from talon.tools.registry import Pinned, Registry


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prompt, models, limits and tool schemas of one turn, every place filled in. `profiles` are tried in order; `windows` are
    their context windows, where known; `blind` are those that are known to take no images, `continuing` those that may go on with a
    broken answer. `on_refusal`: end | next. `verbose`: visible thoughts are streamed and kept."""

    namespace: str
    agent: str
    revision: int
    system_prompt: str
    profiles: tuple[Profile, ...]
    limits: Limits = Limits()
    tools: tuple[Pinned, ...] = ()
    features: dict[str, Any] = {}
    windows: dict[str, int] = {}
    on_refusal: str = "end"
    verbose: bool = True
    blind: tuple[str, ...] = ()
    continuing: tuple[str, ...] = ()


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


_CONFIG = msgspec.json.Decoder(SessionConfig)
_CHOICES = ("auto", "none", "required")
_NO_SERVERS = "; to an McpServer that is a resource this version does not connect"


class DefinitionStore(Queue, Resources, Protocol):
    """What `Definitions` reads and writes."""


class Definitions:
    """Pins turns and finds what they were pinned to. Everything it remembers is immutable; bounded by `entries_max`."""

    def __init__(
        self, store: DefinitionStore, registry: Registry, providers: Sequence[str], models: Models, entries_max: int = 1024
    ) -> None:
        """`providers` are those that are configured here, `models` what is known of theirs."""
        self._store, self._registry, self._providers, self._models = store, registry, tuple(providers), models
        self._pins: dict[str, Pin] = {}
        self._recent: dict[tuple[str, str, int, bytes, str, bytes], Pin] = {}
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
        config = _CONFIG.decode(session.config)
        choice = choose(effective, Wanted(session.profile, config, task_of(effective)), self._providers, self._models)
        if choice.problem:
            return Unresolved("unresolved_reference", choice.problem)
        tools = granted.pinned.keys()
        for profile in choice.profiles:
            if profile.tool_choice and profile.tool_choice not in (*_CHOICES, *tools):
                wanted = f"profile {profile.name!r} has toolChoice {profile.tool_choice!r}, which is none of the agent's tools"
                return Unresolved("unresolved_reference", f"{wanted} ({', '.join(sorted(tools)) or 'it has none'})")
        features = msgspec.json.decode(session.features, type=dict[str, Any])
        return Definition(
            namespace=session.namespace,
            agent=session.agent,
            revision=revision,
            system_prompt=render_prompt(effective, features),
            profiles=choice.profiles,
            limits=effective.limits,
            tools=tuple(granted.pinned.values()),
            features=feature_values(effective, features),
            windows=choice.windows,
            on_refusal=effective.on_refusal,
            verbose=config.verbose_level is not False,
            blind=choice.blind,
            continuing=choice.continuing,
        )


def _place(session: SessionRow, revision: int) -> tuple[str, str, int, bytes, str, bytes]:
    """All that a definition is made from."""
    return session.namespace, session.agent, revision, session.features, session.profile, session.config
