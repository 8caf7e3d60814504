"""Who asks, where the fuzzed product asks who one is."""

from __future__ import annotations

import time

import jwt

from support.planted import PLANTED
from support.product import Api

#: Settings of a product that takes keys, and tokens that the planted secret has signed.
ASKING = {
    "TALON_GATEWAY_AUTH_MODE": "api_key,jwt",
    "TALON_GATEWAY_AUTH_JWT_ALGORITHM": "HS256",
    "TALON_GATEWAY_AUTH_JWT_ISSUER": "fuzz",
    "TALON_GATEWAY_AUTH_JWT_AUDIENCE": "talon",
    "TALON_GATEWAY_PRINCIPAL_REQUESTS_PER_S": "0",
}


def admin() -> str:
    """A token of an admin of everything, for ten minutes. No request can end it."""
    claims = {"iss": "fuzz", "aud": "talon", "sub": "fuzz", "exp": time.time() + 600, "talon_grants": ["admin@*"]}
    return jwt.encode(claims, PLANTED["secret of JWTs"])


async def key(url: str, role: str) -> str:
    """A fresh key of `role`, everywhere."""
    fields = {"name": f"fuzz {role}", "grants": [{"role": role, "namespace": "*"}]}
    async with Api(url, admin()) as api:
        return str((await api.call("POST", "/v1/auth/keys", fields, expect=201))[1]["secret"])
