"""Namespaces, templates, agents and apply over HTTP, on both stores."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.manifests import AGENT, ALL, SESSION, TEMPLATE
from support.resources import Gateway, gateway_on
from talon.cli.system import SystemClock, SystemIds
from talon.manifest import catalogue
from talon.manifest.catalogue import Catalogue
from talon.store.protocols import Store

YAML = {"Content-Type": "application/yaml"}
AGENTS, BOT = "/v1/ns/acme/agents", "/v1/ns/acme/agents/bot"
SPEC = {"modelPolicy": {"profiles": [{"name": "primary", "model": {"provider": "openai", "name": "gpt-4o"}}]}, "systemPrompt": "Hi"}


async def _open(kind: str, request: pytest.FixtureRequest, directory: Path) -> Store:
    if kind == "sqlite":
        from talon.store import sqlite

        return await sqlite.open_store(directory / "talon.db", SystemClock(), SystemIds())
    from talon.store import postgres

    return await postgres.open_store(request.getfixturevalue("database_url"), SystemIds())


@pytest.fixture(params=["sqlite", "postgres"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Gateway]:
    store = await _open(request.param, request, tmp_path)
    try:
        await store.migrate()
        async with gateway_on(store) as gateway:
            yield gateway
    finally:
        await store.close()


async def refused(api: Gateway, status: int, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
    """The problem that the request is refused with."""
    _, problem = await api.call(method, path, body, expect=status, **more)
    assert problem["status"] == status
    assert problem["detail"]
    return problem


def actions(answer: dict[str, Any]) -> dict[str, str]:
    return {f"{item['kind']} {item['name']}": item["action"] for item in answer["items"]}


async def test_the_documents_own_manifests_are_applied_shown_and_applied_again(api: Gateway) -> None:
    answer = await api.apply(ALL)
    assert actions(answer) == {
        "AgentTemplate customer-support": "created",
        "Agent customer-support": "created",
        "Session enterprise-renewals": "created",
        "Namespace acme": "created",
    }
    assert {warning["field"] for warning in answer["warnings"]} == {"metadata.namespace", "status", "stream"}
    template = await api.get("/v1/ns/acme/templates/customer-support")
    assert template["definition"]["customSpec"]["modelPolicy"]["profiles"][0]["model"]["temperature"] == 0.2
    agent = await api.get("/v1/namespaces/acme/agents/customer-support")
    assert agent["spec"] == {"templateRef": "customer-support", "features": {"customer_id": "cus_1"}}
    assert (agent["metadata"]["generation"], agent["status"]["revision"]) == (1, 1)
    session = await api.get("/v1/ns/acme/agents/customer-support/sessions/enterprise-renewals")
    assert session["metadata"] == {"owner": "revenue-ops"}
    messages = await api.get("/v1/ns/acme/agents/customer-support/sessions/enterprise-renewals/messages")
    assert [(one["role"], one["content"], one["imported"]) for one in messages["items"]] == [
        ("user", "Review renewals due in 14 days.", True),
        ("assistant", "Drafting account-by-account follow-ups.", True),
    ]
    assert session["state"] == "idle"
    again = await api.apply(ALL)
    assert set(actions(again).values()) == {"unchanged"}
    shown = await api.call("POST", "/v1/apply", [template, agent], expect=200)
    assert set(actions(shown[1]).values()) == {"unchanged"}
    assert await api.get("/v1/ns/acme/agents/customer-support") == agent


async def test_all_errors_of_all_documents_come_at_once_and_nothing_is_written(api: Gateway) -> None:
    broken = (
        ALL.replace("sion:", "sion:")
        .replace("temperature: 0.2", "temprature: 0.2")
        .replace("agent: customer-support", "agent: other")
    )
    problem = await refused(api, 422, "POST", "/v1/apply", broken, headers=YAML)
    assert problem["code"] == "invalid"
    assert {error["field"] for error in problem["errors"]} == {
        "definition.customSpec.modelPolicy.profiles[0].model.temprature",
        "agent",
    }
    assert "document 1, line 18" in problem["detail"]
    assert "did you mean 'temperature'" in problem["detail"]
    assert [one["metadata"]["name"] for one in (await api.get("/v1/namespaces"))["items"]] == ["default"]


async def test_a_dry_run_answers_with_the_diff_and_writes_nothing(api: Gateway) -> None:
    _, answer = await api.call("POST", "/v1/apply?dry_run=true", ALL, headers=YAML, expect=200)
    assert answer["dry_run"] is True
    assert actions(answer)["Agent customer-support"] == "created"
    await refused(api, 404, "GET", "/v1/namespaces/acme")
    await api.apply(ALL)
    changed = TEMPLATE.replace("gpt-4o", "gpt-5")
    _, answer = await api.call("POST", "/v1/apply?dry_run=true", changed, headers=YAML, expect=200)
    assert answer["items"][0]["changes"] == [
        {"field": "definition.customSpec.modelPolicy.profiles[0].model.name", "before": "gpt-4o", "after": "gpt-5"}
    ]
    assert (await api.get("/v1/ns/acme/agents/customer-support"))["status"]["revision"] == 1


async def test_changing_a_template_makes_a_numbered_revision_of_its_agents(api: Gateway) -> None:
    await api.apply(ALL)
    answer = await api.apply(TEMPLATE.replace("gpt-4o", "gpt-5"))
    assert actions(answer) == {"AgentTemplate customer-support": "changed", "Agent customer-support": "changed"}
    path = "/v1/ns/acme/agents/customer-support"
    agent = await api.get(path)
    assert (agent["metadata"]["generation"], agent["status"]["revision"]) == (1, 2)
    first_page = await api.get(f"{path}/revisions?limit=1")
    second_page = await api.get(f"{path}/revisions?limit=1&cursor={first_page['next_cursor']}")
    new, old = first_page["items"][0], second_page["items"][0]
    assert second_page["next_cursor"] is None
    assert [(one["revision"], one["cause"]) for one in (new, old)] == [(2, "template customer-support changed"), (1, "created")]
    names = [one["definition"]["customSpec"]["modelPolicy"]["profiles"][0]["model"]["name"] for one in (new, old)]
    assert names == ["gpt-5", "gpt-4o"]


async def test_the_effective_agent_is_shown_and_can_be_applied_elsewhere(api: Gateway) -> None:
    await api.apply(ALL)
    effective = await api.get("/v1/ns/acme/agents/customer-support?effective=true")
    assert effective["definition"]["customSpec"]["limits"]["model_calls_max"] == 10
    assert effective["definition"]["customSpec"]["mcpServerRefs"] == ["stripe-readonly", "hubspot-readonly"]
    assert effective["spec"] == {"features": {"customer_id": "cus_1"}}
    assert effective["status"]["template"] == "customer-support"
    copy = {**effective, "metadata": {"name": "copy", "namespace": "acme"}}
    _, made = await api.call("POST", AGENTS, copy, expect=201)
    again = await api.get("/v1/ns/acme/agents/copy?effective=true")
    assert again["definition"] == effective["definition"]
    assert "template" not in made["status"]


async def test_conditions_follow_what_workers_serve(api: Gateway) -> None:
    await api.apply(ALL)

    async def conditions() -> dict[str, tuple[str, str]]:
        status = (await api.get("/v1/ns/acme/agents/customer-support"))["status"]
        return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}

    assert await conditions() == {"ReferencesResolved": ("Unknown", "NoWorker"), "Ready": ("Unknown", "NoWorker")}
    half = catalogue.encode(Catalogue({"stripe-readonly": ("list",)}, ("openai",)))
    await api.store.register("one", "boot-1", 60_000, half)
    assert (await conditions())["ReferencesResolved"] == ("False", "UnresolvedReference")
    warnings = (await api.apply(AGENT.replace("cus_1", "cus_2")))["warnings"]
    assert "no running worker serves hubspot-readonly" in warnings[0]["message"]
    await api.store.register("two", "boot-1", 60_000, catalogue.encode(Catalogue({"hubspot-readonly": ("find",)})))
    assert await conditions() == {"ReferencesResolved": ("True", "Resolved"), "Ready": ("True", "Ready")}


async def test_an_agent_is_created_once_replaced_and_deleted(api: Gateway) -> None:
    await api.call("POST", "/v1/namespaces", {"name": "acme"}, expect=201)
    manifest = {"metadata": {"name": "bot"}, "spec": SPEC}
    _, made = await api.call("POST", AGENTS, manifest, expect=201)
    assert (made["kind"], made["metadata"]["namespace"], made["status"]["revision"]) == ("Agent", "acme", 1)
    _, same = await api.call("POST", AGENTS, manifest, expect=200)
    assert same == made
    other = {"metadata": {"name": "bot"}, "spec": {**SPEC, "systemPrompt": "Bye"}}
    problem = await refused(api, 409, "POST", AGENTS, other)
    assert problem["code"] == "already_exists"
    assert "spec.systemPrompt" in problem["detail"]
    _, replaced = await api.call("PUT", BOT, {"spec": other["spec"]}, expect=200)
    assert (replaced["metadata"]["generation"], replaced["status"]["revision"]) == (2, 2)
    assert replaced["metadata"]["uid"] == made["metadata"]["uid"]
    await api.call("PUT", "/v1/ns/acme/agents/new", "spec: " + json.dumps(SPEC), headers=YAML, expect=201)
    assert [one["metadata"]["name"] for one in (await api.get(AGENTS))["items"]] == ["bot", "new"]
    await api.call("DELETE", BOT, expect=204)
    assert (await refused(api, 404, "GET", BOT))["code"] == "agent_not_found"
    assert (await refused(api, 404, "DELETE", BOT))["code"] == "agent_not_found"
    kept = await api.get(BOT + "/revisions")
    assert [one["revision"] for one in kept["items"]] == [2, 1]
    _, anew = await api.call("PUT", BOT, {"spec": SPEC}, expect=201)
    assert anew["status"]["revision"] == 3
    assert anew["metadata"]["uid"] != made["metadata"]["uid"]


async def test_what_is_in_use_is_not_deleted_and_its_users_are_named(api: Gateway) -> None:
    await api.apply(ALL)
    path = "/v1/ns/acme/agents/customer-support"
    problem = await refused(api, 409, "DELETE", path)
    assert problem["code"] == "in_use"
    assert "enterprise-renewals" in problem["detail"]
    problem = await refused(api, 409, "DELETE", "/v1/namespaces/acme")
    assert [error["field"] for error in problem["errors"]] == [
        "Agent/customer-support",
        "AgentTemplate/customer-support",
        "Session/customer-support/enterprise-renewals",
    ]
    await api.call("DELETE", path + "/sessions/enterprise-renewals", expect=204)
    await api.call("DELETE", path, expect=204)
    problem = await refused(api, 409, "DELETE", "/v1/namespaces/acme")
    assert "AgentTemplate/customer-support" in problem["detail"]
    await api.call("DELETE", "/v1/ns/acme/templates/customer-support", expect=204)
    await api.call("DELETE", "/v1/namespaces/acme", expect=204)
    assert (await refused(api, 404, "GET", path))["code"] == "namespace_not_found"


async def test_a_template_with_agents_is_not_deleted(api: Gateway) -> None:
    await api.apply(TEMPLATE + "---\n" + AGENT)
    problem = await refused(api, 409, "DELETE", "/v1/ns/acme/templates/customer-support")
    assert [error["field"] for error in problem["errors"]] == ["Agent/customer-support"]
    assert (await refused(api, 404, "DELETE", "/v1/ns/acme/templates/gone"))["code"] == "template_not_found"


async def test_namespaces_are_created_listed_in_pages_and_deleted(api: Gateway) -> None:
    for name in ("acme", "acme:eu", "beta"):
        _, made = await api.call("POST", "/v1/namespaces", {"name": name, "labels": {"team": "x"}}, expect=201)
        assert made["metadata"]["labels"] == {"team": "x"}
    _, manifest = await api.call("POST", "/v1/namespaces", "kind: Namespace\nmetadata: {name: acme}", headers=YAML, expect=409)
    assert manifest["code"] == "already_exists"
    await api.call("POST", "/v1/namespaces", {"name": "acme", "labels": {"team": "x"}}, expect=200)
    names: list[str] = []
    cursor = ""
    while True:
        page = await api.get(f"/v1/namespaces?limit=2{'&cursor=' + cursor if cursor else ''}")
        names += [one["metadata"]["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert names == ["acme", "acme:eu", "beta", "default"]
    assert (await api.get("/v1/namespaces/acme:eu"))["metadata"]["name"] == "acme:eu"
    await api.call("DELETE", "/v1/namespaces/acme:eu", expect=204)
    problem = await refused(api, 409, "DELETE", "/v1/namespaces/default")
    assert "always exists" in problem["detail"]


@pytest.mark.parametrize(
    ("status", "code", "method", "path", "body"),
    [
        (404, "namespace_not_found", "GET", "/v1/ns/none/agents", None),
        (404, "namespace_not_found", "GET", "/v1/ns/none/templates/x", None),
        (404, "namespace_not_found", "POST", "/v1/ns/none/agents", {"metadata": {"name": "a"}, "spec": SPEC}),
        (404, "namespace_not_found", "PUT", "/v1/ns/none/agents/a", {"spec": SPEC}),
        (404, "namespace_not_found", "GET", "/v1/namespaces/Bad%20Name", None),
        (404, "agent_not_found", "GET", "/v1/ns/default/agents/Upper", None),
        (404, "agent_not_found", "GET", "/v1/ns/default/agents/none/revisions", None),
        (404, "template_not_found", "GET", "/v1/ns/default/templates/none", None),
        (422, "invalid", "PUT", "/v1/ns/default/agents/a", {"metadata": {"name": "b"}, "spec": SPEC}),
        (422, "invalid", "PUT", "/v1/ns/default/agents/Upper", {"spec": SPEC}),
        (422, "invalid", "PUT", "/v1/ns/default/agents/a", {"metadata": {"namespace": "other"}, "spec": SPEC}),
        (422, "invalid", "PUT", "/v1/ns/default/agents/a", {"kind": "AgentTemplate", "definition": {}}),
        (422, "invalid", "PUT", "/v1/ns/default/agents/a", {"spec": {"systemPrompt": "no model"}}),
        (422, "invalid", "PUT", "/v1/ns/default/agents/a", {"spec": {"templateRef": "none"}}),
        (422, "invalid", "POST", "/v1/namespaces", {"name": "A"}),
        (422, "invalid", "POST", "/v1/namespaces", {"name": "a", "colour": "red"}),
        (422, "invalid", "GET", "/v1/namespaces?limit=0", None),
        (422, "invalid", "GET", "/v1/namespaces?limits=5", None),
        (422, "cursor_invalid", "GET", "/v1/namespaces?cursor=xyz", None),
        (422, "invalid", "POST", "/v1/apply?dryrun=true", []),
        (400, "malformed", "POST", "/v1/apply", b"{"),
        (400, "malformed", "POST", "/v1/apply", b""),
        (400, "malformed", "PUT", "/v1/ns/default/agents/a", [{"spec": SPEC}, {"spec": SPEC}]),
        (405, "method_not_allowed", "DELETE", "/v1/namespaces", None),
        (415, "unsupported_media_type", "POST", "/v1/apply", b"a"),
    ],
)
async def test_what_is_wrong_gets_its_own_problem(api: Gateway, status: int, code: str, method: str, path: str, body: Any) -> None:
    kind = "text/html" if code == "unsupported_media_type" else "application/json"
    headers = {"Content-Type": kind} if isinstance(body, bytes) else {}
    problem = await refused(api, status, method, path, body, headers=headers)
    assert problem["code"] == code


@pytest.mark.parametrize("size", [5_000_000, 10_000_000])
async def test_megabytes_of_manifests_are_refused(api: Gateway, size: int) -> None:
    started = time.monotonic()
    body = io.BytesIO(b"#" * size)
    async with aiohttp.ClientSession() as http, http.post(api.url + "/v1/apply", data=body, headers=YAML) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["code"] == "too_large"
    assert time.monotonic() - started < 5


async def test_many_who_apply_the_same_at_once_all_succeed_and_write_it_once(api: Gateway) -> None:
    answers = await asyncio.gather(*(api.apply(ALL) for _ in range(8)))
    assert [actions(answer)["Session enterprise-renewals"] for answer in answers].count("created") == 1
    agent = await api.get("/v1/ns/acme/agents/customer-support")
    assert (agent["metadata"]["generation"], agent["status"]["revision"]) == (1, 1)


async def test_agents_and_their_template_applied_at_once_end_on_the_same_definition(api: Gateway) -> None:
    await api.apply(TEMPLATE)

    async def agent(number: int) -> None:
        await api.apply(AGENT.replace("name: customer-support", f"name: bot-{number}"))

    async def template(number: int) -> None:
        await api.apply(TEMPLATE.replace("gpt-4o", f"model-{number}"))

    await asyncio.gather(*(work(number) for number in range(6) for work in (agent, template)))
    wanted = (await api.get("/v1/ns/acme/templates/customer-support"))["definition"]["customSpec"]["modelPolicy"]
    for number in range(6):
        effective = await api.get(f"/v1/ns/acme/agents/bot-{number}?effective=true")
        assert effective["definition"]["customSpec"]["modelPolicy"] == wanted


async def test_imported_messages_may_be_large(api: Gateway) -> None:
    await api.apply(TEMPLATE + "---\n" + AGENT)
    text = "ä" * 100_000
    session = {"id": "long", "agent": "customer-support", "ns": "acme", "messages": [{"role": "user", "content": text}]}
    await api.call("POST", "/v1/apply", session, expect=200)
    found = await api.get("/v1/ns/acme/agents/customer-support/sessions/long/messages")
    assert found["items"][0]["content"] == text


async def test_a_session_that_exists_is_changed_by_patch_not_by_apply(api: Gateway) -> None:
    await api.apply(ALL)
    problem = await refused(api, 422, "POST", "/v1/apply", SESSION.replace("revenue-ops", "sales"), headers=YAML)
    assert problem["errors"][0]["field"] == "metadata"
    assert "PATCH /v1/ns/acme/agents/customer-support/sessions/enterprise-renewals" in problem["detail"]


async def test_openapi_documents_the_routes_with_every_status(api: Gateway) -> None:
    paths = (await api.get("/openapi.json"))["paths"]
    expected = {
        ("/v1/apply", "post"): {"200", "400", "403", "409", "413", "415", "422", "500", "503"},
        ("/v1/namespaces", "post"): {"200", "201", "400", "403", "409", "413", "415", "422", "500", "503"},
        ("/v1/namespaces/{ns}", "delete"): {"204", "404", "409"},
        ("/v1/ns/{ns}/agents/{agent}", "put"): {"200", "201", "404", "409", "415", "422"},
        ("/v1/ns/{ns}/agents/{agent}", "delete"): {"204", "404", "409"},
        ("/v1/ns/{ns}/agents/{agent}/revisions", "get"): {"200", "404", "422"},
        ("/v1/ns/{ns}/templates/{name}", "delete"): {"204", "404", "409"},
    }
    for (path, method), statuses in expected.items():
        assert statuses <= set(paths[path][method]["responses"]), path
    assert {"application/json", "application/yaml"} == set(paths["/v1/apply"]["post"]["requestBody"]["content"])
