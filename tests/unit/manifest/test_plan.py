"""Apply as a plan: what is written, what follows, what is refused; and conditions as they are read."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.manifests import AGENT, ALL, SESSION, TEMPLATE
from support.manifestworld import World, actions
from talon.domain.errors import Invalid
from talon.manifest.catalogue import Catalogue, encode, merge
from talon.manifest.conditions import Condition, conditions, wanted
from talon.manifest.document import Path, path_text, walk
from talon.manifest.effective import Effective
from talon.manifest.resolve import load
from talon.manifest.state import Stored
from talon.manifest.views import Stamp, shown_effective, shown_manifest

STAMP = Stamp("uid-1", 1, 7, "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z")


def test_the_documents_own_manifests_make_an_agent_with_a_session_and_a_namespace() -> None:
    world = World()
    plan = world.apply(ALL)
    assert actions(plan) == [
        ("AgentTemplate customer-support", "created"),
        ("Agent customer-support", "created"),
        ("Session enterprise-renewals", "created"),
        ("Namespace acme", "created"),
    ]
    assert any("'acme' did not exist" in warn.message for warn in plan.warnings)
    (session,) = plan.sessions
    assert [entry.type for entry in session.history] == ["message.received", "message.completed"]
    assert session.metadata == b'{"owner":"revenue-ops"}'
    put = plan.puts[-1]
    assert put.effective is not None
    assert put.digest == hashlib.sha256(put.effective).hexdigest()


def test_an_unchanged_apply_writes_nothing() -> None:
    world = World()
    world.apply(ALL)
    again = world.plan(ALL)
    assert again.empty
    assert {action for _, action in actions(again)} == {"unchanged"}
    assert any("imported only when it is created" in warn.message for warn in again.warnings)


def test_the_default_namespace_is_made_without_a_word() -> None:
    plan = World().apply(
        AGENT.replace("namespace: acme", "")
        .replace("templateRef: customer-support", "modelPolicy: {profiles: [{name: p, model: {provider: x, name: y}}]}")
        .replace("features:\n    customer_id: cus_1", "")
    )
    assert actions(plan) == [("Agent customer-support", "created")]
    assert [put.kind for put in plan.puts] == ["Namespace", "Agent"]
    assert plan.warnings == ()


def test_a_changed_template_makes_a_new_revision_of_its_agents_and_of_no_other() -> None:
    world = World()
    world.apply(ALL)
    other = AGENT.replace("name: customer-support", "name: other").replace(
        "  templateRef: customer-support\n  features:\n    customer_id: cus_1\n",
        "  modelPolicy: {profiles: [{name: p, model: {provider: x, name: y}}]}\n",
    )
    world.apply(other)
    plan = world.apply(TEMPLATE.replace("temperature: 0.2", "temperature: 0.7"))
    assert actions(plan) == [("AgentTemplate customer-support", "changed"), ("Agent customer-support", "changed")]
    assert plan.results[1].cause == "template customer-support changed"
    assert plan.puts[1].body is None
    (change,) = plan.results[0].changes
    assert (change.field, change.before, change.after) == (
        "definition.customSpec.modelPolicy.profiles[0].model.temperature",
        0.2,
        0.7,
    )
    assert world.revisions == {("acme", "Agent", "customer-support"): 2, ("acme", "Agent", "other"): 1}


def test_template_and_agent_changed_together_make_one_revision() -> None:
    world = World()
    world.apply(ALL)
    plan = world.apply(TEMPLATE.replace("0.2", "0.3") + "---\n" + AGENT.replace("cus_1", "cus_2"))
    assert world.revisions["acme", "Agent", "customer-support"] == 2
    assert [put.kind for put in plan.puts] == ["AgentTemplate", "Agent"]
    again = world.apply(TEMPLATE.replace("0.2", "0.4") + "---\n" + AGENT.replace("cus_1", "cus_2"))
    assert again.results[1].cause == "template customer-support changed"
    assert world.revisions["acme", "Agent", "customer-support"] == 3


def test_labels_change_the_generation_and_not_the_revision() -> None:
    world = World()
    world.apply(ALL)
    world.apply(AGENT.replace("namespace: acme", "namespace: acme\n  labels: {team: renewals}"))
    assert world.rows["acme", "Agent", "customer-support"].generation == 2
    assert world.revisions["acme", "Agent", "customer-support"] == 1


def test_a_template_that_would_break_its_agents_is_refused_and_says_whose() -> None:
    world = World()
    world.apply(ALL)
    message = world.errors(TEMPLATE.replace("name: customer_id", "name: account_id"))["definition"]
    assert "Agent acme/customer-support uses this template and would break: spec.features.customer_id: unknown feature" in message


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (AGENT, "spec.templateRef", "no template of that name in namespace acme"),
        (
            TEMPLATE + "---\n" + AGENT.replace("templateRef: customer-support", "templateRef: customer-suport"),
            "spec.templateRef",
            "did you mean",
        ),
        (TEMPLATE + "---\n" + AGENT.replace("namespace: acme", "namespace: other"), "spec.templateRef", "in namespace other"),
        (SESSION, "agent", "no agent of that name in namespace acme"),
        (
            ALL.replace("  features:\n    customer_id: cus_1\n", ""),
            "features.customer_id",
            "is missing: agent customer-support needs it",
        ),
        (
            ALL.replace("metadata:\n  owner", "features: {customer_id: cus_2}\nmetadata:\n  owner"),
            "features.customer_id",
            "set by agent",
        ),
        (ALL.replace("metadata:\n  owner", "profile: cheap\nmetadata:\n  owner"), "profile", "unknown profile"),
        (ALL.replace("owner: revenue-ops", f"owner: {'x' * 70_000}"), "metadata", "at most 65536"),
        (TEMPLATE.replace("namespace: acme", "namespace: acme\n  uid: u"), "metadata.uid", "there is no AgentTemplate"),
    ],
)
def test_what_does_not_fit_together_is_named(text: str, field: str, words: str) -> None:
    assert words in World().errors(text)[field]


def test_a_broken_document_is_not_also_reported_as_missing() -> None:
    found = World().errors(ALL.replace("systemPrompt", "sistemPrompt"))
    assert list(found) == ["definition.customSpec.sistemPrompt"]
    found = World().errors(ALL.replace("templateRef", "tmplateRef"))
    assert list(found) == ["spec.tmplateRef"]


def test_a_session_that_exists_is_not_changed_by_apply() -> None:
    world = World()
    world.apply(ALL)
    found = world.errors(ALL.replace("revenue-ops", "sales"))
    assert (
        "(owner); apply creates sessions, PATCH /v1/ns/acme/agents/customer-support/sessions/enterprise-renewals"
        in found["metadata"]
    )


def test_what_no_worker_serves_is_a_warning_on_apply() -> None:
    world = World(Catalogue({"stripe-readonly": ("list",), "builtin": ()}, ("anthropic",)))
    refs, profiles = (warn.message for warn in world.apply(ALL).warnings if warn.field == "spec.templateRef")
    assert refs.startswith("document "), "a command finds file and line by it"
    assert "no running worker serves hubspot-readonly" in refs
    assert "no provider 'openai' is configured" in profiles
    narrowed = AGENT + "  mcpServerRefs: [stripe-readonly]\n  capabilities: {allowed_tools: [list, refund]}\n"
    messages = {warn.field: warn.message for warn in world.apply(narrowed).warnings}
    assert "allowed_tools: refund: not one tool" in messages["spec.capabilities.allowed_tools"]


def agent_of(world: World) -> tuple[Stored, Effective]:
    stored = world.rows["acme", "Agent", "customer-support"]
    assert stored.effective is not None
    return stored, stored.effective


def agent_conditions(stored: Stored, effective: Effective) -> tuple[Condition, ...]:
    model = load(stored.body)
    return conditions(model, "acme", wanted(model, "acme", effective), None, effective=effective)


def test_conditions_say_what_is_so_now() -> None:
    world = World()
    world.apply(ALL)
    stored, effective = agent_of(world)
    model = load(stored.body)

    def now(template: bool, catalogue: Catalogue | None) -> tuple[Condition, ...]:
        found = [one for one in wanted(model, "acme", effective) if template and one[1] == "AgentTemplate"]
        return conditions(model, "acme", found, catalogue, effective=effective)

    def status(template: bool, catalogue: Catalogue | None) -> list[tuple[str, str]]:
        return [(one.status, one.reason) for one in now(template, catalogue)]

    good = Catalogue({"stripe-readonly": (), "hubspot-readonly": ()}, ("openai",))
    assert status(True, good) == [("True", "Resolved"), ("True", "Ready")]
    assert status(True, None) == [("Unknown", "NoWorker"), ("Unknown", "NoWorker")]
    assert status(False, good) == [("False", "UnresolvedReference"), ("False", "UnresolvedReference")]
    assert status(True, Catalogue({}, ("openai",))) == [("False", "UnresolvedReference")] * 2
    assert "stripe-readonly, hubspot-readonly" in now(True, Catalogue())[0].message
    assert status(True, Catalogue(good.toolsets, ())) == [("True", "Resolved"), ("False", "NoProvider")]


def test_an_agent_is_ready_when_the_route_of_its_data_is_served_whatever_its_profiles_are() -> None:
    routes = "  policies: {model_routing: {tier_0: {primary: near/m, fallback: [far/m]}, tier_2: {primary: far/m}}}\n"
    world = World(Catalogue({"stripe-readonly": (), "hubspot-readonly": ()}, ("near",)))
    warnings = [
        warn.message
        for warn in world.apply(TEMPLATE + "---\n" + AGENT + routes).warnings
        if warn.field == "spec.policies.model_routing"
    ]
    assert len(warnings) == 3, "of tiers 1 and 2, which have one route, and of the fallback"
    assert "data of tier 2: model_routing names no model that is served here (far/m)" in warnings[1]
    assert "no running worker can ask far/m: no profile, and no model" in warnings[2]
    stored, effective = agent_of(world)
    model = load(stored.body)

    def ready(*providers: str) -> Condition:
        found = [one for one in wanted(model, "acme", effective) if one[1] == "AgentTemplate"]
        toolsets = {"stripe-readonly": (), "hubspot-readonly": ()}
        return conditions(model, "acme", found, Catalogue(toolsets, providers), effective=effective)[1]

    assert (ready("near", "far").status, ready("near", "far").message) == ("True", "")
    assert (ready("near").status, ready("far").status) == ("True", "True")
    assert "data of tier 2" in ready("near").message
    assert ready("openai").reason == "NoProvider", "which its profiles have, and no route names"


def test_catalogues_of_several_workers_are_merged_and_none_is_none() -> None:
    assert merge([]) is None
    one, other = Catalogue({"a": ("x",)}, ("p",)), Catalogue({"a": ("y",), "b": ()}, ("q",))
    assert merge([encode(one), encode(other), b"not json", b""]) == Catalogue({"a": ("x", "y"), "b": ()}, ("p", "q"))


def test_what_is_shown_can_be_applied_and_changes_nothing() -> None:
    world = World()
    world.apply(ALL)
    stored, effective = agent_of(world)
    shown = shown_manifest(stored.body, STAMP, agent_conditions(stored, effective), 1)
    assert shown["status"]["template"] == "customer-support"
    assert world.plan(msgspec.json.encode(shown).decode()).empty
    disordered = msgspec.json.encode(dict(reversed(msgspec.json.decode(stored.body).items())))
    assert list(shown_manifest(disordered, STAMP)) == ["apiVersion", "kind", "metadata", "spec", "status"], "however it was sent"
    moved = {**shown, "metadata": {**shown["metadata"], "uid": "another"}}
    assert "the stored Agent acme/customer-support has uid-1" in world.errors(msgspec.json.encode(moved).decode())["metadata.uid"]


def test_the_effective_view_is_an_agent_that_resolves_to_the_same() -> None:
    world = World()
    world.apply(ALL)
    stored, effective = agent_of(world)
    shown = shown_effective(
        effective, {"name": "customer-support", "namespace": "acme"}, STAMP, agent_conditions(stored, effective), 1
    )
    assert shown["status"]["template"] == "customer-support"
    world.apply(msgspec.json.encode(shown).decode())
    assert msgspec.structs.replace(agent_of(world)[1], template="customer-support") == effective


# --- properties -----------------------------------------------------------------------------------------------------------------

names = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
models = st.from_regex(r"[!-~äß漢]([ -~äß漢]{0,18}[!-~äß漢])?", fullmatch=True)
scalars = words | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    kind, value = draw(
        st.one_of(
            st.tuples(st.just("string"), words),
            st.tuples(st.just("number"), st.integers(-1000, 1000) | st.floats(-1e9, 1e9)),
            st.tuples(st.just("boolean"), st.booleans()),
            st.tuples(st.just("list"), st.lists(scalars, max_size=3)),
        )
    )
    one: dict[str, Any] = {"name": draw(st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)), "type": kind}
    if draw(st.booleans()):
        one["default"] = value
    if draw(st.booleans()):
        one["description"] = draw(words)
    return one


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    features = draw(st.lists(declarations(), max_size=3, unique_by=lambda one: one["name"]))
    prompt = draw(words).replace("{", "").replace("}", "") + "".join(f"{{{{ {one['name']} }}}}" for one in features)
    profiles = [
        {"name": name, "model": {"provider": draw(names), "name": draw(models), "temperature": draw(st.floats(0, 2))}}
        for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))
    ]
    spec: dict[str, Any] = {"features": features, "modelPolicy": {"profiles": profiles}, "systemPrompt": prompt}
    if draw(st.booleans()):
        spec["mcpServerRefs"] = draw(st.lists(names, max_size=3, unique=True))
    if draw(st.booleans()):
        spec["limits"] = {"model_calls_max": draw(st.integers(1, 99)), "wall_time_max_s": draw(st.floats(0, 1e6))}
    if draw(st.booleans()):
        spec["capabilities"] = {"allowed_tools": draw(st.lists(names, max_size=3, unique=True))}
    return {"customSpec": spec}


@st.composite
def applications(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A template and an agent of it, or an agent on its own; valid in every part."""
    head = {"apiVersion": "talon.dev/v1alpha1"}
    definition, name, namespace = draw(definitions()), draw(names), draw(names)
    metadata = {"name": name, "namespace": namespace, "annotations": {"note": draw(words)}}
    if draw(st.booleans()):
        return [{**head, "kind": "Agent", "metadata": metadata, "definition": definition}]
    return [
        {**head, "kind": "AgentTemplate", "metadata": {"name": "t", "namespace": namespace}, "definition": definition},
        {**head, "kind": "Agent", "metadata": metadata, "spec": {"templateRef": "t"}},
    ]


