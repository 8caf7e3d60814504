"""Bad input, and what it gets: its own clear error, on both stores; the session stays usable, and no log has a traceback."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest

from support.stage import Stage, path

pytestmark = pytest.mark.asyncio(loop_scope="session")
YAML = {"Content-Type": "application/yaml"}
JSON = {"Content-Type": "application/json"}
HEAD = "apiVersion: talon.dev/v1alpha1\nkind: Agent\nmetadata: {name: fine}\n"
BODY = "definition: {modelPolicy: {profiles: [{name: p, model: {provider: model, name: m}}]}}\n"
#: Nine times nine times nine … strings from a few lines.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{here}: &{here} [{','.join([f'*{before}'] * 9)}]\n" for before, here in itertools.pairwise("abcdefghi")
)
MANIFESTS: dict[str, tuple[str | bytes, int, str, str]] = {
    "not YAML": ("a: [1, 2\nb: }", 400, "malformed", "line 2"),
    "a tab": ("a:\n\tb: 1", 400, "malformed", "line 2"),
    "not UTF-8": (b"kind: \xff\xfe", 400, "malformed", "UTF-8"),
    "NUL": ("kind: Agent\0", 400, "malformed", ""),
    "nothing": ("", 400, "malformed", ""),
    "a number": ("42", 422, "invalid", ""),
    "an unknown kind": ("apiVersion: talon.dev/v1alpha1\nkind: Agnet\nmetadata: {name: a}", 422, "invalid", "Agent"),
    "another version": ("apiVersion: talon.dev/v9\nkind: Agent\nmetadata: {name: a}", 422, "invalid", "talon.dev/v1alpha1"),
    "an unknown field": (HEAD + BODY + "colour: red\n", 422, "invalid", "colour"),
    "upper case": (HEAD.replace("fine", "Fine") + BODY, 422, "invalid", "upper case"),
    "64 characters": (HEAD.replace("fine", "x" * 64) + BODY, 422, "invalid", "at most 63"),
    "a path": (HEAD.replace("fine", "../etc/passwd") + BODY, 422, "invalid", "'.'"),
    "no model": (HEAD + "definition: {systemPrompt: x}\n", 422, "invalid", "modelPolicy"),
    "a key twice": (HEAD + BODY + BODY, 422, "invalid", "given twice"),
    "a bomb": (BOMB, 413, "too_large", "aliases"),
    "very deep": ("[" * 3000, 413, "too_large", "nested"),
    "an object of Python": ("kind: !!python/object/apply:os.system ['true']", 422, "invalid", "tag, which is not read here"),
}
#: Names that are none. `/` and `..` come percent-encoded: a client library would take them away otherwise.
NAMES = (
    "Upper",
    "x" * 64,
    "-dash",
    "dash-",
    "a_b",
    "a.b",
    "..",
    "../x",
    "a/b",
    "%",
    "a b",
    "ä",
    "\0",
    "a\nb",
    "CON",
    "*",
    "s1;--",
    "'",
)


async def problem(
    stage: Stage, method: str, route: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """-> (status, problem) of a request that must be refused: 4xx, in the form of every problem."""
    status, found = await stage.api.call(method, route, body, headers=headers)
    assert 400 <= status < 500, (method, route, status, found)
    assert {"type", "title", "status", "detail", "code", "errors", "request_id"} == set(found), (method, route, found)
    assert found["status"] == status
    assert "Traceback" not in json.dumps(found)
    return status, found


# --- manifests ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFESTS)
async def test_a_manifest_that_is_wrong_is_refused_whole_and_says_where(embedded: Stage, name: str) -> None:
    body, status, code, word = MANIFESTS[name]
    got, found = await problem(embedded, "POST", "/v1/apply", body, YAML)
    assert (got, found["code"]) == (status, code), found
    assert word in json.dumps(found, ensure_ascii=False), found
    assert (await embedded.api.call("GET", "/v1/ns/default/agents/fine"))[0] == 404


async def test_of_many_documents_with_one_mistake_none_is_applied_by_http_and_by_the_command_line(stage: Stage) -> None:
    both = HEAD + BODY + "---\n" + HEAD.replace("fine", "Fine") + BODY
    _, found = await problem(stage, "POST", "/v1/apply", both, YAML)
    assert len(found["errors"]) == 1
    code, out, errors = await stage.cli("apply", "-f", "-", stdin=both.encode())
    assert (code, out) == (3, "")
    assert "line 8" in errors
    assert "[invalid]" in errors
    assert "Traceback" not in errors
    assert (await stage.api.call("GET", "/v1/ns/default/agents/fine"))[0] == 404


async def test_an_apply_makes_a_namespace_that_is_missing_and_says_so(stage: Stage) -> None:
    made = await stage.api.apply(HEAD.replace("{name: fine}", "{name: fine, namespace: made-on-the-way}") + BODY)
    (warning,) = made["warnings"]
    assert warning["message"] == "namespace 'made-on-the-way' did not exist and is created"


# --- names --------------------------------------------------------------------------------------------------------------------


async def test_a_name_that_is_none_is_refused_in_a_body_and_finds_nothing_in_a_url(stage: Stage) -> None:
    sessions = "/v1/ns/default/agents/helper/sessions"
    for name in NAMES:
        status, found = await problem(stage, "POST", sessions, {"id": name})
        assert (status, found["code"], found["errors"][0]["field"]) == (422, "invalid", "id"), name
        assert (await problem(stage, "POST", "/v1/namespaces", {"name": name}))[1]["code"] == "invalid"
        raw = quote(name, safe="")
        for route in (
            f"{sessions}/{raw}",
            f"{sessions}/{raw}/journal",
            f"/v1/ns/default/agents/{raw}",
            f"/v1/ns/{raw}/agents",
            f"/v1/namespaces/{raw}/agents",
            f"{sessions}/{raw}/stream",
        ):
            status, found = await problem(stage, "GET", route)
            assert status in (404, 405), (route, found)
        status, found = await problem(stage, "POST", f"{sessions}/{raw}/message?create=true", {"content": "x"})
        assert status in (404, 405, 422), (name, found)
    listed = [item["id"] for item in (await stage.api.get(f"{sessions}?limit=500"))["items"]]
    assert not set(listed) & set(NAMES)


async def test_what_is_missing_is_named(stage: Stage) -> None:
    for route, code in (
        ("/v1/ns/nowhere/agents/helper/sessions/s", "namespace_not_found"),
        ("/v1/ns/default/agents/nobody/sessions/s", "agent_not_found"),
        ("/v1/ns/default/agents/helper/sessions/nothing", "session_not_found"),
        ("/v1/ns/default/agents/helper/sessions/nothing/message", "session_not_found"),
    ):
        method = "POST" if route.endswith("message") else "GET"
        status, found = await problem(stage, method, route, {"content": "x"} if method == "POST" else None)
        assert (status, found["code"]) == (404, code), route
    code, out, errors = await stage.cli("session", "send", "nobody", "s", "hello", "--create")
    assert (code, out) == (3, "")
    assert "nobody" in errors
    assert "[agent_not_found]" in errors


# --- messages -----------------------------------------------------------------------------------------------------------------


async def test_a_message_that_is_none_is_refused_and_the_next_one_is_answered(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} first")
    before = await stage.types(where)
    route = path(where, "message")
    wrong: list[tuple[Any, int, str]] = [
        ({"content": ""}, 422, "invalid"),
        ({"content": " \n\t "}, 422, "invalid"),
        ({}, 422, "invalid"),
        ({"content": None}, 422, "invalid"),
        ({"content": 7}, 422, "invalid"),
        ({"content": "x\0y"}, 422, "invalid"),
        ({"content": "x" * 2_097_152}, 413, "too_large"),
        ({"content": "ä" * 600_000}, 413, "too_large"),
        ({"content": "x", "strategy": "shout"}, 422, "invalid"),
        ({"content": "x", "colour": "red"}, 422, "invalid"),
        ({"content": "x", "metadata": {"a": "y" * 70_000}}, 413, "too_large"),
        (b'{"content": "\xff\xfe"}', 400, "malformed"),
        (b'{"content": "half', 400, "malformed"),
        (b'{"content": "\\ud800"}', 400, "malformed"),
        (b"", 400, "malformed"),
        (b'{"content": "x", "metadata": {"a": ' + b"[" * 100_000, 400, "malformed"),
        (b"[]", 422, "invalid"),
    ]
    for body, status, code in wrong:
        got, found = await problem(stage, "POST", route, body, JSON)
        assert (got, found["code"]) == (status, code), (str(body)[:60], found)
    assert (await problem(stage, "POST", route, b"content=x", {"Content-Type": "text/plain"}))[0] == 415
    assert await stage.types(where) == before
    # What only looks odd is kept to the letter, NUL in metadata too.
    odd = "\u2028 \U0001f600 \x7f \u202e right to left"
    metadata = {"nul": "a\0b", "deep": {"x": [None, 1e300, "ü"]}}
    receipt = await stage.api.send(where, odd, metadata=metadata)
    assert (await stage.done(where, receipt["turn_id"]))["type"] == "turn.completed"
    messages = (await stage.api.get(path(where, "messages")))["items"]
    (kept,) = [item for item in messages if item["seq"] == receipt["seq"]]
    assert (kept["content"], kept["metadata"]) == (odd, metadata)


async def test_a_used_key_with_another_body_is_refused_and_with_the_same_gives_the_first_turn(stage: Stage) -> None:
    where = stage.session()
    first = await stage.api.send(where, f"{where} once", key=f"{where}-key")
    again = await stage.api.send(where, f"{where} once", key=f"{where}-key")
    assert again == first
    for body in (
        {"content": "other"},
        {"content": f"{where} once", "strategy": "steer"},
        {"content": f"{where} once", "metadata": {"a": 1}},
    ):
        status, found = await problem(stage, "POST", path(where, "message"), body, {"Idempotency-Key": f"{where}-key"})
        assert (status, found["code"]) == (409, "idempotency_conflict")
    for key in ("with space", "x" * 256, "ü", ""):
        status, found = await problem(stage, "POST", path(where, "message"), {"content": "x"}, {"Idempotency-Key": key})
        assert (status, found["code"]) == (422, "invalid"), key
    assert (await stage.types(where)).count("message.received") == 1


# --- cursors ------------------------------------------------------------------------------------------------------------------


async def test_a_bad_cursor_of_a_list_is_refused_everywhere(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} hello")
    lists = (
        "/v1/namespaces",
        "/v1/ns/default/agents",
        "/v1/ns/default/templates",
        "/v1/ns/default/agents/helper/revisions",
        "/v1/ns/default/agents/helper/sessions",
        "/v1/ns/default/approvals",
        path(where, "turns"),
        path(where, "journal"),
        path(where, "messages"),
    )
    for route in lists:
        for cursor in ("x", "%00", "-1", "1.5.9.9", "A" * 500, "%F0%9F%98%80", "bnVsbA"):
            status, found = await problem(stage, "GET", f"{route}?cursor={cursor}")
            assert (status, found["code"]) == (422, "cursor_invalid"), (route, cursor, found)
        for limit in ("0", "-1", "501", "x", "1e2", ""):
            status, found = await problem(stage, "GET", f"{route}?limit={limit}")
            assert (status, found["code"]) == (422, "invalid"), (route, limit)
        assert (await problem(stage, "GET", f"{route}?curser=1"))[0] == 422
    for route in lists[-2:]:
        assert (await problem(stage, "GET", f"{route}?cursor=999999"))[1]["code"] == "cursor_ahead", route


# --- the command line ---------------------------------------------------------------------------------------------------------


async def test_the_command_line_tells_wrong_use_from_a_refusal_from_a_failure(embedded: Stage) -> None:
    stage = embedded
    for words, expected, told in (
        (("frobnicate",), 2, "no such command"),
        (("session", "send", "helper"), 2, "AGENT SESSION"),
        (("get", "nonsense"), 2, "nonsense"),
        (("apply", "-f", "missing.yaml"), 2, "missing.yaml"),
        (("session", "show", "helper", "missing"), 3, "[session_not_found]"),
        (("session", "create", "helper", "Upper"), 3, "[invalid]"),
        (("approval", "resolve", "00000000-0000-7000-8000-000000000000", "--outcome", "failed"), 3, "[approval_not_found]"),
        (("session", "list", "helper", "--server", "http://127.0.0.1:9"), 1, "talon up"),
    ):
        code, out, errors = await stage.cli(*words)
        assert (code, out) == (expected, ""), (words, errors)
        assert told in errors, (words, errors)
        assert "Traceback" not in errors, errors
    code, _, errors = await stage.cli("session", "send", "helper", "bytes", "-", "--create", stdin=b"\xff\xfe")
    assert code == 2
    assert "UTF-8" in errors
