"""The door: who may come in, what is bounded, and that every error is a problem and no request ends in a 500."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

from support import asgi
from support.bootedgateway import SESSIONS, Booted, booted
from support.waiting import until
from talon.domain.errors import CODES, Unavailable


async def test_only_names_of_this_machine_are_answered_unless_more_are_allowed(gateway: Booted, tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost:19789", "[::1]:80", "LOCALHOST", "app.localhost", "127.9.9.9:1"):
        assert (await gateway.call("GET", "/healthz", Host=host)).status == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "", "*"):
        answer = await gateway.call("GET", "/healthz", Host=host)
        assert (answer.status, answer.body["code"]) == (403, "forbidden_host"), host
    (tmp_path / "b").mkdir()
    async with booted(tmp_path / "b", allowed_hosts=("talon.acme.example",)) as open_one:
        assert (await open_one.call("GET", "/healthz", Host="Talon.acme.example:443")).status == 200
        assert (await open_one.call("GET", "/healthz", Host="acme.example")).status == 403


async def test_pages_of_other_sites_change_nothing(gateway: Booted, tmp_path: Path) -> None:
    own = gateway.url
    for origin, status in (
        (own, 201),
        (own.replace("http:", "https:"), 201),
        ("https://evil.example", 403),
        ("null", 403),
        (own + "1", 403),
        ("http://127.0.0.1", 403),
    ):
        answer = await gateway.call("POST", SESSIONS, {}, Origin=origin)
        assert answer.status == status, origin
        assert "access-control-allow-origin" not in answer.headers
    (tmp_path / "b").mkdir()
    async with booted(tmp_path / "b", allowed_origins=("https://ui.acme.example",)) as open_one:
        assert (await open_one.call("POST", SESSIONS, {}, Origin="https://ui.acme.example")).status == 201
        assert (await open_one.call("POST", SESSIONS, {}, Origin="http://ui.acme.example")).status == 403


async def test_bodies_are_bounded_while_they_are_read(tmp_path: Path) -> None:
    async with booted(tmp_path, body_max=10_000) as gateway:
        path = await gateway.session() + "/message"

        async def chunks() -> Any:
            for _ in range(100):
                yield b"x" * 1000

        for target in (path, SESSIONS, "/v1/apply"):
            for data in (b"x" * 20_000, chunks()):
                answer = await gateway.call("POST", target, data=data, Content_Type="application/json")
                assert (answer.status, answer.body["code"]) == (413, "too_large"), target


async def test_who_leaves_in_the_middle_of_a_body_is_no_mistake_of_ours(gateway: Booted, caplog: Any) -> None:
    for path in ("/v1/apply", "/v1/ns/acme/schedules", "/v1/ns/acme/agents/helper/sessions/s1/message"):
        reply = await asgi.request(gateway.app, "POST", path, {"content-type": "application/json"}, b'{"kind": ', leaves=True)
        assert (reply.status, reply.body["code"]) == (400, "malformed"), (path, reply.body)
    assert not caplog.records


async def test_request_ids_are_taken_over_if_sane_and_always_echoed(gateway: Booted) -> None:
    taken = await gateway.call("GET", "/v1/nothing", X_Request_Id="abc-1.2:3_4")
    assert (taken.headers["x-request-id"], taken.body["request_id"]) == ("abc-1.2:3_4", "abc-1.2:3_4")
    for odd in ("a b", "x" * 129, "<script>"):
        made = (await gateway.call("GET", "/healthz", X_Request_Id=odd)).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f-]{36}", made)


async def test_unknown_routes_methods_and_types_are_problems(gateway: Booted) -> None:
    for method, path, status, code in (
        ("GET", "/v1/nothing", 404, "route_not_found"),
        ("GET", "/v1/ns/acme/agents/helper/sessions/", 404, "route_not_found"),
        ("GET", "/v1/ns/acme/agents/helper/sessions/s1/message", 405, "method_not_allowed"),
        ("POST", "/v1/ns/acme/agents/helper/sessions/s1/stream", 405, "method_not_allowed"),
        ("PUT", SESSIONS, 405, "method_not_allowed"),
        ("PUT", SESSIONS + "/s1", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ):
        answer = await gateway.call(method, path)
        assert (answer.status, answer.body["code"]) == (status, code), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.body["type"].endswith(code)
        assert answer.body["title"] == CODES[code]
    assert (await gateway.call("PUT", SESSIONS + "/s1")).headers["allow"] == "DELETE, GET, PATCH"
    assert (await gateway.call("PUT", SESSIONS + "/s1/stream")).headers["allow"] == "GET"
    await gateway.session()
    for path in (SESSIONS, SESSIONS + "/s1/message"):
        for media in ("text/plain", "application/x-www-form-urlencoded", "application/yaml", "nonsense"):
            answer = await gateway.call("POST", path, data=b'{"content":"a"}', Content_Type=media)
            assert (answer.status, answer.body["code"]) == (415, "unsupported_media_type"), (path, media)
    assert (await gateway.call("GET", SESSIONS + "?page=2")).body["errors"] == [
        {"field": "page", "message": "unknown query parameter"}
    ]


async def test_a_head_is_answered_like_a_get_without_its_body_and_ends_a_stream_at_once(gateway: Booted) -> None:
    session = await gateway.session()
    for path, status in (("/", 200), ("/healthz", 200), (session, 200), ("/v1/nothing", 404)):
        whole = await gateway.call("GET", path)
        head = await gateway.call("HEAD", path)
        assert (head.status, head.headers.get("content-length")) == (status, whole.headers.get("content-length")), path
        assert head.raw == b"", path
    for stream in (session + "/stream", "/v1/ns/acme/agents?watch=true"):
        begun = await gateway.call("HEAD", stream)
        assert (begun.status, begun.headers["content-type"]) == (200, "text/event-stream"), stream
    await until(lambda: (gateway.hub.count, gateway.hub.watches) == (0, 0), 20)


async def test_the_alias_of_namespaces_reaches_every_sub_resource(gateway: Booted) -> None:
    session = await gateway.session()
    alias = session.replace("/v1/ns/", "/v1/namespaces/")
    assert (await gateway.call("GET", alias)).body == (await gateway.call("GET", session)).body
    assert (await gateway.call("POST", alias + "/message", {"content": "a"})).status == 202
    async with gateway.stream(alias, "?after=0") as live:
        assert (await live.take(1))[0].type == "message.received"
    assert (await gateway.call("GET", "/v1/namespaces/acme/approvals")).body == {"items": [], "next_cursor": None}
    assert (await gateway.call("GET", "/v1/namespaces")).status == 200
    assert (await gateway.call("GET", "/v1/namespaces/acme")).status == 200


async def test_readiness_names_what_is_missing(gateway: Booted) -> None:
    assert (await gateway.call("GET", "/readyz")).body["status"] == "ready"

    async def gone() -> None:
        raise Unavailable("database_unavailable", "the disk is away")

    gateway.store.ping = gone
    answer = await gateway.call("GET", "/readyz")
    assert (answer.status, answer.body["reasons"]) == (503, [{"code": "database_unavailable", "detail": "the disk is away"}])
    await gateway.writer.close()
    reasons = (await gateway.call("GET", "/readyz")).body["reasons"]
    assert [one["code"] for one in reasons] == ["writer_dead", "database_unavailable"]
    assert (await gateway.call("GET", "/healthz")).status == 200


async def test_a_mistake_of_ours_is_told_without_its_traceback(gateway: Booted, caplog: Any) -> None:
    session = await gateway.session()

    async def broken(where: Any) -> Any:
        raise RuntimeError("secret inner words")

    gateway.store.get_session = broken
    for path in (session, session + "/stream"):
        answer = await gateway.call("GET", path)
        assert (answer.status, answer.body["code"]) == (500, "internal"), path
        assert b"secret" not in answer.raw
        assert answer.body["request_id"] in caplog.text
        assert "secret inner words" in caplog.text
        caplog.clear()


async def test_requests_under_way_are_finished_when_the_server_stops(gateway: Booted) -> None:
    session = await gateway.session()
    entered, proceed = asyncio.Event(), asyncio.Event()
    original = gateway.store.get_session

    async def slow(where: Any) -> Any:
        entered.set()
        await proceed.wait()
        return await original(where)

    gateway.store.get_session = slow
    asked = asyncio.create_task(gateway.call("GET", session))
    await asyncio.wait_for(entered.wait(), 5)
    gateway.stop.set()
    proceed.set()
    assert (await asyncio.wait_for(asked, 5)).status == 200
    await asyncio.wait_for(gateway.serving, 5)
    with socket.socket() as probe:
        host, port = gateway.url.removeprefix("http://").split(":")
        assert probe.connect_ex((host, int(port))) != 0


async def test_the_page_has_no_inline_code_and_forbids_it(gateway: Booted) -> None:
    page = await gateway.call("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    text = page.raw.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|style=", text)
    for name, media in (("/page.js", "text/javascript"), ("/page.css", "text/css"), ("/favicon.svg", "image/svg+xml")):
        assert name in text
        answer = await gateway.call("GET", name)
        assert answer.headers["content-type"].startswith(media)
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", answer.raw)


BAD_NAMES = ("UPPER", "a" * 64, "%00", "..%2f..", "a%20b", "%F0%9F%99%82", "%ff", "'", "-")
BAD_BODIES: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[]",
    b"{",
    b'"\xff"',
    b'{"a": 1}',
    b'{"id": 5, "content": [], "outcome": {}, "metadata": 7}',
    b'{"id": "\\u0000", "content": "\\ud800", "outcome": "\\u0000", "features": {"\\u0000": 1}}',
    b"[" * 50_000,
    b'{"metadata":' + b'{"a":' * 50_000,
    b"9" * 5_000,
    b"\xef\xbb\xbf{}",
)


async def test_no_route_answers_bad_input_with_a_500(gateway: Booted) -> None:
    document = (await gateway.call("GET", "/openapi.json")).body
    await gateway.session()
    good = {"ns": "acme", "agent": "helper", "session_id": "s1", "name": "helper", "revision": "1"}
    tried = 0

    async def ask(method: str, path: str, **more: Any) -> None:
        nonlocal tried
        tried += 1
        if "/stream" in path:
            more["Last_Event_ID"] = "bad"  # what is right would never end
        answer = await gateway.call(method, path, **more)
        assert answer.status < 500, (method, path, more, answer.raw)
        described = document["paths"][template][method.lower()]["responses"]
        # A name may have ended the path, or made it another one.
        lost = answer.status in (404, 405) and answer.body["code"] in ("route_not_found", "method_not_allowed")
        assert lost or str(answer.status) in described, (method, path, answer.status, answer.raw[:300])
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/problem+json", (method, path)
            assert answer.body["code"] in CODES, answer.body
            assert answer.body["status"] == answer.status
            assert answer.body["request_id"] == answer.headers["x-request-id"]

    for template, operations in document["paths"].items():
        places = re.findall(r"{(\w+)}", template)
        right = re.sub(r"{(\w+)}", lambda place: good.get(place[1], "x"), template)
        for method in (name.upper() for name in operations):
            if method == "DELETE":
                continue  # what is deleted here is missing below; bad names are tried all the same
            if method != "GET":
                for body in BAD_BODIES:
                    for media in ("application/json", "application/yaml", "text/plain"):
                        await ask(method, right, data=body or b" ", Content_Type=media)
            for query in (
                "?limit=x",
                "?limit=99999999999999999999",
                "?cursor=%00",
                "?cursor=" + "A" * 3000,
                "?zzz=1",
                "?state=%ff",
                "?&&=&",
            ):
                await ask(method, right + query)
        for place in places:
            for name in BAD_NAMES:
                path = re.sub(r"{(\w+)}", lambda one: name if one[1] == place else good.get(one[1], "x"), template)  # noqa: B023
                for method in operations:
                    await ask(method.upper(), path)
    assert tried > 1000


async def test_the_document_describes_every_answer(gateway: Booted) -> None:
    document = (await gateway.call("GET", "/openapi.json")).body
    operations = {
        f"{method} {path}": operation for path, methods in document["paths"].items() for method, operation in methods.items()
    }
    ids = [one["operationId"] for one in operations.values()]
    assert len(ids) == len(set(ids))
    for name in (f"post {SESSIONS}/{{session_id}}/message", f"get {SESSIONS}/{{session_id}}/stream"):
        assert name.replace("acme", "{ns}").replace("helper", "{agent}") in operations
    schemas = document["components"]["schemas"]
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            assert status.isdigit(), name
            if int(status) >= 400 and "readyz" not in name:
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
            for link in answer.get("links", {}).values():
                assert link["operationId"] in ids, (name, link)
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', (await gateway.call("GET", "/openapi.json")).raw.decode()))
    assert referred <= set(schemas)
    assert "HTTPValidationError" not in schemas
