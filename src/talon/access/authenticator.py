"""Recognising principals: what was recognised before by memory, the rest by the configured modes, one after another."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from talon.access.cookies import read
from talon.access.grants import decode
from talon.access.protocol import HEADER_MAX
from talon.access.recognised import Recognised
from talon.access.roles import LOCAL, Principal
from talon.access.secret import Secret, parse
from talon.domain.errors import Unauthenticated
from talon.domain.ids import Clock
from talon.store.access import AccessRows, CredentialKind, CredentialRow

#: What has no end of its own is recognised anew after this long.
REMEMBER_MS = 3_600_000
#: Lookups of the store at once: requests of nobody must not take all of its connections.
LOOKUPS_MAX = 4
_LOOKED_UP: tuple[CredentialKind, ...] = ("key", "token")


class Found(NamedTuple):
    """Somebody, and until when that may be remembered (Unix ms)."""

    who: Principal
    until_ms: int


class Bearer(Protocol):
    """One way to recognise somebody by what stands behind `Bearer`."""

    def takes(self, token: str) -> bool:
        """Whether it has the form that this way is for."""
        ...

    async def recognise(self, token: str) -> Found:
        """Raises `Unauthenticated`, `Unavailable`."""
        ...


class Open:
    """An `Authenticator` that asks nobody: for loopback only."""

    asks = False

    async def principal(self, authorization: str, cookie: str) -> Principal:
        """Everybody is `LOCAL`."""
        del authorization, cookie
        return LOCAL

    def watch(self, who: Principal, ended: Callable[[], None]) -> Callable[[], None]:
        """`LOCAL` does not end."""
        del who, ended
        return lambda: None


class Stored:
    """Recognises what the store has: keys and tokens behind `Bearer`, browser sessions by their cookie."""

    def __init__(self, store: AccessRows, clock: Clock, *, keys: bool) -> None:
        """`keys`: whether API keys count. Tokens always do: they stand on whoever minted them."""
        self._store, self._clock = store, clock
        self._kinds = _LOOKED_UP if keys else ("token",)
        self._places = asyncio.Semaphore(LOOKUPS_MAX)
        self._under_way: dict[str, asyncio.Task[CredentialRow | None]] = {}

    def takes(self, token: str) -> bool:
        """`talon_ID_SECRET`."""
        return token.startswith("talon_")

    async def recognise(self, token: str) -> Found:
        """See `Bearer.recognise`."""
        return await self._recognise(token, self._kinds, "the key or token is unknown, was revoked or has expired")

    async def browser(self, cookie: str) -> Found:
        """The same for the value of a browser session's cookie."""
        return await self._recognise(cookie, ("browser",), "the browser session is unknown, was ended or has expired")

    async def _recognise(self, token: str, kinds: Sequence[CredentialKind], words: str) -> Found:
        shown = parse(token)
        row = None if shown is None else await self._row(shown.id)
        now = self._clock.now_ms()
        if shown is None or row is None or row.kind not in kinds or not _alive(row, shown, now):
            raise Unauthenticated("unauthenticated", words)
        until = now + REMEMBER_MS if row.expires_at_ms is None else row.expires_at_ms
        return Found(principal_of(row), until)

    async def _row(self, credential: str) -> CredentialRow | None:
        """Those that ask for the same at once ask once."""
        task = self._under_way.get(credential)
        if task is None:
            task = asyncio.create_task(self._look(credential), name="look at a credential")
            self._under_way[credential] = task
            task.add_done_callback(lambda _: self._under_way.pop(credential, None))
        return await asyncio.shield(task)

    async def _look(self, credential: str) -> CredentialRow | None:
        async with self._places:
            return await self._store.get_credential(credential)


class Insider:
    """Recognises this very process, when it asks itself over HTTP: by a text that is nowhere else."""

    def __init__(self) -> None:
        self._token = f"inside_{secrets.token_urlsafe(32)}"
        self.authorization = f"Bearer {self._token}"

    def takes(self, token: str) -> bool:
        """Only that text."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token.encode())

    async def recognise(self, token: str) -> Found:
        """`LOCAL`: whoever runs the process."""
        del token
        return Found(LOCAL, 2**62)


class Asking:
    """An `Authenticator` over the configured modes."""

    asks = True

    def __init__(self, recognised: Recognised, bearers: Sequence[Bearer], browsers: Stored, trusted: Callable[[], bool]) -> None:
        """`bearers` are tried in their order, `browsers` recognises cookies. `trusted()` says whether what was remembered may be
        believed: whether this process knows what was revoked."""
        self._recognised, self._bearers, self._browsers, self._trusted = recognised, bearers, browsers, trusted

    async def principal(self, authorization: str, cookie: str) -> Principal:
        """See `Authenticator.principal`."""
        shown = authorization or (read(cookie) if 0 < len(cookie) <= HEADER_MAX else "")
        if not shown or len(shown) > HEADER_MAX:
            raise Unauthenticated("unauthenticated", "say who you are: a key or token as `Authorization: Bearer …`")
        key = hashlib.sha256((shown if authorization else f"\0{shown}").encode("utf-8", "surrogatepass")).digest()
        if self._trusted():
            known = self._recognised.find(key)
            if known is not None:
                return known
        who, until_ms = await (self._by_header(authorization) if authorization else self._browsers.browser(shown))
        if not self._recognised.remember(key, who, until_ms):
            raise Unauthenticated("unauthenticated", "what you showed was revoked")
        return who

    def watch(self, who: Principal, ended: Callable[[], None]) -> Callable[[], None]:
        """See `Authenticator.watch`."""
        return self._recognised.watch(who, ended)

    async def _by_header(self, authorization: str) -> Found:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer":
            for one in self._bearers:
                if one.takes(token):
                    return await one.recognise(token)
        raise Unauthenticated("unauthenticated", "this server does not know this kind of key or token")


def principal_of(row: CredentialRow) -> Principal:
    """Whom a credential recognises."""
    browser = row.kind == "browser"
    return Principal(
        id=row.created_by if browser else f"{row.kind}:{row.id}",
        grants=decode(row.grants),
        agent=row.agent,
        session=row.session,
        expires_at_ms=row.expires_at_ms,
        via=row.id,
        browser=browser,
    )


def _alive(row: CredentialRow, shown: Secret, now_ms: int) -> bool:
    genuine = hmac.compare_digest(row.digest, shown.digest)
    return genuine and row.revoked_at_ms is None and (row.expires_at_ms is None or now_ms < row.expires_at_ms)
