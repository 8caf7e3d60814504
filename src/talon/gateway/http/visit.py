"""One request on its way through the house: what the front, the guard and the access log know of it."""

from __future__ import annotations

from typing import cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from talon.access.roles import Principal
from talon.store.access import LogRow

_PLACE = "talon.visit"
_OBJECT_MAX = 512


class Visit:
    """`headers` are those of the request, names in lower case. `operation` is "" until a route is found, `who` None until somebody
    was recognised, `outcome` "ok" until something is refused. `namespace` and `object` are what it is done to."""

    __slots__ = ("address", "at_ms", "headers", "namespace", "object", "operation", "outcome", "request_id", "verb", "who")

    def __init__(self, scope: Scope, headers: dict[bytes, bytes], request_id: str, at_ms: int) -> None:
        self.headers = headers
        self.request_id = request_id
        self.at_ms = at_ms
        client = scope.get("client")
        self.address = str(client[0]) if client else ""
        self.operation = self.verb = self.namespace = ""
        self.object: str = scope["path"][:_OBJECT_MAX]
        self.outcome = "ok"
        self.who: Principal | None = None
        scope[_PLACE] = self

    def header(self, name: bytes) -> str:
        """The value of a header, "" for none."""
        return self.headers.get(name, b"").decode("latin-1")


def row_of(visit: Visit) -> LogRow | None:
    """What the access log gets of it: what somebody did or was refused, and who could not come in. None for what is open to all,
    and for what goes nowhere."""
    if visit.who is None and visit.outcome not in ("unauthenticated", "forbidden_host", "forbidden_origin"):
        return None
    who = "" if visit.who is None else visit.who.id
    return LogRow(
        visit.at_ms,
        who,
        visit.verb,
        visit.operation,
        visit.namespace,
        visit.object,
        visit.outcome,
        visit.request_id,
        visit.address,
        "http",
    )


def visit_of(scope: Scope) -> Visit:
    """The visit that a request is."""
    return cast(Visit, scope[_PLACE])


def who_asks(request: HTTPConnection) -> Principal:
    """Who was recognised."""
    return known(visit_of(request.scope))


def known(visit: Visit) -> Principal:
    """Who was recognised. Only where the guard has let somebody in."""
    if visit.who is None:
        raise AssertionError("the guard lets nobody in whom it does not know")
    return visit.who
