"""JWTs that somebody else signs (RFC 7519, with the advice of RFC 8725).

What a token says about itself decides nothing: the algorithm is configured and the key has that one; by whom, for whom and until
when must all be said, and be right.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
import msgspec

from talon.access.authenticator import Found
from talon.access.grants import claimed
from talon.access.protocol import GRANTS_MAX, HEADER_MAX
from talon.access.roles import Principal
from talon.access.signers import Algorithm, Signers
from talon.domain.errors import Unauthenticated
from talon.domain.ids import Clock

SUBJECT_MAX = 255
#: A token is checked again after this long, so that a signer's key that was taken back counts no longer than that.
REMEMBER_MS = 300_000
#: No time is later than this (the year 36812): a number beyond is a mistake, or an attack.
_LATEST_S = 2**40
_jws = jwt.PyJWS()


class _Header(msgspec.Struct):
    """What is read of the header before anything is verified."""

    alg: str
    kid: str = ""
    crit: Any = None
    b64: Any = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a token must say."""

    algorithm: Algorithm
    issuer: str
    audience: str
    skew_s: float
    grants_claim: str


class Verifier:
    """Checks tokens by one set of rules."""

    def __init__(self, rules: Rules, signers: Signers, clock: Clock) -> None:
        self.rules, self._signers, self._clock = rules, signers, clock

    def takes(self, token: str) -> bool:
        """Three parts with dots between them."""
        return token.count(".") == 2

    async def recognise(self, token: str) -> Found:
        """See `Bearer.recognise`."""
        claims = await self.verify(token)
        ends_ms = math.ceil((claims["exp"] + self.rules.skew_s) * 1000)
        grants = claimed(claims.get(self.rules.grants_claim), GRANTS_MAX)
        who = Principal(user(self.rules.issuer, claims["sub"]), grants, expires_at_ms=ends_ms)
        return Found(who, min(ends_ms, self._clock.now_ms() + REMEMBER_MS))

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a genuine token that is meant for us, now. `exp` is a number, `sub` a printable text.

        Raises `Unauthenticated`, `Unavailable` when the signer's keys cannot be had."""
        if len(token) > HEADER_MAX or not token.isascii():
            _refuse("it is too long, or no token")
        try:
            header = msgspec.json.decode(_part(token.partition(".")[0]), type=_Header)
        except (ValueError, RecursionError):
            _refuse("its header cannot be read")
        if header.alg != self.rules.algorithm:
            _refuse(f"it is not signed by {self.rules.algorithm}")
        if header.crit is not None or header.b64 is not None:
            _refuse("its header asks for what is not understood here")
        key = await self._signers.find(header.kid)
        if key is None:
            _refuse("its signer is not known")
        try:
            payload: bytes = _jws.decode_complete(token, key, algorithms=[self.rules.algorithm])["payload"]
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            _refuse("its signature is wrong")
        try:
            claims = msgspec.json.decode(payload, type=dict[str, Any])
        except (ValueError, RecursionError):
            _refuse("what it says cannot be read")
        self._check(claims)
        return claims

    def _check(self, claims: dict[str, Any]) -> None:
        now_s, skew_s = self._clock.now_ms() / 1000, self.rules.skew_s
        if claims.get("iss") != self.rules.issuer:
            _refuse("its issuer is another one")
        audience = claims.get("aud")
        if audience != self.rules.audience and not (isinstance(audience, list) and self.rules.audience in audience):
            _refuse("it is meant for another audience")
        if not _is_time(claims.get("exp")):
            _refuse("it does not say when it expires")
        if now_s >= claims["exp"] + skew_s:
            _refuse("it has expired")
        for name in ("nbf", "iat"):
            if name in claims and (not _is_time(claims[name]) or now_s < claims[name] - skew_s):
                _refuse("it is not valid yet")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX or not subject.isprintable():
            _refuse("it does not say whom it is for")


def signed(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token of our own, for `Verifier` with HS256 and the same secret (32 bytes or more)."""
    return jwt.encode(dict(claims), secret, "HS256")


def user(issuer: str, subject: str) -> str:
    """The id of somebody whom an issuer knows."""
    return f"user:{issuer}#{subject}"


def _part(text: str) -> bytes:
    """A part of a token (base64url without padding, RFC 7515). Raises `ValueError`."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_S


def _refuse(reason: str) -> NoReturn:
    raise Unauthenticated("unauthenticated", f"the token does not count: {reason}", 'Bearer error="invalid_token"')
