"""Browsers log in: the whole flow against a provider that checks, and every answer that was not asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from support.idp import Idp, Signer, provider
from support.stores import in_file
from talon.access.oidc import Client
from talon.access.protocol import Redirect
from talon.access.recognised import Recognised
from talon.access.roles import Grant, Principal
from talon.access.room import Room, asking_room
from talon.cli.system import SystemClock
from talon.domain.errors import Unauthenticated, Unavailable
from talon.store.sqlite import SqliteStore

ORIGIN = "https://talon.example"
CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with in_file(SqliteStore, tmp_path) as opened:
        yield opened


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with provider(claims={"talon_grants": ["operator@acme"]}) as made:
        yield made


async def room_of(store: SqliteStore, idp: Idp, **more: Any) -> Room:
    fields: dict[str, Any] = {
        "issuer": idp.url,
        "client_id": idp.client_id,
        "client_secret": idp.client_secret,
        "algorithm": "RS256",
        "scopes": ("profile",),
        "grants_claim": "talon_grants",
        "session_max_s": 3600,
    }
    room = asking_room(store, CLOCK, Recognised(CLOCK), keys=False, oidc=Client(**(fields | more)))
    await room.upkeep.turn()
    return room


def kept(redirect: Redirect) -> str:
    """The Cookie header of a browser that took these."""
    return "; ".join(cookie.partition(";")[0] for cookie in redirect.cookies)


async def back_from(redirect: Redirect) -> str:
    """Go to the provider; -> the query of the callback that it sends the browser to."""
    async with aiohttp.ClientSession() as http, http.get(redirect.location, allow_redirects=False) as answer:
        assert answer.status == 302, await answer.text()
        where = answer.headers["Location"]
    assert where.startswith(f"{ORIGIN}/v1/auth/callback?")
    return urlsplit(where).query


async def logged_in(room: Room, back: str = "/") -> tuple[Redirect, Principal]:
    assert room.access.login is not None
    begun = await room.access.login.begin(ORIGIN, back)
    done = await room.access.login.finish(ORIGIN, await back_from(begun), kept(begun))
    return done, await room.access.authenticator.principal("", kept(done))


@pytest.mark.parametrize("secret", ["", "p:w/ %"])
@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"]])
async def test_a_browser_logs_in_and_its_session_ends(store: SqliteStore, idp: Idp, secret: str, methods: list[str]) -> None:
    idp.client_secret = "" if not secret else "p%3Aw%2F%20%25" if methods == ["client_secret_basic"] else secret
    idp.discovery = {"token_endpoint_auth_methods_supported": methods}
    room = await room_of(store, idp, client_secret=secret)
    done, who = await logged_in(room, "/sessions?x=1")
    assert done.location == "/sessions?x=1"
    assert (who.id, who.grants, who.browser) == (f"user:{idp.url}#ann", (Grant("operator", "acme"),), True)
    session, ended = done.cookies
    assert session.startswith("__Host-talon=talon_")
    assert ended.startswith("__Host-talon-login=;")
    for cookie in done.cookies:
        assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(cookie.split("; "))
    await room.access.keys.revoke(who, who.via)
    with pytest.raises(Unauthenticated):
        await room.access.authenticator.principal("", kept(done))


async def test_what_goes_to_the_provider_is_a_challenge_and_never_the_verifier(store: SqliteStore, idp: Idp) -> None:
    room = await room_of(store, idp)
    assert room.access.login is not None
    begun = [await room.access.login.begin(ORIGIN, "/") for _ in range(2)]
    asked = [parse_qs(urlsplit(one.location).query) for one in begun]
    assert asked[0]["scope"] == ["openid profile"]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
    assert "code_verifier" not in asked[0]
    assert idp.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil", "", "/a\nb", "x", "/" + "a" * 2000, "/é"])
async def test_a_login_ends_on_a_path_of_ours(store: SqliteStore, idp: Idp, back: str) -> None:
    done, _ = await logged_in(await room_of(store, idp), back)
    assert done.location == "/"


async def test_an_answer_that_this_browser_did_not_ask_for_is_refused(store: SqliteStore, idp: Idp) -> None:
    login = (await room_of(store, idp)).access.login
    assert login is not None
    mine, other = await login.begin(ORIGIN, "/"), await login.begin(ORIGIN, "/")
    query = await back_from(mine)
    code = parse_qs(query)["code"][0]
    state = parse_qs(query)["state"][0]
    wrong = [
        (query, ""),
        (query, kept(other)),
        (query, "__Host-talon-login=%%%"),
        (query, "__Host-talon-login=" + "A" * 20_000),
        (query.replace(state, "x"), kept(mine)),
        (f"code={code}", kept(mine)),
        (f"code={code}&state={state}&state={state}", kept(mine)),
        (f"error=access_denied&state={state}", kept(mine)),
        (f"state={state}", kept(mine)),
        (f"code={code}&state={state}&iss=https://evil.example", kept(mine)),
        (f"code=guessed&state={state}", kept(mine)),
        (query + "&" + "x" * 20_000, kept(mine)),
    ]
    for answer, cookie in wrong:
        with pytest.raises(Unauthenticated):
            await login.finish(ORIGIN, answer, cookie)
    await login.finish(ORIGIN, query, kept(mine))
    with pytest.raises(Unauthenticated):  # a code counts once
        await login.finish(ORIGIN, query, kept(mine))


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"sub": ""},
        {"aud": ["talon", "other"], "azp": "other"},
    ],
)
async def test_an_id_token_of_another_login_client_or_time_makes_no_session(
    store: SqliteStore, idp: Idp, claims: dict[str, Any]
) -> None:
    real = idp.token
    idp.token = lambda **more: real(**(more | claims))  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await logged_in(await room_of(store, idp))
    assert await store.list_credentials("browser", "", 10) == ([], "")


async def test_an_id_token_of_another_signer_makes_no_session(store: SqliteStore, idp: Idp) -> None:
    idp.published = [idp.signer.jwk()]
    idp.signer = Signer("RS256", "k1")
    with pytest.raises(Unauthenticated):
        await logged_in(await room_of(store, idp))


@pytest.mark.parametrize(
    "discovery", [{"issuer": "https://evil.example"}, {"token_endpoint": 7}, {"jwks_uri": None}, {"authorization_endpoint": []}]
)
async def test_a_provider_that_is_another_or_none_is_unavailable(store: SqliteStore, idp: Idp, discovery: dict[str, Any]) -> None:
    idp.discovery = discovery
    room = await room_of(store, idp)
    assert room.access.login is not None
    with pytest.raises(Unavailable) as raised:
        await room.access.login.begin(ORIGIN, "/")
    assert raised.value.code == "identity_unavailable"


async def test_a_provider_that_is_away_ends_no_session(store: SqliteStore, idp: Idp) -> None:
    room = await room_of(store, idp)
    done, who = await logged_in(room)
    idp.down = True
    assert room.access.login is not None
    begun = await room.access.login.begin(ORIGIN, "/")
    assert begun.location.startswith(idp.url)
    assert await room.access.authenticator.principal("", kept(done)) == who
