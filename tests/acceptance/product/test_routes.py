"""The surface of the booted product: every route stands in OpenAPI and answers, lists are paged, names are created once."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from support.stage import Stage, call, path, say

pytestmark = pytest.mark.asyncio(loop_scope="session")
#: Issue 2's list of what a user does by HTTP.
ROUTES = """
POST /v1/apply
GET POST /v1/namespaces
GET PUT PATCH DELETE /v1/namespaces/{ns}
GET /v1/ns/{ns}/graph
GET /v1/ns/{ns}/export
GET /v1/schemas
GET /v1/schemas/{kind}
POST /v1/secrets/rotate-key
GET /v1/ns/{ns}/secrets/{name}/uses
GET /v1/ns/{ns}/agents/{agent}/revisions
GET /v1/ns/{ns}/agents/{agent}/revisions/{revision}
POST /v1/ns/{ns}/agents/{agent}/rollback
GET POST /v1/ns/{ns}/agents/{agent}/sessions
GET PATCH DELETE /v1/ns/{ns}/agents/{agent}/sessions/{session_id}
POST /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/message
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/stream
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/messages
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/journal
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/turns
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/turns/{turn_id}
POST /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/turns/{turn_id}/cancel
GET /v1/ns/{ns}/agents/{agent}/sessions/{session_id}/state
GET /v1/ns/{ns}/approvals
GET POST /v1/ns/{ns}/approvals/{approval}
GET /healthz
GET /readyz
"""
#: Issue 4's, the same for each collection.
COLLECTIONS = ("templates", "agents", "schedules", "knowledge", "mcp-servers", "mcp-bindings", "secrets")
OF_COLLECTIONS = "".join(
    f"GET POST {path}\nGET PUT PATCH DELETE {path}/{place}\nGET {path}/{place}/users\n"
    for path, place in ((f"/v1/ns/{{ns}}/{name}", "{agent}" if name == "agents" else "{name}") for name in COLLECTIONS)
)


async def pages(stage: Stage, route: str, limit: int) -> list[dict[str, Any]]:
    """All items of a list, in pages of `limit`."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await stage.other.get(f"{route}?limit={limit}{'&cursor=' + cursor if cursor else ''}")
        assert len(page["items"]) <= limit
        items += page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            return items


async def test_every_route_stands_in_openapi_and_is_served(stage: Stage) -> None:
    documented = (await stage.api.get("/openapi.json"))["paths"]
    where = stage.session()
    turn = await stage.turn(where, f"{where} send", call("wire", amount=1), say("done"))
    await stage.entry(where, "turn.waiting", turn)
    (approval,) = await stage.approvals(where)
    await stage.api.apply(TEMPLATE)
    names = {
        "ns": "default",
        "agent": "helper",
        "session_id": where.rpartition("/")[2],
        "turn_id": turn,
        "approval": approval["id"],
        "name": "routes",
        "kind": "Agent",
        "revision": "1",
    }
    for line in (ROUTES + OF_COLLECTIONS).split("\n"):
        *methods, route = line.split() or [""]
        for method in methods:
            assert method.lower() in documented[route], line
            if method == "GET" and not route.endswith("/stream"):
                status, body = await stage.api.call("GET", re.sub(r"{(\w+)}", lambda name: names[name[1]], route))
                assert status == 200, (line, body)
    status, page = await stage.api.call("GET", "/")
    assert status == 200
    assert "<html" in page
    await stage.api.call("POST", f"/v1/ns/default/approvals/{approval['id']}", {"outcome": "failed"}, expect=200)


TEMPLATE = """
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata: {name: routes}
definition: {modelPolicy: {profiles: [{name: p, model: {provider: model, name: m}}]}}
---
apiVersion: talon.dev/v1alpha1
kind: Schedule
metadata: {name: routes}
spec: {kind: cron, cron: "@daily", target: {agent: helper, sessionMode: named, sessionId: s}, inputMessage: go}
---
apiVersion: talon.dev/v1alpha1
kind: Knowledge
metadata: {name: routes}
spec: {documents: [{name: faq, content: Ask.}]}
---
apiVersion: talon.dev/v1alpha1
kind: McpServer
metadata: {name: routes}
spec: {transport: stdio, command: server}
---
apiVersion: talon.dev/v1alpha1
kind: McpBinding
metadata: {name: routes}
spec: {server: routes}
---
apiVersion: talon.dev/v1alpha1
kind: Secret
metadata: {name: routes}
"""


async def test_the_long_name_of_a_namespaces_routes_is_an_alias_for_everything_below_it(stage: Stage) -> None:
    where = stage.session()
    alias = path(where).replace("/v1/ns/", "/v1/namespaces/")
    _, receipt = await stage.api.call("POST", f"{alias}/message?create=true", {"content": f"{where} hello"}, expect=202)
    assert (await stage.done(where, receipt["turn_id"]))["type"] == "turn.completed"
    for below in ("", "/journal", "/messages", "/turns", "/state"):
        assert await stage.api.get(alias + below) == await stage.api.get(path(where) + below)
    assert await stage.api.get("/v1/namespaces/default/agents/helper") == await stage.api.get("/v1/ns/default/agents/helper")


