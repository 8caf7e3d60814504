"""Resources of every kind over HTTP, through the booted product, on both stores: one set of routes, versions, users, deletion."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from support.stage import Stage
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
MERGE: dict[str, Any] = {"Content-Type": "application/merge-patch+json"}
YAML: dict[str, Any] = {"Content-Type": "application/yaml"}
PROFILES = {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "model", "name": "m"}}]}}
#: plural -> (what missing ones are called, a manifest without its name).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "templates": ("template_not_found", {"definition": PROFILES}),
    "agents": ("agent_not_found", {"spec": {"templateRef": "base"}}),
    "schedules": (
        "schedule_not_found",
        {
            "spec": {
                "kind": "cron",
                "cron": "0 9 * * 1-5",
                "target": {"agent": "bot", "sessionMode": "named", "sessionId": "s"},
                "inputMessage": "go",
            }
        },
    ),
    "knowledge": ("knowledge_not_found", {"spec": {"documents": [{"name": "faq", "content": "Ask."}]}}),
    "mcp-servers": ("mcp_server_not_found", {"spec": {"transport": "http", "url": "https://mcp.example.com/"}}),
    "mcp-bindings": ("mcp_binding_not_found", {"spec": {"server": "srv"}}),
    "secrets": ("secret_not_found", {"spec": {"description": "a key", "value": "tr0ub4dor"}}),
}


class Space:
    """A namespace of one test, and the requests that it makes there."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name = stage, name
        self.path = f"/v1/ns/{name}"

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: Any) -> Any:
        """A request that must end with `status`; -> its body."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return (await self.stage.api.call(method, path, body, headers=named, expect=status))[1]

    async def refused(self, method: str, path: str, status: int, code: str, body: Any = None, **headers: str) -> Any:
        problem = await self.ask(method, path, body, status, **headers)
        assert problem["code"] == code, problem
        return problem

    async def raw(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bytes]:
        """-> (status, headers, body)."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.stage.api.url + path, json=body, headers=named) as answer,
        ):
            return answer.status, answer.headers, await answer.read()


_count = 0


@pytest_asyncio.fixture(loop_scope="session")
async def space(stage: Stage) -> Space:
    global _count
    _count += 1
    name = f"space{_count}"
    await stage.api.call("POST", "/v1/namespaces", {"name": name}, expect=201)
    return Space(stage, name)


