"""Template and agent to the effective agent; features; prompts; profiles."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from talon.manifest import effective as effective_module
from talon.manifest.agents import Definition, FeatureDecl, LimitsDecl
from talon.manifest.document import walk
from talon.manifest.effective import Effective, Feature, Limits, Profile
from talon.manifest.features import check_session_features, feature_values, session_feature_errors
from talon.manifest.kinds import AgentDoc
from talon.manifest.models import Model, ModelPolicy, ProfileDecl
from talon.manifest.prompt import render_prompt
from talon.manifest.resolve import Resolved, resolve
from talon.manifest.views import shown_definition

POLICY = {
    "profiles": [
        {"name": "primary", "model": {"provider": "openai", "name": "gpt-4o", "temperature": 0.2, "maxTokens": 100}},
        {"name": "cheap", "model": {"provider": "local", "name": "tiny"}},
    ]
}
FEATURES: list[dict[str, Any]] = [
    {"name": "customer_id", "required": True},
    {"name": "tier", "type": "enum", "values": ["gold", "silver"], "default": "silver"},
    {"name": "limit", "type": "number"},
    {"name": "vip", "type": "boolean"},
    {"name": "tags", "type": "list"},
]
TEMPLATE: dict[str, Any] = {
    "customSpec": {"features": FEATURES, "limits": {"tokens_max": 7, "max_iterations": 0}},
    "modelPolicy": POLICY,
    "systemPrompt": "For {{ customer_id }} ({{tier}}): {{ limit }}, {{ vip }}, {{ tags }}. \\{{ raw }}",
    "mcpServerRefs": ["stripe"],
}


def agent(**spec: Any) -> AgentDoc:
    data = {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "bot"}, "spec": spec}
    return AgentDoc.model_validate(data)


def resolved(template: dict[str, Any] | None = TEMPLATE, **spec: Any) -> Effective:
    one = resolve(agent(templateRef="t", **spec), "acme", Definition.model_validate(template) if template else None)
    assert isinstance(one, Resolved), one
    assert effective_module.decode(one.body) == one.effective
    return one.effective


def wrong(**spec: Any) -> dict[str, str]:
    found = resolve(agent(templateRef="t", **spec), "acme", Definition.model_validate(TEMPLATE))
    assert isinstance(found, list)
    return {".".join(map(str, path)): message for path, message, _ in found}


def test_a_template_gives_all_that_the_agent_leaves_out() -> None:
    one = resolved()
    assert one.profiles == (Profile("primary", "openai", "gpt-4o", 0.2, 100), Profile("cheap", "local", "tiny"))
    assert one.tool_refs == ("stripe",)
    assert one.allowed_tools is None
    assert one.limits == Limits(model_calls_max=1, tokens_max=7)
    assert one.template == "t"


def test_an_agents_own_parts_replace_the_templates_and_limits_one_by_one() -> None:
    one = resolved(
        systemPrompt="Hi {{ tier }}",
        modelPolicy={"profiles": POLICY["profiles"][1:]},
        mcpServerRefs=[],
        capabilities={"allowed_tools": ["current_time"]},
        limits={"max_tool_calls_per_run": 4, "wall_time_max_s": 60},
    )
    assert (one.system_prompt, [p.name for p in one.profiles], one.tool_refs) == ("Hi {{ tier }}", ["cheap"], ())
    assert one.allowed_tools == ("current_time",)
    assert one.limits == Limits(model_calls_max=1, tool_calls_max=4, wall_time_max_s=60.0, tokens_max=7)


def test_an_agent_may_be_its_own_definition_in_either_place() -> None:
    data = {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "bot"}}
    beside = resolve(AgentDoc.model_validate({**data, "definition": TEMPLATE}), "acme", None)
    inside = resolve(AgentDoc.model_validate({**data, "spec": {"definition": TEMPLATE}}), "acme", None)
    assert isinstance(beside, Resolved)
    assert beside == inside
    assert beside.effective.template == ""


MISFITS: list[tuple[dict[str, Any], str, str]] = [
    ({"features": {"customer": "x"}}, "spec.features.customer", "did you mean 'customer_id'"),
    ({"features": {"customer_id": 12}}, "spec.features.customer_id", "must be text, not a number; put it in quotes"),
    ({"features": {"tier": "bronze"}}, "spec.features.tier", "must be one of gold, silver"),
    ({"features": {"limit": "12"}}, "spec.features.limit", "must be a number, not text"),
    ({"features": {"limit": True}}, "spec.features.limit", "must be a number, not a boolean"),
    ({"features": {"vip": 1}}, "spec.features.vip", "must be true or false, not a number"),
    ({"features": {"tags": "a"}}, "spec.features.tags", "must be a list, not text"),
    ({"features": {"tags": ["a", {}]}}, "spec.features.tags", "item 1 must be text"),
    ({"features": {"vip": None}}, "spec.features.vip", "not nothing"),
    ({"profile": "primry"}, "spec.profile", "unknown profile 'primry'; did you mean 'primary'?"),
    ({"systemPrompt": "{{ nothing }}"}, "spec.systemPrompt", "{{ nothing }} names no declared feature"),
]


@pytest.mark.parametrize(("spec", "field", "words"), MISFITS)
def test_what_does_not_fit_the_template_is_named(spec: dict[str, Any], field: str, words: str) -> None:
    assert words in wrong(**spec)[field]


def test_an_agent_without_a_model_profile_is_refused() -> None:
    found = resolve(agent(systemPrompt="x"), "acme", None)
    assert isinstance(found, list)
    assert found[0][0] == ("spec", "modelPolicy")
    assert "no model profile" in found[0][1]


def test_an_agent_with_a_route_needs_no_profile_and_is_printed_without_any() -> None:
    routing = {"model_routing": {"tier_0": {"primary": "gpt-4o"}}}
    one = resolve(agent(systemPrompt="x", policies=routing), "acme", None)
    assert isinstance(one, Resolved)
    assert (one.effective.profiles, one.effective.routing["0"].primary) == ((), "gpt-4o")
    printed = shown_definition(one.effective)["customSpec"]
    assert ("modelPolicy" in printed, printed["policies"]) == (False, routing)
    found = resolve(agent(systemPrompt="x", policies=routing, profile="main"), "acme", None)
    assert isinstance(found, list)
    assert found[0][:2] == (("spec", "profile"), "unknown profile 'main'")


def test_a_session_must_give_what_the_agent_does_not() -> None:
    one = resolved(features={"tier": "gold"})
    assert [name for name, _, _ in check_session_features(one, {})] == ["customer_id"]
    assert check_session_features(one, {"customer_id": "c", "tier": "gold"}) == []
    found = session_feature_errors(one, {"customer_id": 1, "tier": "silver", "tagz": []})
    assert [(e.field, e.message.split(":")[0]) for e in found] == [
        ("features.customer_id", "must be text, not a number; put it in quotes"),
        ("features.tagz", "unknown feature; did you mean 'tags'?"),
        ("features.tier", "is set by agent bot and cannot be changed by a session"),
    ]


def test_a_prompt_is_filled_with_the_agents_the_sessions_and_the_default_values() -> None:
    one = resolved(features={"customer_id": "cus_{{ tier }}"})
    assert feature_values(one, {"limit": 1.5, "customer_id": "other", "gone": 1}) == {
        "customer_id": "cus_{{ tier }}",
        "tier": "silver",
        "limit": 1.5,
    }
    text = render_prompt(one, {"limit": 2, "vip": True, "tags": ["a", 1, False]})
    assert text == "For cus_{{ tier }} (silver): 2, true, a, 1, false. {{ raw }}"
    assert render_prompt(one, {}) == "For cus_{{ tier }} (silver): , , . {{ raw }}"


def test_the_same_agent_has_the_same_digest_and_another_one_another() -> None:
    def digest(**spec: Any) -> str:
        one = resolve(agent(templateRef="t", **spec), "acme", Definition.model_validate(TEMPLATE))
        assert isinstance(one, Resolved)
        return one.digest

    assert digest(features={"vip": True, "tier": "gold"}) == digest(features={"tier": "gold", "vip": True})
    assert digest() != digest(profile="cheap")


def test_a_feature_keeps_its_declaration() -> None:
    assert resolved().declared[1] == Feature("tier", "enum", False, "silver", ("gold", "silver"))


MODEL: dict[str, Any] = {
    "provider": "x",
    "name": "m",
    "temperature": 0.5,
    "maxTokens": 9,
    "topP": 0.5,
    "topK": 4,
    "stop": ["END"],
    "seed": 7,
    "thinkingLevel": "high",
    "toolChoice": "required",
    "parallelToolCalls": False,
    "onBrokenStream": "continue",
    "answerSchema": {"name": "answer", "schema": {"type": "object", "title": "t"}, "strict": True},
}
FULL: dict[str, Any] = {
    "customSpec": {
        "features": [{"name": "f", "type": "enum", "required": False, "values": ["a", "b"], "default": "a", "description": "d"}],
        "modelPolicy": {
            "profiles": [{"name": "p", "model": MODEL}],
            "select": "task",
            "onRefusal": "next",
        },
        "policies": {"model_routing": {f"tier_{tier}": {"primary": "p", "fallback": ["x/m"]} for tier in range(3)}},
        "systemPrompt": "s",
        "mcpServerRefs": ["r"],
        "capabilities": {"allowed_tools": ["t"]},
        "limits": {"model_calls_max": 3, "tool_calls_max": 3, "wall_time_max_s": 3.0, "tokens_max": 3, "model_retries_max": 3},
    }
}
OTHER: dict[str, Any] = {"enum": "string", "a": "b", "task": "order", "next": "end", "high": "low", "continue": "reset"}


def test_every_field_of_a_definition_has_a_reader() -> None:
    """Changing any value makes another effective agent: nothing is accepted and ignored."""

    def digest(definition: dict[str, Any]) -> str:
        data = {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "a"}, "definition": definition}
        one = resolve(AgentDoc.model_validate(data), "n", None)
        assert isinstance(one, Resolved)
        return one.digest

    fields = [path for path, value in walk(FULL) if not isinstance(value, dict | list)]
    assert len(fields) == 40
    written = {str(path[-1]) for path in fields if isinstance(path[-1], str)}
    models = (FeatureDecl, Model, ProfileDecl, ModelPolicy, LimitsDecl)
    known = {field.alias or name for model in models for name, field in model.model_fields.items()}
    nested = {"model", "values", "profiles", "stop", "answerSchema"}
    assert known - written == {*nested, "max_iterations", "max_tool_calls_per_run"}  # mappings, lists, other spellings
    for path in fields:
        if path[-2:] == ("schema", "type"):  # only an object is a schema
            continue
        changed = copy.deepcopy(FULL)
        inside: Any = changed
        for part in path[:-1]:
            inside = inside[part]
        value = inside[path[-1]]
        inside[path[-1]] = (
            (not value)
            if isinstance(value, bool)
            else OTHER.get(value, f"{value}z")
            if isinstance(value, str)
            else value / 2
            if isinstance(value, float)
            else value + 1
        )
        assert digest(changed) != digest(FULL), path
    for other, canonical in (("max_iterations", "model_calls_max"), ("max_tool_calls_per_run", "tool_calls_max")):
        renamed = copy.deepcopy(FULL)
        limits = renamed["customSpec"]["limits"]
        limits[other] = limits.pop(canonical)
        assert digest(renamed) == digest(FULL)
