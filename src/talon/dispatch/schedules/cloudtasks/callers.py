"""Who may call: Cloud Tasks with a token of its service account (OpenID Connect), or with the one that Talon gave the task.

A token of Talon's is good for one occurrence, one of the service account for all: what such a call may do is to have the database
looked at, so whoever could forge one would fire nothing that is not due.
"""

from __future__ import annotations

import hmac
from typing import NoReturn, Protocol

from talon.access.signers import OneKey, Signers
from talon.access.tokens import Rules, Verifier, signed
from talon.dispatch.schedules.cloudtasks.occurrence import Occurrence, task_id
from talon.domain.errors import Unauthenticated
from talon.domain.ids import Clock

ISSUER = "talon"
#: A call that is this much later than its occurrence is none any more.
LIFE_MS = 86_400_000
SKEW_S = 30.0
_CLAIM = ""  # nobody is given anything by these tokens


class Token(Protocol):
    """One kind of token."""

    async def check(self, token: str) -> str:
        """-> the one task that it is good for; "" for all. Raises `Unauthenticated`, `Unavailable` when keys cannot be had."""
        ...


class OwnToken:
    """Tokens that Talon gives its tasks: HS256 over a secret that all its processes have."""

    def __init__(self, secret: bytes, audience: str, clock: Clock) -> None:
        self._secret, self._audience, self._clock = secret, audience, clock
        self._verifier = Verifier(Rules("HS256", ISSUER, audience, SKEW_S, _CLAIM), OneKey(secret), clock)

    def make(self, one: Occurrence, due_ms: int) -> str:
        """The token of a task that is due then."""
        now_ms = self._clock.now_ms()
        ends_ms = max(due_ms, now_ms) + LIFE_MS
        claims = {"iss": ISSUER, "aud": self._audience, "sub": task_id(one), "iat": now_ms // 1000, "exp": ends_ms // 1000}
        return signed(claims, self._secret)

    async def check(self, token: str) -> str:
        """See `Token.check`."""
        subject: str = (await self._verifier.verify(token))["sub"]
        return subject


class AccountToken:
    """Tokens that Google signs for a service account."""

    def __init__(self, email: str, issuer: str, audience: str, signers: Signers, clock: Clock) -> None:
        self._email = email
        self._verifier = Verifier(Rules("RS256", issuer, audience, SKEW_S, _CLAIM), signers, clock)

    async def check(self, token: str) -> str:
        """See `Token.check`."""
        claims = await self._verifier.verify(token)
        if claims.get("email") != self._email or claims.get("email_verified") is not True:
            _refuse("it is another account's")
        return ""


class Callers:
    """Tells genuine calls from others by any of `tokens`."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self._tokens = tokens

    async def recognise(self, authorization: str) -> str:
        """What `Token.check` says. Raises as that does."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("unauthenticated", "a callback shows its token as `Authorization: Bearer …`")
        refused: Unauthenticated | None = None
        for one in self._tokens:
            try:
                return await one.check(token.strip())
            except Unauthenticated as error:
                refused = error
        raise refused or Unauthenticated("unauthenticated", "no callback is expected here")


def check_bound(task: str, one: Occurrence) -> None:
    """Raise `Unauthenticated` if the token is good for another task only."""
    if task and not hmac.compare_digest(task.encode(), task_id(one).encode()):
        _refuse("it was made for another occurrence")


def _refuse(reason: str) -> NoReturn:
    raise Unauthenticated("unauthenticated", f"the token does not count: {reason}", 'Bearer error="invalid_token"')
