"""Apply, planned purely: manifests and what is stored -> what to write, what changes, and every error at once.

A plan is decided on what is known of the store. What it lacks it asks for (`Needs`); who has the store looks it up and plans
again, until nothing is lacking: three times at most. What it was decided on it guards (`same`, `same_users`), so that of two who
write at the same moment the later one decides again: no agent is ever left behind its template.
"""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.errors import Conflict, FieldError, Invalid
from talon.domain.resources import Identity, Ref, lineage
from talon.manifest import kinds
from talon.manifest.agents import Definition, SessionSpec
from talon.manifest.complaints import nearest
from talon.manifest.conditions import not_yet, unresolved, unserved, wanted
from talon.manifest.diff import FieldChange, changes, same
from talon.manifest.document import Path, path_text
from talon.manifest.effective import Effective
from talon.manifest.follow import follow
from talon.manifest.lookup import Lookup
from talon.manifest.occurrences import FireTime, fire_time, never_fires, plan_of, preview, same_times
from talon.manifest.prompt import SCHEDULED_AT
from talon.manifest.read import Manifest, Reading
from talon.manifest.references import places, refs, stands
from talon.manifest.resolve import Resolved, load, resolve, template_of
from talon.manifest.schedule import ScheduleSpec
from talon.manifest.sessions import differs, planned_session, wrong_session
from talon.manifest.state import (
    Action,
    ApplyPlan,
    Needs,
    PlannedSession,
    Put,
    Result,
    Same,
    SameUsers,
    State,
    Stored,
    Warn,
    bare_namespace,
    is_default,
)
from talon.manifest.within import unknown_places

_SHOWN_ERRORS = 3
_NEW_VALUE = "(a new value)"
_TIMES_SHOWN = 5


def plan_apply(reading: Reading, state: State) -> ApplyPlan | Needs:
    """What applying `reading` to `state` writes: all of it, or `Invalid` with every error of every document; or what must be known
    of the store to say so.

    Planning the same manifests on the state that they led to gives an empty plan.
    """
    planner = _Planner(reading, state)
    planner.run()
    needs = planner.look.needs
    if not needs.nothing:
        return needs
    planner.refuse()
    return planner.plan()


def invalid(errors: list[FieldError]) -> Invalid:
    """One error that names the first few and carries all."""
    named = "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in errors[:_SHOWN_ERRORS])
    more = f" (and {len(errors) - _SHOWN_ERRORS} more)" if len(errors) > _SHOWN_ERRORS else ""
    return Invalid("invalid", f"{named}{more}", tuple(errors))


