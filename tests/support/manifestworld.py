"""What a store keeps, as far as plans need it: a fake of nothing but rows, with the guards that a store keeps."""

from __future__ import annotations

import msgspec

from talon.domain.errors import Invalid
from talon.domain.resources import INHERITED_KINDS, Identity, Ref, lineage
from talon.domain.session import SessionRow
from talon.manifest import effective
from talon.manifest.catalogue import Catalogue
from talon.manifest.parse import parse
from talon.manifest.plan import plan_apply
from talon.manifest.read import Reading, read
from talon.manifest.state import ApplyPlan, Needs, State, Stored, User

ROUNDS_MAX = 4


class Lost(Exception):
    """Somebody else was first: a guard does not hold."""


class World:
    """Manifests are applied to it one after the other; `plan` and `write` apart are two who write at the same moment."""

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self.rows: dict[Identity, Stored] = {}
        self.refs: dict[Identity, tuple[Ref, ...]] = {}
        self.sessions: dict[Identity, SessionRow] = {}
        self.revisions: dict[Identity, int] = {}
        self.values: dict[Identity, str] = {}
        self.asked: list[Needs] = []
        self.catalogue = catalogue
        self.now_ms = 0

    def plan(self, text: str) -> ApplyPlan:
        """What applying `text` would write."""
        return self.plan_of(read(parse(text.encode())))

    def plan_of(self, reading: Reading) -> ApplyPlan:
        """What applying `reading` would write. What the plan asks for is kept in `asked`."""
        self.asked = []
        state = State(catalogue=self.catalogue, now_ms=self.now_ms)
        for _ in range(ROUNDS_MAX):
            outcome = plan_apply(reading, state)
            if isinstance(outcome, ApplyPlan):
                return outcome
            self.asked.append(outcome)
            given = {one.identity: one.secret for one in reading.manifests}
            state = State(
                {**state.resources, **{one: self.rows.get(one) for one in outcome.resources}},
                {**state.users, **{one: self.users(*one) for one in outcome.users}},
                {**state.sessions, **{one: self.sessions.get(one) for one in outcome.sessions}},
                {**state.same_values, **{one: self.values.get(one) == given[one] for one in outcome.values}},
                self.catalogue,
                self.now_ms,
            )
        raise AssertionError(f"a plan asks for more than {ROUNDS_MAX} rounds")

    def users(self, namespace: str, ref: Ref) -> tuple[User, ...]:
        """As a store tells them: who is nearer is not looked at."""
        below = {one for one, *_ in self.refs if ref.kind in INHERITED_KINDS and namespace in lineage(one)} | {namespace}
        return tuple(
            sorted((*one, self.rows[one].generation) for one, refs in self.refs.items() if ref in refs and one[0] in below)
        )

    def write(self, plan: ApplyPlan) -> None:
        """As a store writes it: raises `Lost` unless every guard holds."""
        held = [self._generation(one.identity) == one.generation for one in plan.same]
        held += [self.users(one.namespace, one.ref) == one.users for one in plan.same_users]
        held += [self._generation((one.namespace, one.kind, one.name)) == one.if_generation for one in plan.puts]
        if not all(held):
            raise Lost
        for put in plan.puts:
            identity = (put.namespace, put.kind, put.name)
            old = self.rows.get(identity)
            body = put.body if put.body is not None else (old.body if old else b"")
            if put.body is not None:
                self.refs[identity] = put.refs
            generation = put.if_generation + (put.body is not None)
            if put.effective is not None and put.digest != (old.digest if old else ""):
                self.revisions[identity] = self.revisions.get(identity, 0) + 1
            if put.secret is not None:
                self.values[identity] = put.secret
            resolved = effective.decode(put.effective) if put.effective else None
            self.rows[identity] = Stored(*identity, put.uid or "uid-1", generation, body, resolved, put.digest)
        for one in plan.sessions:
            row = session_row(one.namespace, one.agent, one.id, one.metadata, one.features, one.profile)
            self.sessions[one.namespace, one.agent, one.id] = row

    def apply(self, text: str) -> ApplyPlan:
        """Plan and write."""
        plan = self.plan(text)
        self.write(plan)
        return plan

    def errors(self, text: str) -> dict[str, str]:
        """Field -> message of what is refused."""
        try:
            self.plan(text)
        except Invalid as refused:
            return {one.field: one.message for one in refused.errors}
        raise AssertionError("nothing is refused")

    def mark(self, identity: Identity) -> None:
        """It is being deleted from now on."""
        self.rows[identity] = msgspec.structs.replace(self.rows[identity], deleting=True)

    def effective(self, namespace: str, agent: str) -> effective.Effective:
        """What an agent resolves to."""
        found = self.rows[namespace, "Agent", agent].effective
        assert found is not None
        return found

    def _generation(self, identity: Identity) -> int:
        return self.rows[identity].generation if identity in self.rows else 0


def session_row(namespace: str, agent: str, name: str, metadata: bytes, features: bytes, profile: str) -> SessionRow:
    """A session that nothing has happened to yet."""
    return SessionRow(
        1, "uid-s", namespace, agent, name, "idle", 1, 0, 0, None, None, None, 0, metadata, features, profile, "", 0, 0
    )  # fmt: skip


def actions(plan: ApplyPlan) -> list[tuple[str, str]]:
    """What becomes of each."""
    return [(f"{one.kind} {one.name}", one.action) for one in plan.results]
