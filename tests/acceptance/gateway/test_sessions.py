"""Sessions, messages, turns and approvals over HTTP."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from support.bootedgateway import SESSIONS, Booted

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def test_a_named_session_is_created_once(gateway: Booted) -> None:
    first = await gateway.call("POST", SESSIONS, {"id": "renewals", "metadata": {"owner": "ops"}, "features": {"tone": "warm"}})
    assert first.status == 201
    assert first.headers["location"] == SESSIONS + "/renewals"
    body = first.body
    assert TIME.fullmatch(body["created_at"])
    assert (body["id"], body["agent"], body["namespace"], body["state"]) == ("renewals", "helper", "acme", "idle")
    assert (body["metadata"], body["features"], body["last_seq"], body["turn_id"]) == ({"owner": "ops"}, {"tone": "warm"}, 0, None)
    again = await gateway.call("POST", SESSIONS, {"id": "renewals", "metadata": {"owner": "else"}})
    assert (again.status, again.body) == (200, body)
    assert (await gateway.call("GET", SESSIONS + "/renewals")).body == body


async def test_a_session_without_a_name_gets_an_id_that_a_repeated_request_finds_again(gateway: Booted) -> None:
    assert UUID.fullmatch((await gateway.call("POST", SESSIONS)).body["id"])
    one = await gateway.call("POST", SESSIONS, {}, Idempotency_Key="k1")
    two = await gateway.call("POST", SESSIONS, {}, Idempotency_Key="k1")
    other = await gateway.call("POST", SESSIONS, {}, Idempotency_Key="k2")
    assert (one.status, two.status, other.status) == (201, 200, 201)
    assert one.body["id"] == two.body["id"] != other.body["id"]


async def test_every_wrong_field_of_a_session_is_named(gateway: Booted) -> None:
    answer = await gateway.call("POST", SESSIONS, {"id": "UPPER", "features": {"tone": "loud", "mood": 1}, "profile": "third"})
    assert (answer.status, answer.body["code"]) == (422, "invalid")
    assert [one["field"] for one in answer.body["errors"]] == ["id", "features.tone", "features.mood", "profile"]
    missing = await gateway.call("POST", "/v1/ns/acme/agents/strict/sessions", {})
    assert [one["field"] for one in missing.body["errors"]] == ["features.customer_id"]
    unknown = await gateway.call("POST", SESSIONS, {"name": "x"})
    assert unknown.body["errors"] == [{"field": "name", "message": "unknown field", "value": "x"}]
    wrong = await gateway.call("GET", f"{SESSIONS}?limit=x")
    assert wrong.body["errors"] == [{"field": "limit", "message": "must be a whole number", "value": "x"}]


async def test_what_is_missing_on_the_way_to_a_session_is_named(gateway: Booted) -> None:
    await gateway.session()
    for path, code in (
        ("/v1/ns/nowhere/agents/helper/sessions/s1", "namespace_not_found"),
        ("/v1/ns/acme/agents/nobody/sessions/s1", "agent_not_found"),
        ("/v1/ns/acme/agents/helper/sessions/s2", "session_not_found"),
        ("/v1/ns/Acme/agents/helper/sessions/s1", "namespace_not_found"),
        ("/v1/ns/acme/agents/helper/sessions/" + "s" * 64, "session_not_found"),
        ("/v1/ns/acme/agents/helper/sessions/s%00", "session_not_found"),
    ):
        for method, rest, body in (
            ("GET", "", None),
            ("GET", "/journal", None),
            ("GET", "/messages", None),
            ("GET", "/turns", None),
            ("GET", "/state", None),
            ("GET", "/stream", None),
            ("POST", "/message", {"content": "x"}),
            ("PATCH", "", {"profile": ""}),
            ("DELETE", "", None),
        ):
            answer = await gateway.call(method, path + rest, body)
            assert (answer.status, answer.body["code"]) == (404, code), (method, path + rest)


async def test_a_session_is_changed_and_listed_page_by_page(gateway: Booted) -> None:
    session = await gateway.session("a")
    for name in ("b", "c"):
        await gateway.session(name)
    changed = await gateway.call("PATCH", session, {"metadata": {"k": [1]}, "profile": "second", "features": {"tone": "warm"}})
    assert changed.status == 200
    assert (changed.body["metadata"], changed.body["profile"], changed.body["features"]) == ({"k": [1]}, "second", {"tone": "warm"})
    kept = await gateway.call("PATCH", session, {"metadata": {}})
    assert (kept.body["metadata"], kept.body["profile"]) == ({}, "second")
    assert (await gateway.call("PATCH", session, {"features": {"tone": "rude"}})).status == 422
    assert (await gateway.call("PATCH", session, {})).status == 422
    names: list[str] = []
    cursor = ""
    for _ in range(3):
        page = (await gateway.call("GET", f"{SESSIONS}?limit=1{cursor and '&cursor=' + cursor}")).body
        names += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"] or ""
    assert (names, cursor) == (["c", "b", "a"], "")


async def test_a_message_is_durable_and_the_same_key_gives_the_same_turn(gateway: Booted) -> None:
    session = await gateway.session()
    one = await gateway.call("POST", session + "/message", {"content": "hi", "metadata": {"n": 1}}, Idempotency_Key="k")
    two = await gateway.call("POST", session + "/message", {"metadata": {"n": 1}, "content": "hi"}, Idempotency_Key="k")
    assert (one.status, two.status, one.body) == (202, 202, two.body)
    assert "idempotent-replayed" not in one.headers
    assert two.headers["idempotent-replayed"] == "true"
    other = await gateway.call("POST", session + "/message", {"content": "ho"}, Idempotency_Key="k")
    assert (other.status, other.body["code"]) == (409, "idempotency_conflict")
    entries = (await gateway.call("GET", session + "/journal")).body["items"]
    assert [one["type"] for one in entries] == ["message.received", "turn.queued"]
    assert entries[0]["payload"] == {"content": "hi", "role": "user", "strategy": "enqueue", "metadata": {"n": 1}}
    assert TIME.fullmatch(entries[0]["at"])


async def test_bad_messages_get_their_own_errors_and_the_session_stays_usable(gateway: Booted) -> None:
    path = await gateway.session() + "/message"
    json_type = {"Content_Type": "application/json"}
    cases: list[tuple[Any, int, str, str]] = [
        (b'{"content": ""}', 422, "invalid", "content"),
        (b'{"content": " \\n"}', 422, "invalid", "content"),
        (b"{}", 422, "invalid", "content"),
        (b'{"content": 3}', 422, "invalid", "content"),
        (b'{"content": "a\\u0000b"}', 422, "invalid", "content"),
        (b'{"content": "a", "stratgy": "steer"}', 422, "invalid", "stratgy"),
        (b'{"content": "a", "strategy": "queue"}', 422, "invalid", "strategy"),
        (b'{"content": "a", "metadata": [1]}', 422, "invalid", "metadata"),
        (b'{"content": "a", "metadata": {"k": "' + b"x" * 70_000 + b'"}}', 413, "too_large", "metadata"),
        (b'{"content": "' + b"x" * (2 * 1024 * 1024) + b'"}', 413, "too_large", "content"),
        (b'{"content": "\xff\xfe"}', 400, "malformed", ""),
        (b'{"content": "a"', 400, "malformed", ""),
        (b"", 400, "malformed", ""),
        (b"[" * 100_000, 422, "invalid", "body"),
        (b'{"content":"a","metadata":{"a":' + b"[" * 100_000, 400, "malformed", ""),
    ]
    for data, status, code, field in cases:
        answer = await gateway.call("POST", path, data=data, **json_type)
        assert (answer.status, answer.body["code"]) == (status, code), data[:60]
        assert [one["field"] for one in answer.body["errors"]] == ([field] if field else []), data[:60]
    for key in ("", "a b", "x" * 256, "ключ"):
        answer = await gateway.call("POST", path, {"content": "a"}, **({"Idempotency-Key": key}))
        assert (answer.status, answer.body["errors"][0]["field"]) == (422, "Idempotency-Key"), key
    assert (await gateway.call("POST", path + "?create=perhaps", {"content": "a"})).status == 422
    assert (await gateway.call("POST", path + "?creat=true", {"content": "a"})).body["errors"][0]["field"] == "creat"
    largest = await gateway.call("POST", path, {"content": "x" * 1024 * 1024})
    assert largest.status == 202
    assert (await gateway.call("GET", path.removesuffix("/message") + "/messages")).body["items"][0]["content"] == "x" * 1024 * 1024


async def test_create_true_makes_the_session_on_the_way(gateway: Booted) -> None:
    path = SESSIONS + "/fresh/message"
    assert (await gateway.call("POST", path, {"content": "a"})).body["code"] == "session_not_found"
    answers = await asyncio.gather(*(gateway.call("POST", path + "?create=true", {"content": "a"}) for _ in range(5)))
    assert [one.status for one in answers] == [202] * 5
    assert sorted(one.body["seq"] for one in answers) == [1, 3, 5, 7, 9]
    needs = await gateway.call("POST", "/v1/ns/acme/agents/strict/sessions/x/message?create=true", {"content": "a"})
    assert (needs.status, needs.body["errors"][0]["field"]) == (422, "features.customer_id")
    bad = await gateway.call("POST", SESSIONS + "/UP/message?create=true", {"content": "a"})
    assert (bad.status, bad.body["errors"][0]["field"]) == (422, "id")


async def test_turns_state_and_cancel(gateway: Booted) -> None:
    session = await gateway.session()
    empty = (await gateway.call("GET", session + "/state")).body
    assert empty == {
        "phase": "planning",
        "iteration": 0,
        "maxIterations": 10,
        "goal": "",
        "pending": [],
        "completed": [],
        "totalTokensUsed": 0,
        "totalCost": 0.0,
    }
    first = await gateway.message(session)
    turn = f"{session}/turns/{first['turn_id']}"
    assert (await gateway.call("GET", turn)).body["state"] == "queued"
    held = await gateway.hand.claim()
    await gateway.hand.start(held)
    running = (await gateway.call("GET", turn)).body
    assert (running["state"], running["revision"], running["session_id"], running["seq"]) == ("running", 1, "s1", 1)
    cancelled = await gateway.call("POST", turn + "/cancel", Idempotency_Key="c")
    assert (cancelled.status, cancelled.body["state"]) == (202, "running")  # its worker will write the end
    second = await gateway.message(session, "two")
    done = await gateway.call("POST", f"{session}/turns/{second['turn_id']}/cancel", {}, Idempotency_Key="d")
    assert (done.status, done.body["state"], done.body["reason"]) == (202, "cancelled", "cancelled")
    again = await gateway.call("POST", f"{session}/turns/{second['turn_id']}/cancel", {}, Idempotency_Key="d")
    assert again.status == 202
    late = await gateway.call("POST", f"{session}/turns/{second['turn_id']}/cancel")
    assert (late.status, late.body["code"]) == (409, "turn_ended")
    assert [one["turn_id"] for one in (await gateway.call("GET", session + "/turns")).body["items"]] == [
        second["turn_id"],
        first["turn_id"],
    ]
    for name in ("0199a0c0-0000-7000-8000-000000000001", "x", "%00"):
        assert (await gateway.call("GET", f"{session}/turns/{name}")).body["code"] == "turn_not_found"
        assert (await gateway.call("POST", f"{session}/turns/{name}/cancel")).body["code"] == "turn_not_found"


async def test_an_uncertain_call_is_decided_by_a_human_once(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    held = await gateway.hand.claim()
    await gateway.hand.start(held)
    approval = gateway.hand.ids.uuid7()
    await gateway.hand.ask(held, approval)
    (item,) = (await gateway.call("GET", "/v1/ns/acme/approvals?state=open")).body["items"]
    assert (item["id"], item["name"], item["arguments"], item["session_id"], item["agent"], item["state"]) == (
        approval,
        "refund",
        '{"x":1}',
        "s1",
        "helper",
        "open",
    )
    path = f"/v1/ns/acme/approvals/{approval}"
    assert (await gateway.call("GET", path)).body == item
    for body, field in (
        ({"outcome": "yes"}, "outcome"),
        ({}, "outcome"),
        ({"outcome": "done"}, "result"),
        ({"outcome": "retry", "result": "r"}, "result"),
        ({"outcome": "failed", "notes": "n"}, "notes"),
    ):
        refused = await gateway.call("POST", path, body)
        assert (refused.status, refused.body["errors"][0]["field"]) == (422, field), body
    done = await gateway.call("POST", path, {"outcome": "done", "result": "R-17", "note": "seen"}, Idempotency_Key="a")
    assert (done.status, done.body["state"], done.body["outcome"]) == (200, "resolved", "done")
    assert (
        await gateway.call("POST", path, {"outcome": "done", "result": "R-17", "note": "seen"}, Idempotency_Key="a")
    ).status == 200
    closed = await gateway.call("POST", path, {"outcome": "retry"})
    assert (closed.status, closed.body["code"]) == (409, "approval_closed")
    assert (await gateway.call("GET", "/v1/ns/acme/approvals?state=open")).body["items"] == []
    entries = (await gateway.call("GET", session + "/journal?limit=500")).body["items"]
    assert entries[-1]["payload"]["result"] == "R-17"
    for other in ("/v1/ns/acme/approvals/" + session.replace("/", "")[:36], "/v1/ns/acme/approvals/x%00"):
        assert (await gateway.call("GET", other)).body["code"] == "approval_not_found"
    assert (await gateway.call("GET", "/v1/ns/none/approvals")).body["code"] == "namespace_not_found"


async def test_journal_and_messages_are_paged_by_seq(gateway: Booted) -> None:
    session = await gateway.session()
    for at in range(3):
        await gateway.message(session, f"m{at}")
    page = (await gateway.call("GET", session + "/journal?limit=4")).body
    assert ([one["seq"] for one in page["items"]], page["next_cursor"]) == ([1, 2, 3, 4], "4")
    page = (await gateway.call("GET", session + "/journal?limit=4&cursor=4")).body
    assert ([one["seq"] for one in page["items"]], page["next_cursor"]) == ([5, 6], None)
    said = (await gateway.call("GET", session + "/messages?limit=2")).body
    assert [(one["role"], one["content"]) for one in said["items"]] == [("user", "m0"), ("user", "m1")]
    assert (await gateway.call("GET", session + "/journal?cursor=7")).body["code"] == "cursor_ahead"
    assert (await gateway.call("GET", session + "/journal?cursor=x")).body["code"] == "cursor_invalid"
    assert (await gateway.call("GET", session + "/journal?limit=501")).status == 422
    assert (await gateway.call("GET", session + "/journal?limit=0")).status == 422