class _Planner:
    def __init__(self, reading: Reading, state: State) -> None:
        self.errors = list(reading.errors)
        self._manifests, self._broken, self._catalogue = reading.manifests, reading.broken, state.catalogue
        self._now_ms = state.now_ms
        self._applied = {manifest.identity: manifest for manifest in reading.manifests}
        self.look = Lookup(state, self._applied, reading.broken)
        self._results: list[Result] = []
        self._puts: dict[Identity, Put] = {}
        self._sessions: list[PlannedSession] = []
        self._warnings: list[Warn] = []
        self._same: dict[Same, None] = {}
        self._same_users: list[SameUsers] = []
        self._agents: dict[Identity, Effective] = {}
        self._digests: dict[Identity, str] = {}
        self._going: list[FieldError] = []

    def plan(self) -> ApplyPlan:
        """What `run` came to."""
        results = sorted(self._results, key=lambda result: (result.document == 0, result.document))
        return ApplyPlan(
            tuple(results),
            tuple(self._puts.values()),
            tuple(self._sessions),
            tuple(self._warnings),
            tuple(one for one in self._same if one.identity not in self._puts),
            tuple(self._same_users),
            {manifest.identity: refs(manifest.model) for manifest in self._manifests if manifest.kind != "Session"},
            self._digests,
        )

    def refuse(self) -> None:
        """Raise what is wrong: `Conflict("terminating")` if all that is wrong is that something is being deleted."""
        if self.errors:
            raise invalid(self.errors + self._going)
        if self._going:
            first, more = self._going[0], len(self._going) - 1
            also = f" (and {more} more)" if more else ""
            raise Conflict("terminating", f"{first.message}{also}", tuple(self._going))

    def run(self) -> None:
        """Namespaces, what agents are made from, agents, the agents that follow, sessions: each may need the one before."""
        going = self._namespaces()
        for manifest in self._manifests:
            if manifest.namespace in going or (manifest.kind == "Namespace" and manifest.name in going):
                self._deleted(manifest, _NAMESPACE if manifest.namespace else _NAME, manifest.namespace or manifest.name)
            elif isinstance(manifest.model, kinds.AgentDoc):
                self._agent(manifest, manifest.model)
            elif manifest.kind != "Session":
                self._plain(manifest)
        for manifest in self._manifests:
            written = manifest.identity in self._puts and self.look.knows(manifest.identity)
            if isinstance(manifest.model, kinds.TemplateDoc) and written:
                self._followers(manifest, manifest.model)
        for manifest in self._manifests:
            if isinstance(manifest.model, kinds.SessionDoc) and manifest.namespace not in going:
                self._session(manifest, manifest.model.spec)
            elif isinstance(manifest.model, kinds.ScheduleDoc) and manifest.identity in self._puts:
                self._message(manifest, manifest.model.spec)
            self._warnings += [Warn(one.field, one.message) for one in manifest.warnings]

    def _error(self, manifest: Manifest, path: Path, message: str, value: Any = None) -> None:
        self.errors.append(manifest.document.error(path, message, value))

    def _warn(self, manifest: Manifest, path: Path, message: str) -> None:
        self._warnings.append(Warn(path_text(path), manifest.document.said(path, f"{manifest.label}: {message}")))

    def _deleted(self, manifest: Manifest, path: Path, what: str) -> None:
        self._going.append(manifest.document.error(path, f"{what} is being deleted; apply again when it is gone", what))

    # --- namespaces -----------------------------------------------------------------------------------------------------------

    def _namespaces(self) -> set[str]:
        """Plan those that must be made, ancestors first; -> those that are being deleted."""
        named = dict.fromkeys(one for manifest in self._manifests for one in reversed(lineage(manifest.namespace or manifest.name)))
        going: set[str] = set()
        for namespace in named:
            identity = ("", "Namespace", namespace)
            stored = self.look.stored(identity)
            if (stored is not None and stored.deleting) or not going.isdisjoint(lineage(namespace)):
                going.add(namespace)
            elif stored is None:
                self._new_namespace(namespace)
        return going

    def _new_namespace(self, namespace: str) -> None:
        for parent in lineage(namespace)[1:2]:
            if (above := self.look.stored(("", "Namespace", parent))) is not None:
                self._same[Same(("", "Namespace", parent), above.generation)] = None
        identity = ("", "Namespace", namespace)
        if identity not in self._applied and identity not in self._broken:
            self._implied(namespace)

    def _implied(self, namespace: str) -> None:
        body = msgspec.json.encode(bare_namespace(namespace))
        self._puts["", "Namespace", namespace] = Put("", "Namespace", namespace, "", 0, body)
        if is_default(namespace):
            return
        self._results.append(Result(0, "Namespace", "", namespace, "created", cause="a manifest names it"))
        self._warnings.append(Warn("metadata.namespace", f"namespace {namespace!r} did not exist and is created"))

    # --- resources ------------------------------------------------------------------------------------------------------------

    def _plain(self, manifest: Manifest, resolved: Resolved | None = None) -> None:
        """A resource with its body; an agent with what it resolves to, a secret with its value."""
        stored = self.look.stored(manifest.identity)
        if stored is not None and stored.deleting:
            self._deleted(manifest, _NAME, manifest.name)
            return
        if not self._uid_matches(manifest, stored.uid if stored else ""):
            return
        before: Any = msgspec.json.decode(stored.body) if stored else {}
        new_value = manifest.secret is not None and (stored is None or not self.look.same_value(manifest.identity))
        kept = same(before, manifest.body) and not new_value
        action: Action = "created" if stored is None else "unchanged" if kept else "changed"
        follows = stored is not None and resolved is not None and resolved.digest != stored.digest
        cause = _follows(resolved.effective) if resolved is not None and follows and action == "unchanged" else ""
        if action != "unchanged" or follows:
            self._puts[manifest.identity] = _put(manifest, stored, resolved, new_value, action, cause)
        differing = changes(before, manifest.body) if stored else ()
        if stored is not None and new_value:
            differing += (FieldChange("spec.value", after=_NEW_VALUE),)
        place = (manifest.document.index, manifest.kind, manifest.namespace, manifest.name)
        fires = self._fires(manifest, before) if action in ("created", "changed") else ()
        self._results.append(Result(*place, "changed" if cause else action, differing, cause, fires))
        if not isinstance(manifest.model, kinds.AgentDoc | kinds.TemplateDoc):
            self._warn_dangling(manifest)

    def _fires(self, manifest: Manifest, before: Any) -> tuple[FireTime, ...]:
        """The next times of a Schedule. One that will never fire is refused, unless it is over and its times stay as they are."""
        if not isinstance(manifest.model, kinds.ScheduleDoc) or not manifest.model.spec.enabled or not self._now_ms:
            return ()
        spec = manifest.model.spec
        times = preview(plan_of(spec).timing, self._now_ms, self._now_ms, _TIMES_SHOWN)
        if not times and not same_times(spec, before.get("spec")):
            field, why = never_fires(spec, self._now_ms)
            self._error(manifest, ("spec", field), why, getattr(spec, field))
        return tuple(fire_time(ms, spec.timezone) for ms in times)

    def _message(self, manifest: Manifest, spec: ScheduleSpec) -> None:
        """Places in a schedule's message that its agent does not know. A paused one may wait for them; a firing looks again."""
        agent = self._agent_as_applied((manifest.namespace, "Agent", spec.target.agent))
        if agent is None or not spec.enabled:
            return
        for path, message, value in unknown_places(("spec", "inputMessage"), spec.input_message, agent.declared, SCHEDULED_AT):
            self._error(manifest, path, message, value)

    def _agent_as_applied(self, agent: Identity) -> Effective | None:
        """The definition of an agent once all is applied; None if there is none, or none that can be read."""
        stored = self.look.stored(agent)
        return self._agents.get(agent) or (stored.effective if stored and agent not in self._applied else None)

    def _uid_matches(self, manifest: Manifest, uid: str) -> bool:
        given = manifest.model.metadata.uid
        if given is None or given == uid:
            return True
        what = f"the stored {manifest.label} has {uid}" if uid else f"there is no {manifest.label}"
        self._error(
            manifest, ("metadata", "uid"), f"{what}: this manifest is of another one; leave uid out to apply it anyway", given
        )
        return False

    def _warn_dangling(self, manifest: Manifest) -> None:
        for path, ref in places(manifest.model):
            served = ref.kind == "McpServer" and self._catalogue is not None and ref.name in self._catalogue.toolsets
            if self.look.nearest(manifest.namespace, ref) is None and not served:
                message = f"no {ref.kind} {ref.name!r} in namespace {manifest.namespace} yet"
                self._warn(manifest, path, message)

    # --- agents ---------------------------------------------------------------------------------------------------------------

    def _agent(self, manifest: Manifest, model: kinds.AgentDoc) -> None:
        definition, found = self._template(manifest, template_of(model))
        if not found:
            return
        resolved = resolve(model, manifest.namespace, definition)
        if not isinstance(resolved, Resolved):
            for complaint in resolved:
                self._error(manifest, *complaint)
            return
        self._agents[manifest.identity] = resolved.effective
        self._digests[manifest.identity] = resolved.digest
        self._plain(manifest, resolved)
        ref = Ref("AgentTemplate", resolved.effective.template)
        if manifest.identity in self._puts and (template := self.look.nearest(manifest.namespace, ref)):
            self._same |= dict.fromkeys(self.look.guards(manifest.namespace, ref, template))
        self._warn_unserved(manifest, resolved.effective)

    def _template(self, manifest: Manifest, name: str) -> tuple[Definition | None, bool]:
        """-> (the template's definition as it will be, whether all is well: found, or none asked for)."""
        if not name:
            return None, True
        ref = Ref("AgentTemplate", name)
        identity = self.look.nearest(manifest.namespace, ref)
        if identity is None:
            known = [one[2] for one in self._applied if one[1] == "AgentTemplate" and one[0] in lineage(manifest.namespace)]
            hint = nearest(name, dict.fromkeys(known)) or "; apply one of that name first, or with it"
            message = f"no template of that name in namespace {manifest.namespace}{hint}"
            self._error(manifest, ("spec", "templateRef"), message, name)
            return None, False
        if identity in self._broken:
            return None, False
        applied, stored = self._applied.get(identity), self.look.stored(identity)
        model = applied.model if applied else load(stored.body) if stored else None
        return (model.definition, True) if isinstance(model, kinds.TemplateDoc) else (None, False)

    def _warn_unserved(self, manifest: Manifest, effective: Effective) -> None:
        found = [one for one in wanted(manifest.model, manifest.namespace, effective) if self.look.exists(one)]
        dangling = unresolved(effective, found, self._catalogue)
        unused = not_yet(effective, found, self._catalogue) if self._catalogue is not None else {}
        for field in dangling | unused:
            reasons = "; ".join(each[field] for each in (dangling, unused) if field in each)
            self._warn(manifest, stands(manifest.body, field), f"{reasons}. As long as that is so, turns on this agent are refused")
        if self._catalogue is None:
            return
        lacking = unserved(effective, self._catalogue)
        at = stands(manifest.body, "policies.model_routing" if effective.routing else "modelPolicy.profiles")
        for tier, why in lacking.blocked.items():
            data = f"data of tier {tier}: " if effective.routing else ""
            self._warn(manifest, at, f"{data}{why}: such turns are denied until one is")
        if lacking.left_out and 0 not in lacking.blocked:
            self._warn(manifest, at, f"no running worker can ask {'; '.join(lacking.left_out)}")

    def _followers(self, manifest: Manifest, template: kinds.TemplateDoc) -> None:
        """The stored agents of a template, resolved again; one that would break is an error of the template."""
        followed = follow(manifest, template, self.look, self._applied.keys() | self._broken)
        self.errors += followed.errors
        self._agents |= followed.agents
        self._puts |= {(put.namespace, put.kind, put.name): put for put in followed.puts}
        self._results += [Result(0, "Agent", put.namespace, put.name, "changed", cause=put.cause) for put in followed.puts]
        self._same |= dict.fromkeys(followed.same)
        self._same_users.append(followed.same_users)

    # --- sessions -------------------------------------------------------------------------------------------------------------

    def _session(self, manifest: Manifest, spec: SessionSpec) -> None:
        agent = (manifest.namespace, "Agent", spec.agent)
        stored, effective = self.look.stored(agent), self._agent_as_applied(agent)
        if stored is not None and stored.deleting:
            self._deleted(manifest, (*manifest.root, "agent"), spec.agent)
            return
        if effective is None:
            if agent not in self._applied and agent not in self._broken:
                hint = f"; apply one: kind: Agent, metadata.name: {spec.agent}, with a spec.templateRef or a definition"
                message = f"no agent of that name in namespace {manifest.namespace}{hint}"
                self._error(manifest, (*manifest.root, "agent"), message, spec.agent)
            return
        row = self.look.session((manifest.namespace, spec.agent, manifest.name))
        if row is not None and not self._uid_matches(manifest, row.uid):
            return
        wrong = wrong_session(spec, effective) or (differs(spec, row) if row is not None else [])
        for path, message, value in wrong:
            self._error(manifest, (*manifest.root, *path), message, value)
        if wrong:
            return
        if row is None:
            self._sessions.append(planned_session(spec, manifest.namespace, manifest.name))
            if stored is not None:
                self._same[Same(agent, stored.generation)] = None
        elif spec.messages:
            message = f"session {manifest.name} exists; messages are imported only when it is created"
            path = (*manifest.root, "messages")
            self._warnings.append(Warn(path_text(path), manifest.document.said(path, message)))
        action = "created" if row is None else "unchanged"
        self._results.append(Result(manifest.document.index, "Session", manifest.namespace, manifest.name, action))


_NAME: Path = ("metadata", "name")
_NAMESPACE: Path = ("metadata", "namespace")


def _put(manifest: Manifest, stored: Stored | None, resolved: Resolved | None, new_value: bool, action: str, cause: str) -> Put:
    """The manifest as it is written. An agent that only follows its template keeps its body."""
    return Put(
        manifest.namespace,
        manifest.kind,
        manifest.name,
        stored.uid if stored else "",
        stored.generation if stored else 0,
        None if cause else msgspec.json.encode(manifest.body),
        manifest.labels,
        refs(manifest.model),
        resolved.body if resolved else None,
        resolved.digest if resolved else "",
        "" if resolved is None else cause or action,
        manifest.secret if new_value else None,
    )


def _follows(effective: Effective) -> str:
    return f"template {effective.template} changed"
