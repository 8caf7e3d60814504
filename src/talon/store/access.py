"""Who may come in, as rows: what a store keeps of keys, clients' tokens, browser sessions, and of who did what.

Nothing here decides anything: `talon.access` does. No secret comes here, only its SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

CredentialKind = Literal["key", "token", "browser"]


class CredentialRow(msgspec.Struct, frozen=True):
    """Something that recognises somebody. All but `revoked_at_ms` and `used_at_ms` stays as it was made.

    `digest` is the SHA-256 of its secret. `grants` is JSON. `agent` and `session` narrow a token ("" does not). `parent` is the id
    of the credential that a token was minted with ("" if with none): it is revoked with it, and ends no later. `created_by` is the
    principal who made it; of a browser session, the one whom it recognises. `used_at_ms` is no more exact than a minute.
    """

    id: str
    kind: CredentialKind
    digest: bytes
    name: str
    grants: bytes
    agent: str
    session: str
    parent: str
    created_by: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    used_at_ms: int | None


class NewCredential(msgspec.Struct, frozen=True):
    """A credential to be made; `ttl_ms` from now by the store's clock, None for ever. `if_first`: only while no key is alive.
    `places` are the namespaces that `grants` name."""

    id: str
    kind: CredentialKind
    digest: bytes
    grants: bytes
    created_by: str
    name: str = ""
    agent: str = ""
    session: str = ""
    parent: str = ""
    ttl_ms: int | None = None
    if_first: bool = False
    places: tuple[str, ...] = ()


class LogRow(msgspec.Struct, frozen=True):
    """One request: who did what to what, and how it went.

    `at_ms` is when the request came, by the clock of who answered it. `who` is the principal's id, "" for nobody. `verb` is what
    the operation asks for (`talon.access.roles.Verb`, "" for one that asks for nothing), `operation` the operation's id, `object`
    what it was done to, as the request names it. `outcome` is "ok" or the code of the error. `address` is where the request came
    from ("" where it has none), `via` is `http` or `grpc`.
    """

    at_ms: int
    who: str
    verb: str
    operation: str
    namespace: str
    object: str
    outcome: str
    request_id: str
    address: str
    via: str


class LogFilter(msgspec.Struct, frozen=True):
    """Which rows: those that have all of these; "" is any. `outcome` "!ok" is every one but "ok"."""

    who: str = ""
    verb: str = ""
    namespace: str = ""
    outcome: str = ""


class AccessRows(Protocol):
    """Credentials and the access log. Lists are paged by an opaque cursor ("" starts; "" comes back at the end); a cursor that
    cannot be read raises `Invalid("cursor_invalid")`. Every read is bounded."""

    async def add_credential(self, new: NewCredential) -> CredentialRow | None:
        """Make it. None, and nothing is written, if its parent has ended or is unknown, if its id is taken, or if `if_first` is set
        and a key is alive: of several that ask so at once, one succeeds. One with a parent ends no later than it."""
        ...

    async def get_credential(self, credential: str) -> CredentialRow | None:
        """One credential, also one that has ended; None if there is none (or it ended long ago)."""
        ...

    async def list_credentials(
        self, kind: CredentialKind, cursor: str, limit: int, within: Sequence[str] | None = None
    ) -> tuple[list[CredentialRow], str]:
        """Credentials of a kind, newest first. `within`: only those that name a namespace, and none that is not one of these or
        below one, compared by segment; they lie apart. Pages are full, and no cursor tells of what is left out."""
        ...

    async def revoke_credential(self, credential: str) -> CredentialRow | None:
        """End it, those that were minted with it, and those minted with them, now and for good, in one commit. None if there is
        none. Again: no change."""
        ...

    async def touch_credentials(self, credentials: Sequence[str]) -> None:
        """They were used just now."""
        ...

    async def access_version(self) -> int:
        """A number that grows with each revocation: nothing else takes a right away. One read of one row."""
        ...

    async def revoked_after(self, version: int) -> tuple[list[str], int]:
        """-> (ids of what was revoked after the access version `version`, the version up to which these are all)."""
        ...

    async def append_log(self, rows: Sequence[LogRow]) -> None:
        """Write these, in one commit. After a loss of the database in the middle it may have been done: no one repeats it."""
        ...

    async def list_log(self, which: LogFilter, cursor: str, limit: int) -> tuple[list[LogRow], str]:
        """Rows that fit, newest first. A principal, a namespace and "!ok" are found by index; the rest is filtered while reading,
        at most `LOG_CANDIDATES_MAX` a page: a page may be short, or empty, and the list still go on at its cursor."""
        ...

    async def forget_access(self) -> int:
        """Drop what has ended: credentials `CREDENTIAL_KEEP_MS` after their end, log rows after `LOG_KEEP_MS`; -> how many. At most
        `FORGET_MAX` of each, so that nobody waits long for it."""
        ...


#: What has ended is shown for a while; revocations are told to gateways as long (`revoked_after`).
CREDENTIAL_KEEP_MS = 30 * 24 * 3600 * 1000
LOG_KEEP_MS = 90 * 24 * 3600 * 1000
LOG_CANDIDATES_MAX = 1000
FORGET_MAX = 10_000


def indexed(which: LogFilter) -> str:
    """What of a filter an index finds: `who`, `namespace`, `refused` (an outcome but "ok"), or "" where only the order helps."""
    refused = "refused" if which.outcome not in ("", "ok") else ""
    return "who" if which.who else "namespace" if which.namespace else refused


def candidates(which: LogFilter, limit: int) -> int:
    """How many rows to read for a page: one more than it has, or many where most may not fit."""
    plain = sum(map(bool, msgspec.structs.astuple(which))) == bool(indexed(which)) and which.outcome in ("", "!ok")
    return limit + 1 if plain else LOG_CANDIDATES_MAX


def log_page(
    rows: Sequence[tuple[int, LogRow]], which: LogFilter, limit: int, cursor_of: Callable[[int], str]
) -> tuple[list[LogRow], str]:
    """The page of `rows`, the `candidates` with their numbers, newest first."""
    full = len(rows) == candidates(which, limit)
    found: list[LogRow] = []
    for position, (number, row) in enumerate(rows, 1):
        if _fits(row, which):
            found.append(row)
        if len(found) == limit:
            return found, cursor_of(number) if full or position < len(rows) else ""
    return found, cursor_of(rows[-1][0]) if full else ""


def _fits(row: LogRow, which: LogFilter) -> bool:
    outcome = which.outcome in ("", row.outcome) or (which.outcome == "!ok" and row.outcome != "ok")
    return outcome and which.who in ("", row.who) and which.verb in ("", row.verb) and which.namespace in ("", row.namespace)
