"""An identity provider of our own, on a real port: discovery, authorization, token endpoint, JWKS.

What a real one checks it checks: the redirect, the client's secret, PKCE, and that a code is used once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAKE = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@dataclass
class Signer:
    """A private key with its id."""

    algorithm: str
    kid: str
    key: Any = None

    def __post_init__(self) -> None:
        self.key = self.key or MAKE[self.algorithm]()

    @property
    def pem(self) -> bytes:
        """The public key."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key as it is published."""
        made: Any = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.key.public_key(), as_dict=True)
        return {**made, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}

    def sign(self, claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
        """A token."""
        return jwt.encode(claims, self.key, self.algorithm, {"kid": self.kid, **(headers or {})})


@dataclass
class Idp:
    """The provider. A test says who logs in by `subject` and `claims`, and what goes wrong by the other fields."""

    url: str = ""
    client_id: str = "talon"
    client_secret: str = ""
    signer: Signer = field(default_factory=lambda: Signer("RS256", "k1"))
    subject: str = "ann"
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    discovery: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[str] = field(default_factory=list[str])
    down: bool = False
    published: list[dict[str, Any]] | None = None
    _codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[self._counted])
        app.router.add_get("/.well-known/openid-configuration", self._discover)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/jwks", self._jwks)
        return app

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.down:
            raise web.HTTPBadGateway
        return await handler(request)

    async def _discover(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "response_types_supported": ["code"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                **self.discovery,
            }
        )

    async def _authorize(self, request: web.Request) -> web.Response:
        """Somebody is logged in there and agrees."""
        query = dict(request.query)
        assert query["response_type"] == "code"
        assert query["client_id"] == self.client_id
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.url}
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        asked = self._codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        right = asked is not None and asked["redirect_uri"] == form["redirect_uri"] and asked["code_challenge"] == challenge
        if not right or not self._is_client(request, form):
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert asked is not None
        return web.json_response({"token_type": "Bearer", "access_token": "x", "id_token": self.token(nonce=asked["nonce"])})

    def _is_client(self, request: web.Request, form: dict[str, Any]) -> bool:
        if not self.client_secret:
            return form["client_id"] == self.client_id
        pair = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {pair}" or form.get("client_secret") == self.client_secret

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.Response(text=json.dumps({"keys": [self.signer.jwk()] if self.published is None else self.published}))

    def token(self, **more: Any) -> str:
        """A token for `subject`."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": self.client_id, "sub": self.subject, "iat": now, "exp": now + 600, **self.claims, **more}
        return self.signer.sign({name: value for name, value in claims.items() if value is not None})


@asynccontextmanager
async def provider(**fields: Any) -> AsyncGenerator[Idp]:
    """A running provider on a free port of loopback."""
    idp = Idp(**fields)
    runner = web.AppRunner(idp.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    idp.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield idp
    finally:
        await runner.cleanup()
