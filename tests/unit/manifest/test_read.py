"""Documents to manifests: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.manifests import AGENT, SCHEDULE, SESSION, TEMPLATE
from talon.manifest.parse import parse
from talon.manifest.read import Expected, Reading, read


def reading(*texts: str, expected: Expected | None = None) -> Reading:
    return read(parse("\n---\n".join(texts).encode()), expected)


def errors(*texts: str, expected: Expected | None = None) -> dict[str, str]:
    found = reading(*texts, expected=expected).errors
    assert found
    return {one.field: one.message for one in found}


def document(kind: str, **parts: Any) -> str:
    return msgspec.json.encode({"apiVersion": "talon.dev/v1alpha1", "kind": kind, **parts}).decode()


def template(**spec: Any) -> str:
    return document("AgentTemplate", metadata={"name": "t"}, definition={"customSpec": spec})


def test_the_documents_own_manifests_are_read_as_they_are_printed() -> None:
    found = reading(TEMPLATE, AGENT, SESSION)
    assert found.errors == []
    assert [one.label for one in found.manifests] == [
        "AgentTemplate acme/customer-support",
        "Agent acme/customer-support",
        "Session acme/enterprise-renewals",
    ]
    assert [one.field for one in found.manifests[2].warnings] == ["status", "stream"]


def test_a_session_with_an_envelope_says_the_same_as_one_without() -> None:
    spec = {"agent": "a", "features": {"x": 1}, "metadata": {"k": "v"}, "messages": [{"role": "user", "content": "hi"}]}
    (with_envelope,) = reading(document("Session", metadata={"name": "s", "namespace": "n"}, spec=spec)).manifests
    (without,) = reading(msgspec.json.encode({"id": "s", "ns": "n", **spec}).decode()).manifests
    assert with_envelope.body == without.body
    assert with_envelope.identity == without.identity == ("n", "Session", "a/s")


def test_the_documents_own_schedule_is_one_without_an_envelope() -> None:
    (bare,) = reading(SCHEDULE).manifests
    assert bare.identity == ("acme", "Schedule", "renewal-check")
    (with_envelope,) = reading(msgspec.json.encode(bare.body).decode()).manifests
    assert with_envelope.body == bare.body
    (on_its_route,) = reading(SCHEDULE.replace("ns: acme", ""), expected=Expected("Schedule", "acme")).manifests
    assert on_its_route.body == bare.body


def test_a_secrets_value_is_beside_its_body_and_in_no_repr() -> None:
    (one,) = reading(document("Secret", metadata={"name": "s"}, spec={"description": "d", "value": "sw0rdfish"})).manifests
    assert one.secret == "sw0rdfish"
    assert one.body["spec"] == {"description": "d"}
    assert "sw0rdfish" not in repr(one) + repr(one.model) + str(one.body)


@pytest.mark.parametrize("value", ["a\0sw0rdfish", "sw0rdfish" * 10_000, 5005, ["sw0rdfish"], {"a": "sw0rdfish"}])
def test_a_wrong_value_of_a_secret_is_never_shown(value: Any) -> None:
    found = reading(document("Secret", metadata={"name": "s"}, spec={"value": value})).errors
    assert [one.field for one in found] == ["spec.value"]
    assert "sw0rdfish" not in repr(found)
    assert "5005" not in repr(found)


def test_the_namespace_is_default_where_none_is_written() -> None:
    (one,) = reading(document("Agent", metadata={"name": "a"})).manifests
    assert one.namespace == "default"
    assert one.body["metadata"] == {"name": "a", "namespace": "default"}


def test_what_talon_itself_writes_is_not_part_of_the_stored_body() -> None:
    metadata = {"name": "a", "labels": {"team": "x"}, "uid": "u", "generation": 3, "createdAt": "then", "updatedAt": "now"}
    (one,) = reading(document("Agent", metadata=metadata, status={"conditions": [], "revision": 2})).manifests
    assert one.body == {
        "apiVersion": "talon.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default", "labels": {"team": "x"}},
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("Customer", "'C' is upper case"),
        ("../etc", "'.' may not be in it"),
        ("a/b", "'/' may not be in it"),
        ("a b", "' ' may not be in it"),
        ("-a", "begin and end"),
        ("a-", "begin and end"),
        ("a" * 64, "64 characters, at most 63"),
        ("kunde-ä", "may not be in it"),
        ("аpp", "'\\u0430' may not be in it"),  # a Cyrillic letter that looks like a Latin one
        ("a:b", "':' may not be in it"),
    ],
)
def test_a_bad_name_is_told_what_is_bad_about_it(name: str, words: str) -> None:
    assert words in errors(document("Agent", metadata={"name": name}))["metadata.name"]
    assert words in errors(msgspec.json.encode({"id": name, "agent": "a"}).decode())["id"]


def test_a_namespace_may_have_parts_and_each_is_a_name() -> None:
    assert reading(document("Namespace", metadata={"name": "acme:eu"})).errors == []
    assert "between two :" in errors(document("Namespace", metadata={"name": "acme::eu"}))["metadata.name"]
    assert "unknown field" in errors(document("Namespace", metadata={"name": "a", "namespace": "b"}))["metadata.namespace"]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("just text", "", "is text, not a manifest"),
        ("- 1", "", "is a number, not a manifest"),
        ("a: 1", "kind", "is missing; write one of Namespace"),
        ("kind: Agnet", "kind", "did you mean 'Agent'"),
        ("kind: 3", "kind", "must be text, not a number"),
        ("kind: Schedule", "spec", "is missing"),
        ("agent: {name: x}\npolicies: {}", "kind", "form not served by this version"),
        ("kind: Agent\nmetadata: {name: a}", "apiVersion", "is missing"),
        ("kind: Agent\napiVersion: v2\nmetadata: {name: a}", "apiVersion", "must be 'talon.dev/v1alpha1'"),
        ("kind: Agent\napiVersion: 1.10\nmetadata: {name: a}", "apiVersion", "must be 'talon.dev/v1alpha1'"),
        (document("Agent"), "metadata", "is missing"),
        (document("Agent", metadata=[]), "metadata", "must be a mapping of fields to values, not a list"),
        (document("Agent", metadata={"name": 1.1}), "metadata.name", "must be text, not a number; put it in quotes"),
        (document("Agent", metadata={"name": None}), "metadata.name", "must be text, not nothing"),
        (document("Agent", metadata={"name": "a", "namespace": None}), "metadata.namespace", "has no value"),
        (document("Agent", metadata={"name": "a", "labels": {"a b": "c"}}), 'metadata.labels["a b"]', "no label key"),
        (document("Agent", metadata={"name": "a", "labels": {"a": 1.1}}), "metadata.labels.a", "must be text, not a number"),
        (document("Agent", metadata={"name": "a", "labels": {"a": "x" * 64}}), "metadata.labels.a", "at most 63"),
        (document("Session", metadata={"name": "a", "labels": {}}, spec={"agent": "x"}), "metadata.labels", "unknown field"),
        (document("AgentTemplate", metadata={"name": "a"}), "definition", "is missing"),
        (document("AgentTemplate", metadata={"name": "a"}, definition=None), "definition", "must be a mapping"),
        (template(sistemPrompt="x"), "definition.customSpec.sistemPrompt", "did you mean 'systemPrompt'"),
        (template(system_prompt="x"), "definition.customSpec.system_prompt", "did you mean 'systemPrompt'"),
        (template(mcpServerRefs="stripe"), "definition.customSpec.mcpServerRefs", "must be a list, not text"),
        (template(mcpServerRefs=["a", "a"]), "definition.customSpec.mcpServerRefs[1]", "in the list already"),
        (template(modelPolicy={"profiles": []}), "definition.customSpec.modelPolicy.profiles", "must not be empty"),
        (template(capabilities={"allowedTools": []}), "definition.customSpec.capabilities.allowedTools", "'allowed_tools'"),
        (template(limits={"model_calls_max": 0}), "definition.customSpec.limits.model_calls_max", "at least 1"),
        (template(limits={"tool_calls_max": 2.5}), "definition.customSpec.limits.tool_calls_max", "a whole number"),
        (template(limits={"tool_calls_max": True}), "definition.customSpec.limits.tool_calls_max", "not a boolean"),
        (
            template(limits={"model_calls_max": 3, "max_iterations": 3}),
            "definition.customSpec.limits.max_iterations",
            "another spelling of model_calls_max",
        ),
        (template(features=[{"name": "1st"}]), "definition.customSpec.features[0].name", "no feature name"),
        (template(features=[{"name": "a", "type": "int"}]), "definition.customSpec.features[0].type", "must be 'string'"),
        (template(features=[{"name": "a", "required": "yes"}]), "definition.customSpec.features[0].required", "true or false"),
        (template(features=[{"name": "a", "type": "enum"}]), "definition.customSpec.features[0].values", "an enum lists"),
        (template(features=[{"name": "a", "values": ["x"]}]), "definition.customSpec.features[0].values", "only an enum"),
        (template(features=[{"name": "a", "default": 1}]), "definition.customSpec.features[0].default", "must be text"),
        (template(features=[{"name": "a"}, {"name": "a"}]), "definition.customSpec.features[1].name", "in the list already"),
        (template(systemPrompt="Hi {{ nam }}", features=[{"name": "name"}]), "definition.customSpec.systemPrompt", "'name'"),
        (template(systemPrompt="{{ 1 + 1 }}"), "definition.customSpec.systemPrompt", "{{ 1 + 1 }} names no declared feature"),
        ("id: a\nagent: b\nmessages: [{role: tool, content: x}]", "messages[0].role", "must be 'user' or 'assistant'"),
        ("id: a\nagent: b\nmessages: [{role: user, content: ''}]", "messages[0].content", "must not be empty"),
        ("id: a\nagent: b\nmesages: []", "mesages", "did you mean 'messages'"),
        ("id: a\nagent: b\nfeatures: [a]", "features", "must be a mapping"),
        (document("Agent", metadata={"name": "a"}, spec={"templateRef": "Upper"}), "spec.templateRef", "upper case"),
        (document("Agent", metadata={"name": "a"}, spec={"templateRef": 1}), "spec.templateRef", "must be a mapping"),
        (document("Agent", metadata={"name": "a"}, spec={"templateRef": "t"}, definition={}), "definition", "keep one of"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(text: str, field: str, words: str) -> None:
    found = errors(text)
    assert field in found, found
    assert words in found[field]
    assert found[field].startswith("document 1")


def test_a_part_stands_in_custom_spec_or_beside_it_but_not_in_both() -> None:
    beside = document("AgentTemplate", metadata={"name": "t"}, definition={"systemPrompt": "x", "limits": {"tokens_max": 5}})
    assert reading(beside).errors == []
    both = document("AgentTemplate", metadata={"name": "t"}, definition={"systemPrompt": "x", "customSpec": {"systemPrompt": "y"}})
    assert "is in customSpec already" in errors(both)["definition.systemPrompt"]


def test_the_value_of_an_unknown_field_is_not_shown() -> None:
    found = reading(
        template(modelPolicy={"profiles": [{"name": "a", "apiKey": "sk-secret", "model": {"provider": "p", "name": "m"}}]})
    )
    assert found.errors[0].field.endswith("profiles[0].apiKey")
    assert "sk-secret" not in repr(found.errors)


def test_all_errors_of_all_documents_come_at_once_with_their_places() -> None:
    found = reading(
        "kind: Foo", AGENT.replace("templateRef", "tmplateRef").replace("acme", "Acme"), TEMPLATE.replace("name: primary", "nam: x")
    )
    assert [one.message.split(":")[0] for one in found.errors] == [
        "document 1, line 1",
        "document 2, line 7",
        "document 2, line 9",
        "document 3, line 27",
        "document 3, line 27",
    ]
    assert found.manifests == []


def test_a_resource_may_be_in_an_apply_once() -> None:
    assert "is in document 1" in errors(AGENT, AGENT)[""]
    assert reading(SESSION, SESSION.replace("agent: customer-support", "agent: other")).errors == []


def test_a_route_fills_in_what_it_says_and_refuses_what_says_otherwise() -> None:
    expected = Expected("Agent", "acme", "bot")
    (one,) = reading("spec: {}", expected=expected).manifests
    assert one.label == "Agent acme/bot"
    assert "must be Agent on this route" in errors(TEMPLATE, expected=expected)["kind"]
    assert (
        "not the namespace of the route (acme)" in errors("metadata: {namespace: other}", expected=expected)["metadata.namespace"]
    )
    assert errors("metadata: {name: other}", expected=expected)["metadata.name"] == "line 1: is not the name in the route (bot)"
    twice = errors("spec: {}\nspec: {}", expected=expected)["spec"]
    assert twice.startswith("line 1: is given twice"), "where there can be one document only, none is counted"