async def test_every_kind_is_created_read_listed_replaced_changed_and_deleted_alike(space: Space) -> None:
    await space.ask("PUT", f"{space.path}/templates/base", KINDS["templates"][1], 201)
    for plural, (missing, body) in KINDS.items():
        path = f"{space.path}/{plural}"
        made = await space.ask("POST", path, {"metadata": {"name": "one", "labels": {"app": "x"}}, **body}, 201)
        assert (made["metadata"]["name"], made["metadata"]["namespace"], made["status"]["phase"]) == ("one", space.name, "Active")
        assert made["metadata"]["generation"] == made["status"]["observedGeneration"] == 1
        status, headers, raw = await space.raw("GET", f"{path}/one")
        assert (status, headers["ETag"], json.loads(raw)) == (200, f'"{made["metadata"]["resourceVersion"]}"', made)
        status, _, raw = await space.raw("GET", f"{path}/one", If_None_Match=headers["ETag"])
        assert (status, raw) == (304, b"")
        assert await space.ask("POST", path, {"name": "one", "labels": {"app": "x"}, **body}) == made
        await space.refused("POST", path, 409, "already_exists", {"name": "one", "labels": {"app": "y"}, **body})
        replaced = await space.ask("PUT", f"{path}/one", {"metadata": {"labels": {"app": "y"}}, **body})
        assert (replaced["metadata"]["labels"], replaced["metadata"]["generation"]) == ({"app": "y"}, 2)
        assert int(replaced["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        changed = await space.ask("PATCH", f"{path}/one", {"metadata": {"labels": {"app": None, "tier": "b"}}}, **MERGE)
        assert changed["metadata"]["labels"] == {"tier": "b"}
        again = await space.ask("PATCH", f"{path}/one", {"metadata": {"labels": {"tier": "b"}}})
        assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        listed = await space.ask("GET", f"{path}?label_selector=tier%20in%20(a,b),!app")
        assert listed["items"] == [again]
        assert (await space.ask("GET", f"{path}?label_selector=tier!=b,app=x"))["items"] == []
        assert await space.ask("GET", f"{path.replace('/v1/ns/', '/v1/namespaces/')}/one") == again
        assert (await space.ask("GET", f"{path}/one/users"))["items"] == []
        await space.refused("GET", f"{path}/none", 404, missing)
        await space.refused("PATCH", f"{path}/none", 404, missing, {})
        await space.refused("DELETE", f"{path}/none", 404, missing)
        await space.refused("GET", f"/v1/ns/nowhere/{plural}/one", 404, "namespace_not_found")
        await space.refused("DELETE", path, 405, "method_not_allowed")
        await space.refused("GET", f"{path}?colour=red", 422, "invalid")
        await space.ask("DELETE", f"{path}/one", status=204)
        await space.refused("GET", f"{path}/one", 404, missing)
    await space.ask("DELETE", f"{space.path}/templates/base", status=204)
    await space.ask("DELETE", f"/v1/namespaces/{space.name}", status=204)


async def test_a_list_is_paged_and_all_pages_name_the_version_of_the_first(space: Space) -> None:
    path = f"{space.path}/secrets"
    for number in range(5):
        await space.ask("PUT", f"{path}/n{number}", {}, 201)
    first = await space.ask("GET", f"{path}?limit=2")
    await space.ask("PUT", f"{path}/late", {}, 201)
    second = await space.ask("GET", f"{path}?limit=2&cursor={first['next_cursor']}")
    third = await space.ask("GET", f"{path}?limit=9&cursor={second['next_cursor']}")
    names = [one["metadata"]["name"] for page in (first, second, third) for one in page["items"]]
    assert names == ["n0", "n1", "n2", "n3", "n4"]
    assert first["resource_version"] == second["resource_version"] == third["resource_version"]
    assert third["next_cursor"] is None
    await space.refused("GET", f"{path}?cursor={first['next_cursor'].partition('.')[2]}", 422, "cursor_invalid")


async def test_of_two_who_read_and_change_the_same_one_is_told_to_read_again(space: Space) -> None:
    path = f"{space.path}/knowledge/shared"
    made = await space.ask("PUT", path, {"metadata": {"annotations": {"n": "0"}}, **KINDS["knowledge"][1]}, 201)
    tag = f'"{made["metadata"]["resourceVersion"]}"'
    answers = await asyncio.gather(
        *(
            space.stage.apis[n % len(space.stage.apis)].call(
                "PATCH", path, {"metadata": {"annotations": {"n": str(n)}}}, headers={"If-Match": tag}
            )
            for n in range(1, 9)
        )
    )
    assert sorted(status for status, _ in answers) == [200] + [412] * 7
    assert {body["code"] for status, body in answers if status == 412} == {"precondition_failed"}
    (won,) = [body for status, body in answers if status == 200]
    assert await space.ask("GET", path) == won

    async def count(api: Any) -> None:
        """Add one, as often as it takes."""
        while True:
            _, now = await api.call("GET", path, expect=200)
            value = str(int(now["metadata"]["annotations"]["n"]) + 1)
            status, _ = await api.call(
                "PATCH",
                path,
                {"metadata": {"annotations": {"n": value}}},
                headers={"If-Match": f'"{now["metadata"]["resourceVersion"]}"'},
            )
            assert status in (200, 412)
            if status == 200:
                return

    start = int(won["metadata"]["annotations"]["n"])
    await asyncio.gather(*(count(space.stage.apis[n % len(space.stage.apis)]) for n in range(20)))
    assert (await space.ask("GET", path))["metadata"]["annotations"]["n"] == str(start + 20)
    for no_patch in (7, [], ["x"]):
        wrong = await space.refused("PATCH", path, 422, "invalid", no_patch)
        assert wrong["detail"] == "the body must be a JSON object with the fields to change"
    for method in ("PUT", "PATCH", "DELETE"):
        body = None if method == "DELETE" else KINDS["knowledge"][1]
        await space.refused(method, path, 412, "precondition_failed", body, If_Match=tag)
    await space.refused("PUT", path, 412, "precondition_failed", KINDS["knowledge"][1], If_None_Match="*")
    await space.refused("PUT", path + "2", 412, "precondition_failed", KINDS["knowledge"][1], If_Match="*")
    await space.refused("DELETE", path, 422, "invalid", If_Match="7")
    await space.ask("DELETE", path, status=204, If_Match="*")


async def test_what_is_used_is_not_deleted_its_users_are_named_and_cascade_takes_them_along(space: Space) -> None:
    for plural, name in (("templates", "base"), ("mcp-servers", "srv"), ("secrets", "key")):
        await space.ask("PUT", f"{space.path}/{plural}/{name}", KINDS[plural][1], 201)
    await space.ask("PUT", f"{space.path}/agents/bot", KINDS["agents"][1], 201)
    await space.ask("PUT", f"{space.path}/schedules/daily", KINDS["schedules"][1], 201)
    auth = {"kind": "bearer", "secretRef": "key"}
    await space.ask("PUT", f"{space.path}/mcp-bindings/bind", {"spec": {"server": "srv", "agents": ["bot"], "auth": auth}}, 201)
    for path, users in (
        ("templates/base", ["Agent/bot"]),
        ("agents/bot", ["McpBinding/bind", "Schedule/daily"]),
        ("mcp-servers/srv", ["McpBinding/bind"]),
        ("secrets/key", ["McpBinding/bind"]),
    ):
        problem = await space.refused("DELETE", f"{space.path}/{path}", 409, "in_use")
        assert [error["field"] for error in problem["errors"]] == users
        listed = (await space.ask("GET", f"{space.path}/{path}/users"))["items"]
        assert [f"{one['kind']}/{one['name']}" for one in listed] == users
    graph = await space.ask("GET", f"{space.path}/graph")
    edges = {(edge["from"]["name"], edge["to"]["name"]) for edge in graph["edges"]}
    assert edges == {("bot", "base"), ("daily", "bot"), ("bind", "bot"), ("bind", "srv"), ("bind", "key")}
    await space.ask("DELETE", f"{space.path}/templates/base?cascade=true", status=204)
    left = [
        (plural, one["metadata"]["name"]) for plural in KINDS for one in (await space.ask("GET", f"{space.path}/{plural}"))["items"]
    ]
    assert left == [("mcp-servers", "srv"), ("secrets", "key")]
    dangling = await space.ask("PUT", f"{space.path}/mcp-bindings/bind", {"spec": {"server": "nobody"}}, 201)
    (resolved,) = [one for one in dangling["status"]["conditions"] if one["type"] == "ReferencesResolved"]
    assert (resolved["status"], resolved["reason"]) == ("False", "UnresolvedReference")
    graph = await space.ask("GET", f"{space.path}/graph")
    assert [node["name"] for node in graph["nodes"] if node.get("missing")] == ["nobody"]


async def test_an_agent_with_sessions_is_marked_its_sessions_end_and_it_goes(space: Space) -> None:
    path = f"{space.path}/agents/bot"
    await space.ask("PUT", path, {"spec": PROFILES}, 201)
    for number in range(3):
        await space.ask("POST", f"{path}/sessions", {"id": f"s{number}"}, 201)
    problem = await space.refused("DELETE", path, 409, "in_use")
    assert {error["field"] for error in problem["errors"]} == {f"Session/bot/s{number}" for number in range(3)}
    marked = await space.ask("DELETE", f"{path}?cascade=true", status=202)
    assert marked["status"]["phase"] == "Terminating"
    assert marked["metadata"]["deletingAt"]
    status, answer = await space.stage.other.call("POST", f"{path}/sessions", {"id": "late"})
    assert (status, answer["code"]) in {(409, "terminating"), (404, "agent_not_found")}
    await until(lambda: _gone(space, path))
    assert [one["revision"] for one in (await space.ask("GET", f"{path}/revisions"))["items"]] == [1]
    await space.ask("DELETE", f"/v1/namespaces/{space.name}", status=204)


async def test_a_namespace_is_deleted_with_everything_below_it_only_by_cascade(space: Space) -> None:
    child = f"{space.name}:eu"
    await space.ask("POST", "/v1/namespaces", {"name": child}, 201)
    for namespace in (space.name, child):
        await space.ask("PUT", f"/v1/ns/{namespace}/agents/bot", {"spec": PROFILES}, 201)
        await space.ask("POST", f"/v1/ns/{namespace}/agents/bot/sessions", {"id": "s1"}, 201)
    await space.ask("POST", "/v1/namespaces", {"name": f"{space.name}x"}, 201)
    problem = await space.refused("DELETE", f"/v1/namespaces/{space.name}", 409, "in_use")
    assert [error["field"] for error in problem["errors"]] == [f"Namespace/{child}", "Agent/bot", "Session/bot/s1"]
    for number in range(21):
        await space.ask("PUT", f"/v1/ns/{space.name}x/knowledge/k{number}", KINDS["knowledge"][1], 201)
    problem = await space.refused("DELETE", f"/v1/namespaces/{space.name}x", 409, "in_use")
    assert (len(problem["errors"]), " and others; " in problem["detail"]) == (20, True)
    await space.ask("DELETE", f"/v1/namespaces/{space.name}?cascade=true", status=202)
    for path in (f"/v1/namespaces/{child}", f"/v1/namespaces/{space.name}"):
        await until(lambda path=path: _gone(space, path))
    await space.refused("GET", f"{space.path}/agents", 404, "namespace_not_found")
    assert (await space.ask("GET", f"/v1/namespaces/{space.name}x"))["metadata"]["name"] == f"{space.name}x"
    await space.refused("DELETE", "/v1/namespaces/default?cascade=true", 409, "in_use")
    await space.ask("POST", "/v1/namespaces", {"name": space.name}, 201)
    assert (await space.ask("GET", f"{space.path}/agents"))["items"] == []


async def test_templates_of_a_parent_are_seen_below_it_the_nearest_wins_and_only_by_segment(space: Space) -> None:
    names = [f"{space.name}:eu", f"{space.name}:eu:de", f"{space.name}x"]
    for name in names:
        await space.ask("POST", "/v1/namespaces", {"name": name}, 201)
    eu, de, other = (f"/v1/ns/{name}" for name in names)

    def prompt(text: str) -> dict[str, Any]:
        return {"definition": {**PROFILES, "systemPrompt": text}}

    async def seen() -> str:
        shown = await space.ask("GET", f"{de}/agents/bot?effective=true")
        return shown["definition"]["customSpec"]["systemPrompt"]

    await space.ask("PUT", f"{space.path}/templates/base", prompt("top"), 201)
    await space.ask("PUT", f"{de}/agents/bot", {"spec": {"templateRef": "base"}}, 201)
    assert await seen() == "top"
    problem = await space.refused("PUT", f"{other}/agents/bot", 422, "invalid", {"spec": {"templateRef": "base"}})
    assert problem["errors"][0]["field"] == "spec.templateRef"
    users = (await space.ask("GET", f"{space.path}/templates/base/users"))["items"]
    assert [(one["namespace"], one["name"]) for one in users] == [(names[1], "bot")]
    problem = await space.refused("DELETE", f"{space.path}/templates/base", 409, "in_use")
    assert [error["field"] for error in problem["errors"]] == [f"{names[1]}/Agent/bot"]
    await space.ask("PUT", f"{eu}/templates/base", prompt("nearer"), 201)
    assert await seen() == "nearer"
    assert (await space.ask("GET", f"{space.path}/templates/base/users"))["items"] == []
    await space.ask("PUT", f"{space.path}/templates/base", prompt("top, changed"))
    assert await seen() == "nearer"
    await space.ask("DELETE", f"{space.path}/templates/base", status=204)
    await space.refused("DELETE", f"{eu}/templates/base", 409, "in_use")


async def test_an_agent_goes_back_to_what_it_was(space: Space) -> None:
    path = f"{space.path}/agents/bot"

    async def prompt() -> str:
        return (await space.ask("GET", f"{path}?effective=true"))["definition"]["customSpec"]["systemPrompt"]

    for number in range(1, 4):
        body = {"spec": {**PROFILES, "systemPrompt": f"prompt {number}"}}
        await space.ask("PUT", path, body, 201 if number == 1 else 200)
    back = await space.ask("POST", f"{path}/rollback", {})
    assert (back["status"]["revision"], await prompt()) == (4, "prompt 2")
    await space.ask("POST", f"{path}/rollback", {"revision": 1})
    assert await prompt() == "prompt 1"
    revisions = (await space.ask("GET", f"{path}/revisions"))["items"]
    assert [one["revision"] for one in revisions] == [5, 4, 3, 2, 1]
    assert await space.ask("GET", f"{path}/revisions/5") == revisions[0]
    await space.refused("POST", f"{path}/rollback", 404, "revision_not_found", {"revision": 99})
    await space.refused("GET", f"{path}/revisions/99", 404, "revision_not_found")
    await space.refused("POST", f"{path}/rollback", 422, "invalid", {"revision": 0})


async def test_a_secrets_value_goes_in_and_never_comes_out(space: Space) -> None:
    value, path = "hunter2-never-to-be-seen", f"{space.path}/secrets/key"
    answers: list[Any] = [await space.ask("PUT", path, {"spec": {"value": value}}, 201)]
    first = answers[0]["metadata"]
    same = await space.ask("PUT", path, {"spec": {"value": value}})
    assert (same["metadata"]["generation"], same["metadata"]["resourceVersion"]) == (1, first["resourceVersion"])
    kept = await space.ask("PUT", path, {})
    assert kept["metadata"]["generation"] == 1
    changed = await space.ask("PATCH", path, {"spec": {"value": value + "2"}})
    assert changed["metadata"]["generation"] == 2
    kept_back = await space.refused("PATCH", path, 422, "invalid", {"spec": {"value": None}})
    assert kept_back["errors"][0]["field"] == "spec.value", "nobody believes that a value is gone which is not"
    answers += [same, kept, changed, await space.ask("GET", path), await space.ask("GET", f"{space.path}/secrets")]
    answers.append(await space.ask("GET", f"{path}/uses"))
    answers.append(await space.ask("GET", f"{space.path}/export", Accept="application/yaml"))
    answers.append(await space.ask("POST", "/v1/apply?dry_run=true", [{**changed, "spec": {"value": value + "3"}}]))
    answers.append(await space.ask("POST", "/v1/secrets/rotate-key"))
    for body in (
        {"spec": {"value": [value]}},
        {"spec": {"value": {"a": value}}},
        {"spec": {"valeu": value}},
        {"spec": value},
        {"specs": {"value": value}},
        {"kind": "Agent", "spec": {"value": value}},
        {"metadata": {"name": "key", "labels": {"x": 7}}, "spec": {"value": value}},
        {"spec": {"value": value + "\u0000"}},
        {"spec": {"value": value * 9000}},
    ):
        status, problem = await space.stage.api.call("PUT", path, body)
        assert status in (400, 413, 422), body
        answers.append(problem)
    for text in (
        f"spec: {{value: {value}",
        f"spec: {{value: *{value}}}",
        f"spec:\n  value: {value}\n  value: {value}\n",
        f"spec: !!x {value}",
    ):
        status, problem = await space.stage.api.call("PUT", path, text, headers=YAML)
        assert status in (400, 413, 422), text
        answers.append(problem)
    status, problem = await space.stage.api.call(
        "PUT", path, f'{{"spec": {{"value": "{value}"', headers={"Content-Type": "application/json"}
    )
    answers.append(problem)
    assert [answer for answer in answers if value in json.dumps(answer)] == []
    assert value not in space.stage.log
    (condition,) = [one for one in changed["status"]["conditions"] if one["type"] == "Active"]
    assert condition["status"] == "True"


async def test_an_apply_may_prune_what_no_manifest_names_any_more(space: Space) -> None:
    def secret(name: str, **labels: str) -> dict[str, Any]:
        return {
            "apiVersion": "talon.dev/v1alpha1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": space.name, "labels": labels},
        }

    apply = "/v1/apply?prune=true&label_selector=by%3Dgit"
    await space.ask("POST", "/v1/apply", [secret("kept", by="git"), secret("gone", by="git"), secret("other", by="hand")])
    planned = await space.ask("POST", f"{apply}&dry_run=true", [secret("kept", by="git")])
    done = await space.ask("POST", apply, [secret("kept", by="git")])
    for answer in (planned, done):
        actions = {item["name"]: item["action"] for item in answer["items"]}
        assert actions == {"kept": "unchanged", "gone": "deleted"}
    assert [one["metadata"]["name"] for one in (await space.ask("GET", f"{space.path}/secrets"))["items"]] == ["kept", "other"]
    await space.refused("POST", "/v1/apply?prune=true", 422, "invalid", [secret("kept", by="git")])


async def test_an_export_applies_again_elsewhere(space: Space) -> None:
    await space.ask("PUT", f"{space.path}/templates/base", KINDS["templates"][1], 201)
    for plural in ("agents", "schedules", "knowledge", "mcp-servers", "mcp-bindings", "secrets"):
        name = {"agents": "bot", "mcp-servers": "srv"}.get(plural, "one")
        await space.ask("PUT", f"{space.path}/{plural}/{name}", KINDS[plural][1], 201)
    text = await space.ask("GET", f"{space.path}/export", Accept="application/yaml")
    assert "tr0ub4dor" not in text
    again = await space.ask("POST", "/v1/apply", text, **YAML)
    assert {item["action"] for item in again["items"]} == {"unchanged"}
    moved = text.replace(f"namespace: {space.name}\n", f"namespace: {space.name}b\n").replace(
        f"name: {space.name}\n", f"name: {space.name}b\n"
    )
    await space.ask("POST", "/v1/apply", moved, **YAML)
    for plural in KINDS:
        answers = [await space.ask("GET", f"/v1/ns/{name}/{plural}") for name in (space.name, f"{space.name}b")]
        one, other = ([item["metadata"]["name"] for item in answer["items"]] for answer in answers)
        assert one == other


async def test_every_kind_has_a_schema(space: Space) -> None:
    names = [one["kind"] for one in (await space.ask("GET", "/v1/schemas"))["items"]]
    assert {"Namespace", "AgentTemplate", "Agent", "Session", "Schedule", "Knowledge", "McpServer", "McpBinding", "Secret"} <= set(
        names
    )
    for name in names:
        schema = await space.ask("GET", f"/v1/schemas/{name}")
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    await space.refused("GET", "/v1/schemas/Nothing", 404, "kind_not_found")


async def _gone(space: Space, path: str) -> bool:
    return (await space.stage.other.call("GET", path))[0] == 404
