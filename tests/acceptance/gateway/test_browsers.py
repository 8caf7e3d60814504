"""Browsers: cookies that no script reads, changes that no other site makes, and answers that no other site sees."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from support.asgi import Reply, request
from support.bootedgateway import SESSIONS, Booted, booted
from support.idp import provider
from support.waiting import until
from talon.access.oidc import Client
from talon.access.secret import generate

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS, FRIEND = "http://127.0.0.1", "https://ui.acme.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Booted]:
    async with booted(tmp_path_factory.mktemp("browsers"), keys=True, allowed_origins=(FRIEND,)) as running:
        yield running


def admin(gateway: Booted) -> str:
    return gateway.http.headers["Authorization"]


async def ask(gateway: Booted, method: str, path: str, body: Any = None, scheme: str = "http", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = b"" if body is None else json.dumps(body).encode()
    return await request(gateway.app, method, path, {"content-type": "application/json", **named}, data, scheme=scheme)


def cookie(reply: Reply) -> Any:
    return next(iter(SimpleCookie(reply.header("set-cookie")).values()))


async def login(gateway: Booted, scheme: str = "http") -> str:
    """-> the Cookie header of a browser that is in."""
    opened = await ask(gateway, "POST", "/v1/auth/session", scheme=scheme, authorization=admin(gateway))
    assert opened.status == 201, opened
    morsel = cookie(opened)
    return f"{morsel.key}={morsel.value}"


@pytest.mark.parametrize(("scheme", "name", "secure"), [("http", "talon", ""), ("https", "__Host-talon", True)])
async def test_the_cookie_of_a_session_is_for_this_host_alone_and_for_no_script(
    gateway: Booted, scheme: str, name: str, secure: Any
) -> None:
    opened = await ask(gateway, "POST", "/v1/auth/session", scheme=scheme, authorization=admin(gateway))
    morsel = cookie(opened)
    assert (morsel.key, morsel["secure"], morsel["httponly"], morsel["path"]) == (name, secure, True, "/")
    assert (morsel["samesite"], morsel["domain"], morsel["max-age"]) == ("Lax", "", "28800")
    assert morsel.value not in opened.raw.decode()
    ways = await ask(gateway, "GET", "/v1/auth", scheme=scheme, cookie=f"{name}={morsel.value}")
    assert ways.body["me"]["browser"] is True
    assert opened.header("strict-transport-security") == ("max-age=31536000" if secure else "")


async def test_a_session_ends_by_logging_out_and_with_the_key_that_it_stands_on(gateway: Booted) -> None:
    shown = await login(gateway)
    out = await ask(gateway, "DELETE", "/v1/auth/session", cookie=shown, origin=OURS, talon_csrf="1")
    assert (out.status, cookie(out)["max-age"]) == (204, "0")
    assert (await ask(gateway, "GET", "/v1/auth/whoami", cookie=shown)).status == 401
    grants = [{"role": "viewer", "namespace": "acme"}]
    made = (await ask(gateway, "POST", "/v1/auth/keys", {"name": "k", "grants": grants}, authorization=admin(gateway))).body
    opened = await ask(gateway, "POST", "/v1/auth/session", authorization=f"Bearer {made['secret']}")
    shown = f"talon={cookie(opened).value}"
    me = (await ask(gateway, "GET", "/v1/auth/whoami", cookie=shown)).body
    assert (me["id"], me["grants"]) == (f"key:{made['credential']['id']}", ["viewer@acme"])
    await ask(gateway, "DELETE", f"/v1/auth/keys/{made['credential']['id']}", authorization=admin(gateway))

    async def ended() -> bool:
        return (await ask(gateway, "GET", "/v1/auth/whoami", cookie=shown)).status == 401

    await until(ended, 2)


async def test_with_a_cookie_nothing_is_changed_from_elsewhere(gateway: Booted) -> None:
    shown = await login(gateway)
    cases: list[tuple[dict[str, str], int]] = [
        ({"origin": OURS, "talon_csrf": "1"}, 201),
        ({"origin": FRIEND, "talon_csrf": "1"}, 201),
        ({"origin": OURS}, 403),  # what a form of ours could do, one of a page that is shown inside ours could too
        ({"talon_csrf": "1"}, 403),
        ({"origin": "https://evil.example", "talon_csrf": "1"}, 403),
        ({"origin": "null", "talon_csrf": "1"}, 403),
        ({}, 403),
    ]
    for number, (headers, status) in enumerate(cases):
        answer = await ask(gateway, "POST", SESSIONS, {"id": f"c{number}"}, cookie=shown, **headers)
        assert answer.status == status, headers
    for path, method in ((SESSIONS + "/c0/message", "POST"), (SESSIONS + "/c0", "DELETE"), ("/v1/auth/session", "DELETE")):
        assert (await ask(gateway, method, path, {"content": "x"}, cookie=shown)).body["code"] == "forbidden_origin"
    assert (await ask(gateway, "GET", SESSIONS + "/c0", cookie=shown)).status == 200
    assert (await ask(gateway, "POST", SESSIONS, {"id": "k"}, authorization=admin(gateway))).status == 201  # no browser


async def test_other_origins_get_exact_answers_and_only_the_allowed_ones(gateway: Booted) -> None:
    wants = {"access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    preflight = await ask(gateway, "OPTIONS", SESSIONS, origin=FRIEND, **wants)
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (204, FRIEND)
    assert preflight.header("access-control-allow-credentials") == "true"
    assert "authorization" in preflight.header("access-control-allow-headers")
    assert "origin" in preflight.header("vary")
    refused = await ask(gateway, "OPTIONS", SESSIONS, origin="https://ui.acme.example.evil", **wants)
    assert refused.status == 403
    for origin in ("https://evil.example", "null", "https://ui.acme.example:444", "http://ui.acme.example", "*"):
        answer = await ask(gateway, "GET", "/v1/namespaces", authorization=admin(gateway), origin=origin)
        assert answer.header("access-control-allow-origin") == "", origin
    answer = await ask(gateway, "GET", "/v1/namespaces", authorization=admin(gateway), origin=FRIEND)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, FRIEND)
    unknown = await ask(gateway, "GET", "/v1/namespaces", origin=FRIEND)
    assert (unknown.status, unknown.header("access-control-allow-origin")) == (401, FRIEND)


async def test_a_key_in_a_url_is_refused_and_repeated_nowhere(gateway: Booted) -> None:
    key = generate().text
    for path in (
        "/v1/namespaces?access_token=abc",
        "/v1/namespaces?TOKEN=abc",
        f"/v1/namespaces?cursor={key}",
        f"/v1/ns/{key}/agents",
        f"{SESSIONS}/s1/stream?api_key={key}",
    ):
        answer = await ask(gateway, "GET", path, authorization=admin(gateway))
        assert (answer.status, answer.body["code"]) == (400, "malformed"), path
        assert key not in answer.raw.decode()
        assert "Authorization: Bearer" in answer.body["detail"]


async def test_every_answer_says_how_browsers_are_to_treat_it(gateway: Booted) -> None:
    for path, status in (("/", 200), ("/v1/namespaces", 401), ("/healthz", 200), ("/nowhere", 404), ("/openapi.json", 200)):
        answer = await ask(gateway, "GET", path)
        assert answer.status == status
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        assert answer.header("x-frame-options") == "DENY"
        policy = answer.header("content-security-policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.header("strict-transport-security") == ""
        for name, _ in answer.headers:
            assert [one for one, _ in answer.headers].count(name) == 1, name


async def test_where_there_is_no_identity_provider_nobody_is_sent_to_one(gateway: Booted) -> None:
    ways = await ask(gateway, "GET", "/v1/auth")
    assert ways.body == {"asked": True, "login": False, "me": None}
    for path in ("/v1/auth/login", "/v1/auth/callback?code=1&state=2"):
        answer = await ask(gateway, "GET", path)
        assert (answer.status, answer.body["code"]) == (404, "route_not_found")


async def test_a_browser_goes_to_the_identity_provider_and_comes_back_in(tmp_path: Path) -> None:
    async with provider(claims={"talon_grants": ["operator@acme"]}) as idp:
        client = Client(idp.url, "talon", "", "RS256", ("openid",), "talon_grants", 600)
        async with booted(tmp_path, keys=True, oidc=client) as gateway, aiohttp.ClientSession() as http:
            assert (await ask(gateway, "GET", "/v1/auth")).body == {"asked": True, "login": True, "me": None}
            away = await ask(gateway, "GET", "/v1/auth/login?back=/%23/acme")
            begun = cookie(away)
            assert (away.status, begun["httponly"], begun["samesite"]) == (302, True, "Lax")
            async with http.get(away.header("location"), allow_redirects=False) as agreed:
                back = agreed.headers["location"].removeprefix(OURS) + "&session_state=theirs"
            stolen = await ask(gateway, "GET", back)
            assert (stolen.status, stolen.body["code"]) == (401, "unauthenticated")  # in a browser that did not begin it
            home = await ask(gateway, "GET", back, cookie=f"{begun.key}={begun.value}")
            assert (home.status, home.header("location")) == (302, "/#/acme")
            shown = f"talon={cookie(home).value}"
            me = (await ask(gateway, "GET", "/v1/auth", cookie=shown)).body["me"]
            assert (me["id"], me["grants"]) == (f"user:{idp.url}#ann", ["operator@acme"])
            made = await ask(gateway, "POST", SESSIONS, {"id": "s1"}, cookie=shown, origin=OURS, talon_csrf="1")
            assert made.status == 201
            assert (await ask(gateway, "GET", "/v1/ns/beta/agents", cookie=shown)).status == 404
            idp.down = True
            assert (await ask(gateway, "GET", "/v1/auth/whoami", cookie=shown)).status == 200
