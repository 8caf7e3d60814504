"""One call on its way through the house: what the front and the access log know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from talon.access.roles import Principal
from talon.gateway.api.permits import At
from talon.gateway.api.request_ids import request_id_of
from talon.gateway.api.table import Row
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc.errors import REQUEST_ID_KEY
from talon.store.access import LogRow

OBJECT_LENGTH_MAX = 512
Context = grpc.aio.ServicerContext[Any, Any]


class Visit:
    """`who` is None until somebody was recognised, `operation` "" until the message is read."""

    __slots__ = (
        "_at_ms",
        "_deps",
        "_namespace",
        "_object",
        "_told",
        "_verb",
        "context",
        "metadata",
        "operation",
        "path",
        "request_id",
        "who",
    )

    def __init__(self, deps: GatewayDeps, path: str, context: Context) -> None:
        self._deps, self.path, self.context = deps, path, context
        given = context.invocation_metadata() or ()
        self.metadata = {name: value for name, value in given if isinstance(value, str)}
        self.request_id = request_id_of(self.metadata.get(REQUEST_ID_KEY, ""), deps.ids)
        self.who: Principal | None = None
        self.operation = self._verb = self._namespace = ""
        self._object = path
        self._at_ms = deps.clock.now_ms()
        self._told = False

    def names(self, row: Row, at: At) -> None:
        """What the message says it is done to."""
        self._verb, self._namespace = row.verb or "", at.namespace
        self._object = "/".join((self.path, *(part for part in at if part)))[:OBJECT_LENGTH_MAX]

    async def begin(self) -> None:
        """See `Call.begin`."""
        self.tell("ok")
        await self.context.send_initial_metadata(((REQUEST_ID_KEY, self.request_id),))

    async def write(self, message: Message | bytes) -> None:
        """See `Call.write`."""
        await self.context.write(message if isinstance(message, bytes) else message.SerializeToString())

    def at_end(self, call: Callable[[], None]) -> None:
        """See `Call.at_end`."""

        def over(_: object) -> None:
            call()

        context: Any = self.context  # the library's types want another callback than the library
        context.add_done_callback(over)

    def tell(self, outcome: str) -> None:
        """Tell the access log how it went, once: what somebody did or was refused, and who could not come in."""
        if self._told or (self.who is None and outcome != "unauthenticated"):
            return
        self._told = True
        row = LogRow(
            self._at_ms,
            "" if self.who is None else self.who.id,
            self._verb,
            self.operation,
            self._namespace,
            self._object,
            outcome,
            self.request_id,
            address_of(self.context.peer()),
            "grpc",
        )
        self._deps.told.tell(row)


def address_of(peer: str) -> str:
    """The address in gRPC's name for the other side: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`; "" where it has none."""
    family, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in ("ipv4", "ipv6") else ""
