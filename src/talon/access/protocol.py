"""What interfaces ask of this room: who somebody is, when that ends, keys and tokens, the access log, logging in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from talon.access.roles import Grant, Principal, Role
from talon.store.access import CredentialKind, CredentialRow, LogFilter, LogRow

DAY_S = 86_400
TOKEN_DEFAULT_S = 3600
TOKEN_MAX_S = DAY_S
KEY_MAX_S = 3650 * DAY_S
GRANTS_MAX = 64
NAME_LENGTH_MAX = 200
#: A longer Authorization or Cookie header recognises nobody.
HEADER_MAX = 16_384
#: The path that the identity provider sends browsers back to.
CALLBACK = "/v1/auth/callback"


class Authenticator(Protocol):
    """Recognises principals."""

    @property
    def asks(self) -> bool:
        """False where nobody has to say who he is: everybody is `LOCAL`."""
        ...

    async def principal(self, authorization: str, cookie: str) -> Principal:
        """Whom the values of the headers `Authorization` and `Cookie` ("" for none) recognise; the former counts if both are given.

        What was recognised before costs a hash and a look into a dict. Raises `Unauthenticated`, whose `challenge` is the
        value of `WWW-Authenticate`; `Unavailable` when the store or the identity provider cannot be asked.
        """
        ...

    def watch(self, who: Principal, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended()` once, on the event loop, when `who` expires or is revoked: at once if that is done in this process, else
        within a second. For one that has ended already, soon. -> what ends the watch (may be called again)."""
        ...


class KeyRequest(msgspec.Struct, frozen=True):
    """A key to be made. `ttl_s` None: it does not expire."""

    name: str
    grants: tuple[Grant, ...]
    ttl_s: int | None = None


class TokenRequest(msgspec.Struct, frozen=True):
    """A client's token to be made: for one agent, or one session of it. It may do what `role` and `roles.CLIENT` allow there."""

    namespace: str
    agent: str
    session: str = ""
    role: Role = "operator"
    ttl_s: int = TOKEN_DEFAULT_S
    name: str = ""


class Minted(msgspec.Struct, frozen=True):
    """A new credential. `secret` (`talon_ID_SECRET`) is what its owner sends; it is nowhere else, and is never shown again."""

    secret: str
    row: CredentialRow


class Keys(Protocol):
    """Keys, tokens and browser sessions. Nobody gives what he does not have, and nobody sees or ends what reaches further than he
    may manage; both are checked here. (Whether he may manage keys or mint tokens in the place that he asks for, too.)"""

    async def create(self, by: Principal, new: KeyRequest) -> Minted:
        """A new key. Raises `Invalid` for a bad request, `Forbidden("forbidden")` for a grant that `by` may not give, and
        `NotFound("namespace_not_found")` for one in a namespace that he does not see."""
        ...

    async def mint(self, by: Principal, new: TokenRequest) -> Minted:
        """A new token. It ends with the credential of `by`, at the latest. Raises as `create`, `Unauthenticated` when `by` has
        just ended."""
        ...

    async def browse(self, by: Principal, ttl_s: int) -> Minted:
        """A browser's session for `by`, with what he has: its secret is a cookie's value. It ends with his credential, or before.
        Raises `Forbidden` for one who stands on no credential, `Unauthenticated` when he has just ended."""
        ...

    async def list(self, by: Principal, kind: CredentialKind, cursor: str, limit: int) -> tuple[list[CredentialRow], str]:
        """Those that `by` may manage, newest first, ended ones too for a while. Neither pages nor cursors tell of others."""
        ...

    async def revoke(self, by: Principal, credential: str) -> CredentialRow:
        """End it, and those that were minted with it, at once in this process and within a second elsewhere. One's own may always
        be ended. Again: no change. Raises `NotFound("key_not_found")` also for one that `by` may not manage."""
        ...


class AccessLog(Protocol):
    """Who did what."""

    def write(self, row: LogRow) -> None:
        """Remember `row`; it is stored within a second, in a group, beside the request. Never waits and never raises."""
        ...

    async def query(self, which: LogFilter, cursor: str, limit: int) -> tuple[list[LogRow], str]:
        """What is stored, newest first (`AccessRows.list_log`)."""
        ...


class Redirect(msgspec.Struct, frozen=True):
    """Where the browser goes next, and the values of its `Set-Cookie` headers."""

    location: str
    cookies: tuple[str, ...]


class Login(Protocol):
    """The browser's way in, by OpenID Connect (code flow with PKCE)."""

    async def begin(self, origin: str, back: str) -> Redirect:
        """To the identity provider. `origin` is the gateway's own (`https://talon.example.com`), `back` the path to end at; what is
        no path of ours is `/`. Raises `Unavailable("identity_unavailable")`."""
        ...

    async def finish(self, origin: str, query: str, cookie: str) -> Redirect:
        """Back from there: `query` is the callback's query, `cookie` the request's Cookie header. The session is made, its cookie
        set. Raises `Unauthenticated` for an answer that was not asked for, or is not genuine, and `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """All of it, of one process. `login` is None where browsers cannot log in."""

    authenticator: Authenticator
    keys: Keys
    log: AccessLog
    login: Login | None = None
