"""Apply, planned purely: manifests and what is stored -> what to write, what changes, and every error at once."""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.errors import FieldError, Invalid
from talon.domain.resources import Identity
from talon.manifest import kinds
from talon.manifest.agents import Definition, SessionSpec
from talon.manifest.complaints import nearest
from talon.manifest.conditions import unresolved, unserved_providers
from talon.manifest.diff import changes, same
from talon.manifest.document import path_text
from talon.manifest.effective import Effective
from talon.manifest.read import Manifest, Reading
from talon.manifest.resolve import Resolved, load, resolve, template_of
from talon.manifest.sessions import differs, planned_session, wrong_session
from talon.manifest.state import (
    Action,
    ApplyPlan,
    PlannedSession,
    Put,
    Result,
    State,
    Stored,
    Warn,
    bare_namespace,
    is_default,
)

_SHOWN_ERRORS = 3


def plan_apply(reading: Reading, state: State) -> ApplyPlan:
    """What applying `reading` to `state` writes: all of it, or `Invalid` with every error of every document.

    Planning the same manifests on the state that they led to gives an empty plan.
    """
    planner = _Planner(reading, state)
    planner.run()
    if planner.errors:
        raise invalid(planner.errors)
    return ApplyPlan(tuple(planner.results), tuple(planner.puts), tuple(planner.sessions), tuple(planner.warnings))


def plan_follow(state: State) -> tuple[Put, ...]:
    """New revisions of the stored agents of `state` whose stored template says something else than their newest revision.

    After an apply: whoever applied an agent and whoever applied its template at the same moment did not see each other. An agent
    that does not resolve any more keeps its revision.
    """
    puts: list[Put] = []
    for stored in state.resources.values():
        model = load(stored.body) if stored.kind == "Agent" else None
        if not isinstance(model, kinds.AgentDoc):
            continue
        row = state.resources.get((stored.namespace, "AgentTemplate", template_of(model)))
        template = load(row.body) if row is not None else None
        if isinstance(template, kinds.TemplateDoc):
            resolved = resolve(model, stored.namespace, template.definition)
            if isinstance(resolved, Resolved) and resolved.digest != stored.digest:
                puts.append(_revised(stored, resolved))
    return tuple(puts)


def _revised(stored: Stored, resolved: Resolved) -> Put:
    """A new revision of an agent whose own manifest stays as it is."""
    return Put(
        stored.namespace,
        "Agent",
        stored.name,
        stored.uid,
        stored.generation,
        None,
        resolved.body,
        resolved.digest,
        _follows(resolved.effective),
    )


def invalid(errors: list[FieldError]) -> Invalid:
    """One error that names the first few and carries all."""
    named = "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in errors[:_SHOWN_ERRORS])
    more = f" (and {len(errors) - _SHOWN_ERRORS} more)" if len(errors) > _SHOWN_ERRORS else ""
    return Invalid("invalid", f"{named}{more}", tuple(errors))