@given(applications())
@settings(max_examples=60, deadline=None)
def test_applying_talons_own_output_changes_nothing(documents: list[dict[str, Any]]) -> None:
    world = World()
    world.apply(msgspec.json.encode(documents).decode())
    shown = [shown_manifest(row.body, Stamp(row.uid, row.generation, 1, "", ""), (), 1) for row in world.rows.values()]
    assert world.plan(msgspec.json.encode(shown).decode()).empty
    agent = next(row for row in world.rows.values() if row.kind == "Agent")
    assert agent.effective is not None
    metadata = msgspec.json.decode(agent.body)["metadata"]
    effective = shown_effective(agent.effective, metadata, Stamp("uid-1", 1, 1, "", ""), (), 1)
    world.apply(msgspec.json.encode(effective).decode())
    again = world.rows["", "Namespace", agent.namespace], world.rows[agent.namespace, "Agent", agent.name]
    assert again[1].effective == msgspec.structs.replace(agent.effective, template="")


def _fields(data: Any) -> list[Path]:
    """The paths of all field names that Talon gives a meaning (annotations have names of their own)."""
    paths = [path for path, _ in walk(data)]
    return [path for path in paths if path and isinstance(path[-1], str) and path[-2:-1] != ("annotations",)]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_misspelt_field_is_named(data: st.DataObject) -> None:
    documents = data.draw(applications())
    path = data.draw(st.sampled_from(_fields(documents)))
    inside: Any = documents
    for part in path[:-1]:
        inside = inside[part]
    last = str(path[-1])
    inside[last + "x"] = inside.pop(last)
    with pytest.raises(Invalid) as refused:
        World().plan(msgspec.json.encode(documents).decode())
    named = "kind" if path[1:] == ("kind",) else path_text((*path[1:-1], last + "x"))
    assert named in [one.field for one in refused.value.errors]
