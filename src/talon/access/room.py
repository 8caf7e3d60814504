"""The room put together, for one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from talon.access.authenticator import Asking, Bearer, Insider, Open, Stored
from talon.access.keys import StoredKeys
from talon.access.protocol import Access, Login
from talon.access.recognised import Recognised
from talon.access.upkeep import StoredLog, Upkeep
from talon.domain.ids import Clock
from talon.store.access import AccessRows

if TYPE_CHECKING:
    from talon.access.oidc import Client


class Room(NamedTuple):
    """What interfaces are given, what is to run beside them, and the `Authorization` with which the process asks itself."""

    access: Access
    upkeep: Upkeep
    inside: str = ""


def open_room(store: AccessRows, clock: Clock) -> Room:
    """Mode `none`: nobody is asked who he is."""
    recognised = Recognised(clock)
    log = StoredLog(store)
    upkeep = Upkeep(store, clock, recognised, log)
    return Room(Access(Open(), StoredKeys(store, clock, upkeep.revoked), log), upkeep)


def asking_room(
    store: AccessRows,
    clock: Clock,
    recognised: Recognised,
    *,
    keys: bool,
    bearers: Sequence[Bearer] = (),
    oidc: Client | None = None,
) -> Room:
    """The other modes together: API keys, further `bearers`, browsers that log in."""
    log = StoredLog(store)
    upkeep = Upkeep(store, clock, recognised, log)
    stored, giving = Stored(store, clock, keys=keys), StoredKeys(store, clock, upkeep.revoked)
    login = None if oidc is None else _login(oidc, store, clock)
    insider = Insider()
    authenticator = Asking(recognised, (stored, *bearers, insider), stored, upkeep.trusted)
    return Room(Access(authenticator, giving, log, login), upkeep, insider.authorization)


def _login(client: Client, store: AccessRows, clock: Clock) -> Login:
    from talon.access.oidc import OidcLogin  # an HTTP client and all kinds of keys come with it

    return OidcLogin(client, store, clock)
