"""Browsers log in with an identity provider: OpenID Connect Core 1.0, the code flow with PKCE (RFC 7636), state and nonce.

What is under way is in a cookie of the browser that began it, so that any gateway may finish it; what comes of it is a stored
browser session, whose cookie holds a secret like a key's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from talon.access import cookies, secret
from talon.access.fetch import Fetch, fetch, unavailable
from talon.access.grants import claimed, encode
from talon.access.protocol import CALLBACK, GRANTS_MAX, HEADER_MAX, Redirect
from talon.access.signers import Algorithm, PublishedKeys
from talon.access.tokens import Rules, Verifier, user
from talon.domain.errors import Unauthenticated
from talon.domain.ids import Clock
from talon.store.access import AccessRows, NewCredential

#: Somebody who logs in has this long.
LOGIN_S = 600
DISCOVERY_S = 3600.0
BACK_MAX = 2000
SKEW_S = 30.0
_LOGIN_COOKIES = tuple(f"{name}-login" for name in cookies.SESSION)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """This server as the identity provider knows it."""

    issuer: str
    client_id: str
    client_secret: str
    algorithm: Algorithm
    scopes: tuple[str, ...]
    grants_claim: str
    session_max_s: int


class _Provider(msgspec.Struct, frozen=True):
    """What is needed of its discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Begun(msgspec.Struct, frozen=True):
    """A login under way."""

    state: str
    nonce: str
    verifier: str
    back: str


class OidcLogin:
    """A `talon.access.protocol.Login`."""

    def __init__(self, client: Client, store: AccessRows, clock: Clock, ask: Fetch | None = None) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._fetch = ask or fetch
        self._known: tuple[_Provider, Verifier] | None = None
        self._read_s = 0.0

    async def begin(self, origin: str, back: str) -> Redirect:
        """See `Login.begin`."""
        provider, _ = await self._provider()
        begun = _Begun(*(secrets.token_urlsafe(32) for _ in range(3)), back=_path(back))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": origin + CALLBACK,
            "scope": " ".join(dict.fromkeys(("openid", *self._client.scopes))),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        sign = "&" if urlsplit(provider.authorization_endpoint).query else "?"
        kept = base64.urlsafe_b64encode(msgspec.json.encode(begun)).rstrip(b"=").decode()
        return Redirect(
            f"{provider.authorization_endpoint}{sign}{urlencode(asked)}", (cookies.made(origin, kept, LOGIN_S, _LOGIN_COOKIES),)
        )

    async def finish(self, origin: str, query: str, cookie: str) -> Redirect:
        """See `Login.finish`."""
        begun = _begun(cookie)
        answer = _answer(query)
        if begun is None or not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            _refuse("this login was not begun in this browser, or too long ago")
        provider, verifier = await self._provider()
        if answer.get("iss", provider.issuer) != provider.issuer:  # RFC 9207: another provider's answer
            _refuse("the answer is of another identity provider")
        if "error" in answer or "code" not in answer:
            _refuse(f"the identity provider said {answer.get('error', 'nothing')[:80]!r}")
        claims = await verifier.verify(await self._redeem(provider, answer["code"], begun.verifier, origin))
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), begun.nonce.encode()):
            _refuse("the token is of another login")
        if isinstance(claims["aud"], list) and claims.get("azp", self._client.client_id) != self._client.client_id:
            _refuse("the token was made for another client")
        return Redirect(
            begun.back,
            (
                cookies.made(origin, await self._session(claims), self._client.session_max_s),
                cookies.made(origin, "", 0, _LOGIN_COOKIES),
            ),
        )

    async def _session(self, claims: Mapping[str, Any]) -> str:
        """A new browser session; -> its cookie's value."""
        made = secret.generate()
        row = await self._store.add_credential(
            NewCredential(
                id=made.id,
                kind="browser",
                digest=made.digest,
                grants=encode(claimed(claims.get(self._client.grants_claim), GRANTS_MAX)),
                created_by=user(self._client.issuer, claims["sub"]),
                ttl_ms=self._client.session_max_s * 1000,
            )
        )
        if row is None:
            raise AssertionError("80 random bits came twice")
        return made.text

    async def _redeem(self, provider: _Provider, code: str, verifier: str, origin: str) -> str:
        """The ID token for a code."""
        client = self._client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": origin + CALLBACK,
            "client_id": client.client_id,
            "code_verifier": verifier,
        }
        authorization = ""
        if client.client_secret and "client_secret_basic" in provider.token_endpoint_auth_methods_supported:
            pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"  # RFC 6749 §2.3.1
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif client.client_secret:
            form["client_secret"] = client.client_secret
        status, body = await self._fetch("POST", provider.token_endpoint, form, authorization)
        token: object = body.get("id_token")
        if status >= 500:
            raise unavailable(provider.token_endpoint, f"it answered {status}")
        if status != 200 or not isinstance(token, str):
            log.warning("identity provider: a code was not redeemed: %s %.80r", status, body.get("error"))
            _refuse("the identity provider did not redeem the code")
        return token

    async def _provider(self) -> tuple[_Provider, Verifier]:
        """What the provider says of itself, read anew now and then; what was read last while it cannot be had."""
        now_s = self._clock.monotonic_s()
        if self._known is not None and now_s - self._read_s < DISCOVERY_S:
            return self._known
        url = f"{self._client.issuer}/.well-known/openid-configuration"
        status, body = await self._fetch("GET", url, None, "")
        try:
            found = msgspec.convert(body, _Provider)
        except msgspec.ValidationError:
            raise unavailable(url, f"it answered {status} and no OpenID configuration") from None
        if found.issuer.rstrip("/") != self._client.issuer:
            raise unavailable(url, "it says that it is another issuer than gateway.auth.oidc.issuer")
        for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if urlsplit(endpoint).scheme != "https" and urlsplit(self._client.issuer).scheme == "https":
                raise unavailable(url, "an endpoint is not encrypted")
        rules = Rules(self._client.algorithm, found.issuer, self._client.client_id, SKEW_S, self._client.grants_claim)
        keys = PublishedKeys(found.jwks_uri, self._client.algorithm, self._clock, lambda: None, self._fetch)
        if self._known is None or self._known[0] != found:
            self._known = (found, Verifier(rules, keys, self._clock))
        self._read_s = now_s
        return self._known


def _answer(query: str) -> dict[str, str]:
    """The callback's parameters. One that is given twice is an attack, or a mistake: nothing is taken."""
    pairs = parse_qsl(query, keep_blank_values=True) if len(query) <= HEADER_MAX else []
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _begun(header: str) -> _Begun | None:
    value = cookies.read(header, _LOGIN_COOKIES) if len(header) <= HEADER_MAX else ""
    try:
        raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        begun = msgspec.json.decode(raw, type=_Begun)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return msgspec.structs.replace(begun, back=_path(begun.back)) if begun.state and begun.nonce else None


def _path(back: str) -> str:
    """`back` if it is a path of this server, else `/`: a login must not end elsewhere."""
    plain = len(back) <= BACK_MAX and back.isascii() and back.isprintable() and not any(c in back for c in '\\" <>')
    return back if plain and back.startswith("/") and not back.startswith("//") else "/"


def _refuse(reason: str) -> NoReturn:
    raise Unauthenticated("unauthenticated", f"the login failed: {reason}; begin again")