async def test_a_named_session_is_created_once_however_many_ask_at_once(stage: Stage) -> None:
    where = stage.session()
    route, body = "/v1/ns/default/agents/helper/sessions", {"id": where.rpartition("/")[2], "metadata": {"owner": "ops"}}
    apis = [stage.apis[number % len(stage.apis)] for number in range(8)]
    answers = await asyncio.gather(*(api.call("POST", route, body) for api in apis))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({session["uid"] for _, session in answers}) == 1
    _, again = await stage.api.call("POST", route, {**body, "metadata": {"owner": "others"}}, expect=200)
    assert again["metadata"] == {"owner": "ops"}
    _, made = await stage.api.call("POST", route, {}, expect=201)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", made["id"])


async def test_the_same_key_from_many_at_once_is_one_turn_at_every_gateway(stage: Stage) -> None:
    where = stage.session()
    apis = [stage.apis[number % len(stage.apis)] for number in range(8)]
    receipts = await asyncio.gather(*(api.send(where, f"{where} once", key=f"{where}-same") for api in apis))
    assert len({receipt["turn_id"] for receipt in receipts}) == 1
    await stage.done(where, receipts[0]["turn_id"])
    assert (await stage.types(where)).count("message.received") == 1
    assert len(stage.model.asked(f"{where} once")) == 1


async def test_lists_are_paged_without_gap_or_repetition(stage: Stage) -> None:
    agent = await stage.agent("paged")
    wheres = [stage.session(agent) for _ in range(7)]
    for where in wheres:
        await stage.run(where, f"{where} hello")
    sessions = await pages(stage, f"/v1/ns/default/agents/{agent}/sessions", 3)
    assert [item["id"] for item in sessions] == [where.rpartition("/")[2] for where in reversed(wheres)]
    where = wheres[0]
    turns = [await stage.turn(where, f"{where} {number}") for number in range(5)]
    await stage.done(where, turns[-1])
    listed = [item["turn_id"] for item in await pages(stage, path(where, "turns"), 2)]
    assert listed[:5] == turns[::-1]
    assert len(listed) == len(set(listed)) == 6
    journal = await pages(stage, path(where, "journal"), 4)
    assert [entry["seq"] for entry in journal] == list(range(1, len(journal) + 1))
    assert len(await pages(stage, path(where, "messages"), 5)) == 12


async def test_a_session_is_changed_and_its_usage_and_loop_are_shown(stage: Stage) -> None:
    where = stage.session()
    usage = {"input_tokens": 30, "output_tokens": 12}
    steps = ({**call("look", what="it"), "usage": usage}, say("done", usage=usage))
    turn = await stage.turn(where, f"{where} hello", *steps)
    await stage.done(where, turn)
    shown = await stage.api.get(path(where, "turns", turn))
    assert (shown["state"], shown["reason"], shown["usage"]) == ("completed", "answered", {"input_tokens": 60, "output_tokens": 24})
    loop = await stage.api.get(path(where, "state"))
    assert set(loop) == {"phase", "iteration", "maxIterations", "goal", "pending", "completed", "totalTokensUsed", "totalCost"}
    assert (loop["phase"], loop["iteration"], loop["maxIterations"], loop["totalTokensUsed"]) == ("done", 2, 10, 84)
    assert loop["goal"] == f"{where} hello"
    _, changed = await stage.api.call("PATCH", path(where), {"metadata": {"owner": "ops"}}, expect=200)
    assert changed["metadata"] == {"owner": "ops"}
    assert (await stage.other.get(path(where)))["metadata"] == {"owner": "ops"}
    for wrong in ({}, {"metadata": None}, {"agent": "x"}, {"features": {"unknown": 1}}, {"profile": "nope"}):
        assert (await stage.api.call("PATCH", path(where), wrong))[0] == 422, wrong


async def test_a_session_deleted_and_made_again_is_a_new_one_with_later_seqs(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} secret of the first life")
    first = await stage.api.get(path(where))
    await stage.api.call("DELETE", path(where), expect=204)
    for route in (path(where), path(where, "journal"), path(where, "stream")):
        assert (await stage.other.call("GET", route))[0] == 404
    assert (await stage.api.call("DELETE", path(where)))[0] == 404
    await stage.run(where, f"{where} second life")
    second = await stage.api.get(path(where))
    assert second["uid"] != first["uid"]
    journal = await stage.api.journal(where)
    assert journal[0]["seq"] == first["last_seq"] + 1
    assert f"{where} secret of the first life" not in str(stage.model.asked(f"{where} second life")[0].body)
    status, problem = await stage.api.call("GET", f"{path(where, 'journal')}?cursor={first['last_seq']}")
    assert (status, problem["code"]) == (410, "session_replaced")
