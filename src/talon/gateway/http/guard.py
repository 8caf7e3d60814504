"""Who comes in, and what for: everything here is asked before a route looks anything up.

A request is recognised by its `Authorization` or its cookie. A browser sends cookies unasked, so what changes something and shows
one must come from a page of ours: its `Origin` must be the gateway's own or an allowed one, and it must carry the header
`Talon-Csrf`, which no form can send and no page of another origin without being allowed to first (CORS preflight).
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from talon.access.protocol import Authenticator
from talon.domain.errors import Forbidden
from talon.gateway.api.permits import At, refusal, sight_of
from talon.gateway.api.table import TABLE
from talon.gateway.holding import Holding
from talon.gateway.http.visit import visit_of
from talon.store.sight import look_as

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = b"talon-csrf"


class Guard:
    """Lets requests in, or raises what they are told."""

    def __init__(self, authenticator: Authenticator, holding: Holding, *, walled: bool = False) -> None:
        """`walled`: what is read for a request goes through the wall of the store, with the sight of whoever asks."""
        self._authenticator, self._holding, self._walled = authenticator, holding, walled

    async def admit(self, scope: Scope, operation: str, places: Mapping[str, str]) -> None:
        """Recognise who asks, and refuse what he may not do. `places` are the path's parameters.

        Raises `Unauthenticated`, `NotFound`, `Forbidden`, `Throttled`, `Unavailable`.
        """
        visit = visit_of(scope)
        row = TABLE[operation]
        visit.operation, visit.verb = operation, row.verb or ""
        at = At(places.get("ns", ""), places.get("agent", ""), places.get("session_id", ""))
        visit.namespace = at.namespace
        if row.place == "open":
            look_as(None)
            return
        who = await self._authenticator.principal(visit.header(b"authorization"), visit.header(b"cookie"))
        visit.who = who
        if self._walled:
            look_as(sight_of(who))
        self._holding.pace(who)
        if who.browser and scope["method"] not in SAFE_METHODS:
            _no_forgery(visit.headers)
        error = refusal(who, row, at)
        if error is not None:
            raise error


def _no_forgery(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what another site's page may have made a browser send. That an `Origin` is ours the front has checked."""
    if b"origin" not in headers or not headers.get(CSRF_HEADER):
        raise Forbidden(
            "forbidden_origin", "with a cookie, what changes something needs the headers Origin (an allowed one) and Talon-Csrf: 1"
        )
