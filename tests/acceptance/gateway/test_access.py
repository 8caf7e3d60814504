"""Keys and tokens over HTTP, streams that end with whoever opened them, limits, and the log of who did what."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from support.bootedgateway import SESSIONS, Answer, Booted, Stream, booted
from support.waiting import until
from talon.access.lines import Lines
from talon.gateway.accesslog import NOBODY_BURST


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncGenerator[Booted]:
    async with booted(tmp_path, keys=True) as running:
        yield running


async def key(gateway: Booted, role: str = "operator", namespace: str = "acme") -> tuple[str, dict[str, Any]]:
    """A new key; -> (the header that shows it, the credential)."""
    made = await gateway.call("POST", "/v1/auth/keys", {"name": "t", "grants": [{"role": role, "namespace": namespace}]})
    assert made.status == 201, made
    return f"Bearer {made.body['secret']}", made.body["credential"]


async def token(gateway: Booted, authorization: str, **fields: Any) -> Answer:
    body = {"namespace": "acme", "agent": "helper", **fields}
    return await gateway.call("POST", "/v1/auth/tokens", body, Authorization=authorization)


# --- keys and tokens ----------------------------------------------------------------------------------------------------------


async def test_a_key_is_made_shown_once_listed_and_ended(guarded: Booted) -> None:
    shown, credential = await key(guarded, "developer")
    me = (await guarded.call("GET", "/v1/auth/whoami", Authorization=shown)).body
    assert (me["id"], me["grants"], me["asked"]) == (f"key:{credential['id']}", ["developer@acme"], True)
    listed = await guarded.call("GET", "/v1/auth/keys")
    assert credential["id"] in [item["id"] for item in listed.body["items"]]
    assert shown.removeprefix("Bearer ") not in listed.raw.decode()
    ended = await guarded.call("DELETE", f"/v1/auth/keys/{credential['id']}")
    assert ended.status == 204
    refused = await guarded.call("GET", "/v1/auth/whoami", Authorization=shown)
    assert (refused.status, refused.body["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_nobody_gives_more_than_he_has_or_where_he_is_not(guarded: Booted) -> None:
    shown, _ = await key(guarded, "admin", "acme")
    cases = {("admin", "acme:eu"): 201, ("admin", "acme"): 201, ("viewer", "beta"): 404, ("viewer", "*"): 403}
    for (role, namespace), status in cases.items():
        body = {"name": "n", "grants": [{"role": role, "namespace": namespace}]}
        made = await guarded.call("POST", "/v1/auth/keys", body, Authorization=shown)
        assert made.status == status, (role, namespace, made)
    developer, _ = await key(guarded, "developer")
    assert (await token(guarded, developer)).status == 201
    assert (await token(guarded, developer, role="admin")).body["code"] == "forbidden"
    assert (await token(guarded, developer, namespace="beta")).body["code"] == "namespace_not_found"
    client = f"Bearer {(await token(guarded, developer)).body['secret']}"
    assert (await token(guarded, client)).body["code"] == "forbidden"


async def test_who_manages_some_keys_finds_no_others(guarded: Booted) -> None:
    await guarded.call("POST", "/v1/namespaces", {"kind": "Namespace", "metadata": {"name": "beta"}})
    mine, own = await key(guarded, "admin", "acme")
    _, theirs = await key(guarded, "admin", "beta")
    listed = await guarded.call("GET", "/v1/auth/keys", Authorization=mine)
    assert [item["id"] for item in listed.body["items"]] == [own["id"]]
    foreign = await guarded.call("DELETE", f"/v1/auth/keys/{theirs['id']}", Authorization=mine)
    nothing = await guarded.call("DELETE", "/v1/auth/keys/nothing", Authorization=mine)
    assert (foreign.status, foreign.body["detail"].replace(theirs["id"], "nothing")) == (404, nothing.body["detail"])
    assert (await guarded.call("DELETE", f"/v1/auth/keys/{own['id']}", Authorization=mine)).status == 204


# --- streams --------------------------------------------------------------------------------------------------------------------


async def test_streams_and_watches_end_with_their_key_within_a_second(guarded: Booted) -> None:
    shown, credential = await key(guarded)
    other, _ = await key(guarded)
    client = f"Bearer {(await token(guarded, shown, session='s1')).body['secret']}"
    session = await guarded.session("s1")
    async with contextlib.AsyncExitStack() as stack:

        async def follow(path: str, authorization: str) -> Stream:
            return await stack.enter_async_context(Stream(guarded, path, {"Authorization": authorization}))

        mine = [await follow(path, shown) for path in (f"{session}/stream", "/v1/ns/acme/agents?watch=true")]
        mine.append(await follow(f"{session}/stream", client))
        theirs = await follow(f"{session}/stream", other)
        await mine[1].take(1)
        began = time.monotonic()
        assert (await guarded.call("DELETE", f"/v1/auth/keys/{credential['id']}")).status == 204
        for stream in mine:
            assert await stream.next(2.0) is None
        assert time.monotonic() - began < 1.0
        await guarded.message(session)
        assert (await theirs.take(1))[0].type == "message.received"
        assert (await guarded.call("GET", f"{session}/stream", Authorization=shown)).status == 401
    assert guarded.hub.count + guarded.hub.watches <= 1


async def test_a_stream_ends_when_its_token_expires(guarded: Booted) -> None:
    session = await guarded.session("s1")
    minted = await guarded.call("POST", "/v1/auth/tokens", {"namespace": "acme", "agent": "helper", "session": "s1", "ttl_s": 1})
    client = {"Authorization": f"Bearer {minted.body['secret']}"}
    async with Stream(guarded, f"{session}/stream", client) as stream:
        assert await stream.next(4.0) is None
    assert (await guarded.call("GET", session, **client)).status == 401


async def test_a_revocation_elsewhere_ends_streams_too(guarded: Booted) -> None:
    """Another gateway writes only to the store."""
    shown, credential = await key(guarded)
    session = await guarded.session("s1")
    async with Stream(guarded, f"{session}/stream", {"Authorization": shown}) as stream:
        began = time.monotonic()
        await guarded.store.revoke_credential(credential["id"])
        assert await stream.next(3.0) is None
        assert time.monotonic() - began < 1.5


# --- limits -----------------------------------------------------------------------------------------------------------------------


async def test_streams_and_requests_of_one_principal_are_bounded_and_others_are_not(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"principal_streams_max": 2, "principal_requests_per_s": 0.5, "principal_requests_burst": 6}
    async with booted(tmp_path, keys=True, **limits) as gateway:
        session = await gateway.session("s1")
        (shown, _), (other, _) = await key(gateway), await key(gateway)
        mine = {"Authorization": shown}
        async with Stream(gateway, f"{session}/stream", mine), Stream(gateway, "/v1/ns/acme/agents?watch=true", mine) as watch:
            await watch.take(1)
            third = await gateway.call("GET", f"{session}/stream", **mine)
            assert (third.status, third.body["code"]) == (429, "too_many_streams")
            async with Stream(gateway, f"{session}/stream", {"Authorization": other}) as theirs:
                assert theirs.response is not None
                assert theirs.response.status == 200
        answers = [await gateway.call("GET", "/v1/auth/whoami", **mine) for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].body["code"] == "too_many_requests"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 4
        assert (await gateway.call("GET", "/v1/auth/whoami", Authorization=other)).status == 200


async def test_pages_heads_and_connections_are_bounded(tmp_path: Path) -> None:
    async with booted(tmp_path, page_max=60, headers_max=8192, connections_max=3) as gateway:
        assert (await gateway.call("GET", "/v1/namespaces?limit=60")).status == 200
        refused = await gateway.call("GET", "/v1/namespaces?limit=61")
        assert (refused.status, refused.body["code"]) == (422, "invalid")
        assert "gateway.page_max" in refused.body["detail"]
        refused = await gateway.call("GET", "/v1/namespaces", X_Long="x" * 8192)
        assert (refused.status, refused.body["code"]) == (413, "too_large")
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert b" 431 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        held = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        beginnings = [asyncio.create_task(one.readline()) for one, _ in held]
        done, waiting = await asyncio.wait(beginnings, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert any(b" 503 " in task.result() for task in done)
        for task in waiting:
            task.cancel()
        for _, one in held:
            one.close()
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()


# --- who did what -----------------------------------------------------------------------------------------------------------------


async def test_the_log_has_who_did_what_to_what_how_it_went_and_from_where(guarded: Booted) -> None:
    shown, credential = await key(guarded, "viewer")
    await guarded.session("s1")
    await guarded.call("GET", f"{SESSIONS}/s1", Authorization=shown, X_Request_Id="r-1")
    await guarded.call("POST", SESSIONS, {"id": "s2"}, Authorization=shown, X_Request_Id="r-2")
    await guarded.call("GET", "/v1/ns/beta/agents", Authorization=shown, X_Request_Id="r-3")
    await guarded.call("GET", "/v1/ns/acme/agents", Authorization="Bearer nobody", X_Request_Id="r-4")
    who = f"key:{credential['id']}"

    async def rows(query: str) -> list[dict[str, Any]]:
        return (await guarded.call("GET", f"/v1/auth/log?{query}")).body["items"]

    async def written() -> bool:
        return bool(await rows("outcome=unauthenticated"))

    await until(written, 5)
    mine = {row["request_id"]: row for row in await rows(f"who={who}")}
    assert set(mine) == {"r-1", "r-2", "r-3"}
    told = mine["r-1"]
    assert (told["verb"], told["operation"], told["namespace"]) == ("sessions.read", "getSession", "acme")
    assert (told["object"], told["outcome"], told["address"], told["via"]) == (f"{SESSIONS}/s1", "ok", "127.0.0.1", "http")
    assert (mine["r-2"]["outcome"], mine["r-3"]["outcome"]) == ("forbidden", "namespace_not_found")
    (nobody,) = await rows("outcome=unauthenticated")
    assert (nobody["who"], nobody["request_id"], nobody["operation"]) == ("", "r-4", "listAgents")
    assert {row["request_id"] for row in await rows("outcome=!ok&namespace=acme")} == {"r-2", "r-4"}
    admin, _ = await key(guarded, "admin", "acme")
    assert (await guarded.call("GET", "/v1/auth/log", Authorization=admin)).status == 422
    assert (await guarded.call("GET", "/v1/auth/log?namespace=beta", Authorization=admin)).status == 404
    assert (await guarded.call("GET", "/v1/auth/log?namespace=acme", Authorization=admin)).status == 200
    assert (await guarded.call("GET", "/v1/auth/log?namespace=acme", Authorization=shown)).status == 403


async def test_the_journal_says_who_cancelled_a_turn(guarded: Booted) -> None:
    shown, credential = await key(guarded)
    session = await guarded.session()
    for ending, how in (("running", "turn.cancel_requested"), ("queued", "turn.cancelled")):
        sent = await guarded.message(session)
        if ending == "running":
            await guarded.hand.start(await guarded.hand.claim())
        turn = f"{session}/turns/{sent['turn_id']}"
        assert (await guarded.call("POST", f"{turn}/cancel", Authorization=shown)).status == 202
        entries = (await guarded.call("GET", f"{session}/journal")).body["items"]
        assert [one["payload"]["by"] for one in entries if one["type"] == how] == [f"key:{credential['id']}"]


async def test_nobody_fills_the_log_by_being_refused(guarded: Booted) -> None:
    for _ in range(NOBODY_BURST + 50):
        await guarded.call("GET", "/v1/auth/whoami", Authorization="Bearer nobody")

    async def count() -> int:
        total, cursor = 0, ""
        while True:
            page = (await guarded.call("GET", f"/v1/auth/log?outcome=unauthenticated&limit=500&cursor={cursor}")).body
            total, cursor = total + len(page["items"]), page["next_cursor"] or ""
            if not cursor:
                return total

    async def enough() -> bool:
        return await count() >= NOBODY_BURST

    await until(enough, 10)
    assert await count() < NOBODY_BURST + 50


def test_lines_are_written_in_order_and_follow_a_file_that_was_moved_away(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    lines = Lines(lambda: file.open("ab"))
    for number in range(1000):
        lines.write(b'{"number": %d}' % number)
    lines.close()
    assert file.read_bytes() == b"".join(b'{"number": %d}\n' % number for number in range(1000))
    file.rename(tmp_path / "old")
    again = Lines(lambda: file.open("ab"))
    again.write(b"{}")
    again.close()
    assert file.read_bytes() == b"{}\n"
