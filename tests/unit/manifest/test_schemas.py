"""Schemas and explanations: they say what the readers accept."""

from __future__ import annotations

import json
from typing import Any, cast

import jsonschema
import pytest
from jsonschema.protocols import Validator

from support.manifests import AGENT, SCHEDULE, SESSION, TEMPLATE
from talon.domain.errors import Invalid
from talon.manifest.explain import Explanation, explain
from talon.manifest.kinds import KINDS
from talon.manifest.parse import parse
from talon.manifest.read import read
from talon.manifest.schemas import ANY, NAMES, schema

PRINTED = {"AgentTemplate": TEMPLATE, "Agent": AGENT, "Session": SESSION, "Schedule": SCHEDULE}


def validator(name: str) -> Validator:
    found = schema(name)
    assert found is not None
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def wrong(text: str, name: str = ANY) -> list[str]:
    (document,) = parse(text.encode())
    return [error.json_path for error in validator(name).iter_errors(document.data)]


def test_there_is_one_for_every_kind_and_one_for_all() -> None:
    assert (*KINDS, "Manifest") == NAMES
    assert schema("Nothing") is None
    assert all(validator(name) for name in NAMES)


def test_no_schema_knows_null_or_leaves_a_mapping_open_by_accident() -> None:
    def look(at: Any, path: str) -> None:
        for one in cast(list[Any], at) if isinstance(at, list) else []:
            look(one, path)
        if isinstance(at, dict):
            at = cast(dict[str, Any], at)
            assert at.get("type") != "null", path
            assert at.get("default", 0) is not None, path
            if "properties" in at and "if" not in path.split("/")[-2:] and not path.endswith(ANY):
                assert at["additionalProperties"] is False, path
            for name, one in at.items():
                look(one, f"{path}/{name}")

    for name in NAMES:
        look(schema(name), name)


@pytest.mark.parametrize("kind", PRINTED)
def test_the_documents_own_forms_are_valid(kind: str) -> None:
    assert wrong(PRINTED[kind]) == []
    (manifest,) = read(parse(PRINTED[kind].encode())).manifests
    assert wrong(json.dumps(manifest.body), kind) == []
    assert wrong(json.dumps(manifest.body)) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (AGENT.replace("templateRef", "templateReff"), "$.spec"),
        (AGENT.replace("kind: Agent", "kind: Agnet"), "$.kind"),
        (AGENT.replace("name: customer-support", "name: Customer"), "$.metadata.name"),
        (
            TEMPLATE.replace("temperature: 0.2", "temperature: 3"),
            "$.definition.customSpec.modelPolicy.profiles[0].model.temperature",
        ),
        (SCHEDULE.replace("kind: cron", "kind: corn"), "$.spec.kind"),
        (SCHEDULE.replace("enabled: true", "enabled: null"), "$.spec.enabled"),
        (SESSION.replace("role: user", "role: system"), "$.messages[0].role"),
        ("a: 1", "$"),
    ],
)
def test_an_editor_is_told_where_it_is_wrong_and_only_there(text: str, path: str) -> None:
    assert set(wrong(text)) == {path}


def test_a_field_is_explained_with_what_may_stand_there() -> None:
    cron = explain("schedule.spec.cron")
    assert (cron.path, cron.type, cron.required) == ("Schedule.spec.cron", "text", False)
    assert "@daily" in cron.examples
    overlap = explain("Schedule.spec.overlap")
    assert (overlap.values, overlap.default) == (("queue", "skip", "cancel_running"), "queue")
    assert explain("Agent.spec.modelPolicy.profiles.model.temperature").rules == ("at least 0", "at most 2")
    assert explain("McpServer.spec.env").type == "mapping to text or SecretRef"
    assert "never shown" in explain("Secret.spec.value").rules
    assert explain("Agent.metadata.name").required
    assert explain("agent.status.conditions[0].reason").path == "Agent.status.conditions.reason"


def test_every_field_of_every_kind_is_explained() -> None:
    def walk(found: Explanation) -> int:
        assert found.description, found.path
        return 1 + sum(walk(explain(f"{found.path}.{one.name}")) for one in found.fields)

    assert sum(walk(explain(kind)) for kind in KINDS) > 150


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("Schedul", "did you mean 'Schedule'"),
        ("Schedule.spec.corn", "Schedule.spec has no field 'corn'; did you mean 'cron'"),
        ("Schedule.spec.cron.minute", "Schedule.spec.cron has no fields"),
        ("", "unknown kind ''"),
        ("Agent.", "Agent has no field ''"),
        ("a" * 1000, "at most 512"),
    ],
)
def test_what_there_is_not_is_refused(path: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        explain(path)
    assert words in refused.value.detail