class _Planner:
    def __init__(self, reading: Reading, state: State) -> None:
        self.errors = list(reading.errors)
        self.results: list[Result] = []
        self.puts: list[Put] = []
        self.sessions: list[PlannedSession] = []
        self.warnings: list[Warn] = []
        self._manifests = reading.manifests
        self._broken = reading.broken
        self._state = state
        self._by_identity = {manifest.identity: manifest for manifest in reading.manifests}
        self._agents: dict[Identity, Effective] = {}

    def run(self) -> None:
        """Namespaces, templates, agents, the agents that follow a template, sessions: each may need the one before."""
        self._implied_namespaces()
        for manifest in self._manifests:
            if manifest.kind in ("Namespace", "AgentTemplate"):
                self._plain(manifest)
            elif isinstance(manifest.model, kinds.AgentDoc):
                self._agent(manifest, manifest.model)
        for manifest in self._manifests:
            if isinstance(manifest.model, kinds.TemplateDoc):
                self._dependents(manifest, manifest.model)
        for manifest in self._manifests:
            if isinstance(manifest.model, kinds.SessionDoc):
                self._session(manifest, manifest.model.spec)
            self.warnings += [Warn(one.field, one.message) for one in manifest.warnings]
        self.results.sort(key=lambda result: (result.document == 0, result.document))

    def _implied_namespaces(self) -> None:
        for namespace in dict.fromkeys(manifest.namespace for manifest in self._manifests if manifest.namespace):
            identity = ("", "Namespace", namespace)
            if identity in self._state.resources or identity in self._by_identity or identity in self._broken:
                continue
            body = msgspec.json.encode(bare_namespace(namespace))
            self.puts.append(Put("", "Namespace", namespace, "", 0, body))
            if is_default(namespace):
                continue
            self.results.append(Result(0, "Namespace", "", namespace, "created", cause="a manifest names it"))
            self.warnings.append(Warn("metadata.namespace", f"namespace {namespace!r} did not exist and is created"))

    def _error(self, manifest: Manifest, path: tuple[str | int, ...], message: str, value: Any = None) -> None:
        self.errors.append(manifest.document.error(path, message, value))

    def _plain(self, manifest: Manifest, resolved: Resolved | None = None) -> None:
        """A resource with its body; an agent with what it resolves to."""
        stored = self._state.resources.get(manifest.identity)
        if not self._uid_matches(manifest, stored.uid if stored else ""):
            return
        before: Any = msgspec.json.decode(stored.body) if stored else {}
        action: Action = "created" if stored is None else "unchanged" if same(before, manifest.body) else "changed"
        follows = stored is not None and resolved is not None and resolved.digest != stored.digest
        if action != "unchanged" or follows:
            cause = "" if resolved is None else action if action != "unchanged" else _follows(resolved.effective)
            self.puts.append(
                Put(
                    manifest.namespace,
                    manifest.kind,
                    manifest.name,
                    stored.uid if stored else "",
                    stored.generation if stored else 0,
                    msgspec.json.encode(manifest.body) if action != "unchanged" else None,
                    resolved.body if resolved else None,
                    resolved.digest if resolved else "",
                    cause,
                )
            )
        cause = _follows(resolved.effective) if resolved is not None and follows and action == "unchanged" else ""
        self.results.append(
            Result(
                manifest.document.index,
                manifest.kind,
                manifest.namespace,
                manifest.name,
                "changed" if cause else action,
                changes(before, manifest.body) if stored else (),
                cause,
            )
        )

    def _uid_matches(self, manifest: Manifest, uid: str) -> bool:
        given = manifest.model.metadata.uid
        if given is None or given == uid:
            return True
        what = f"the stored {manifest.label} has {uid}" if uid else f"there is no {manifest.label}"
        self._error(
            manifest, ("metadata", "uid"), f"{what}: this manifest is of another one; leave uid out to apply it anyway", given
        )
        return False

    # --- agents ---------------------------------------------------------------------------------------------------------------

    def _agent(self, manifest: Manifest, model: kinds.AgentDoc) -> None:
        definition, found = self._template(manifest.namespace, template_of(model))
        if not found:
            name = template_of(model)
            if (manifest.namespace, "AgentTemplate", name) not in self._broken:
                known = [
                    one[2]
                    for one in (*self._by_identity, *self._state.resources)
                    if one[:2] == (manifest.namespace, "AgentTemplate")
                ]
                hint = nearest(name, dict.fromkeys(known)) or "; apply one of that name first, or with it"
                self._error(
                    manifest, ("spec", "templateRef"), f"no template of that name in namespace {manifest.namespace}{hint}", name
                )
            return
        resolved = resolve(model, manifest.namespace, definition)
        if not isinstance(resolved, Resolved):
            for complaint in resolved:
                self._error(manifest, *complaint)
            return
        self._agents[manifest.identity] = resolved.effective
        self._plain(manifest, resolved)
        self._warn_unserved(manifest, resolved.effective)

    def _template(self, namespace: str, name: str) -> tuple[Definition | None, bool]:
        """-> (the template's definition as it will be, whether all is well: found, or none asked for)."""
        if not name:
            return None, True
        identity = (namespace, "AgentTemplate", name)
        manifest, stored = self._by_identity.get(identity), self._state.resources.get(identity)
        model = manifest.model if manifest else load(stored.body) if stored and identity not in self._broken else None
        return (model.definition, True) if isinstance(model, kinds.TemplateDoc) else (None, False)

    def _warn_unserved(self, manifest: Manifest, effective: Effective) -> None:
        catalogue = self._state.catalogue
        if catalogue is None:
            return
        for field, reason in unresolved(effective, catalogue).items():
            self.warnings.append(Warn(field, f"{manifest.label}: {reason}: turns on this agent are refused until one does"))
        if names := unserved_providers(effective, catalogue):
            message = f"{manifest.label}: no running worker has the provider {', '.join(names)}; configure it: providers.NAME"
            self.warnings.append(Warn("modelPolicy.profiles", message))

    def _dependents(self, manifest: Manifest, template: kinds.TemplateDoc) -> None:
        """The stored agents of a template, resolved again; one that would break is an error of the template."""
        for identity, stored in self._state.resources.items():
            if identity[:2] != (manifest.namespace, "Agent") or identity in self._by_identity or identity in self._broken:
                continue
            model = load(stored.body)
            if isinstance(model, kinds.AgentDoc) and template_of(model) == manifest.name:
                self._follow(manifest, template, stored, model)

    def _follow(self, manifest: Manifest, template: kinds.TemplateDoc, stored: Stored, model: kinds.AgentDoc) -> None:
        resolved = resolve(model, stored.namespace, template.definition)
        if not isinstance(resolved, Resolved):
            for path, message, value in resolved:
                text = f"Agent {stored.namespace}/{stored.name} uses this template and would break: {path_text(path)}: {message}"
                self._error(manifest, ("definition",), text, value)
            return
        self._agents[stored.namespace, "Agent", stored.name] = resolved.effective
        if resolved.digest == stored.digest:
            return
        cause = _follows(resolved.effective)
        self.puts.append(_revised(stored, resolved))
        self.results.append(Result(0, "Agent", stored.namespace, stored.name, "changed", cause=cause))

    # --- sessions -------------------------------------------------------------------------------------------------------------

    def _session(self, manifest: Manifest, spec: SessionSpec) -> None:
        agent = (manifest.namespace, "Agent", spec.agent)
        stored = self._state.resources.get(agent)
        effective = self._agents.get(agent) or (stored.effective if stored and agent not in self._by_identity else None)
        if effective is None:
            if agent not in self._by_identity and agent not in self._broken:
                hint = f"; apply one: kind: Agent, metadata.name: {spec.agent}, with a spec.templateRef or a definition"
                message = f"no agent of that name in namespace {manifest.namespace}{hint}"
                self._error(manifest, (*manifest.root, "agent"), message, spec.agent)
            return
        row = self._state.sessions.get((manifest.namespace, spec.agent, manifest.name))
        if row is not None and not self._uid_matches(manifest, row.uid):
            return
        wrong = wrong_session(spec, effective) or (differs(spec, row) if row is not None else [])
        for path, message, value in wrong:
            self._error(manifest, (*manifest.root, *path), message, value)
        if wrong:
            return
        if row is None:
            self.sessions.append(planned_session(spec, manifest.namespace, manifest.name))
        elif spec.messages:
            message = f"{manifest.document.place()}: session {manifest.name} exists; messages are imported only when it is created"
            self.warnings.append(Warn(path_text((*manifest.root, "messages")), message))
        action = "created" if row is None else "unchanged"
        self.results.append(Result(manifest.document.index, "Session", manifest.namespace, manifest.name, action))


def _follows(effective: Effective) -> str:
    return f"template {effective.template} changed"
