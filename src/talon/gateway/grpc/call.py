"""One call on its way through the house: what the front knows of it, and what handlers take from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import Message

from talon.access.roles import Principal
from talon.domain.errors import Defect, Malformed
from talon.domain.ids import Ids
from talon.gateway.api.asked import Asked, trace_of, wrong
from talon.gateway.api.permits import At
from talon.gateway.api.table import TABLE

LIMIT_DEFAULT = 50


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in. `metadata` has the text values by lower-case name. Of a stream, `begin` says that it begins, which
    the client knows at once though nothing may come for a while, and `write` sends one message and returns when the client has
    taken enough of those before. What `at_end` is given is called once the call is over, whichever way."""

    who: Principal
    metadata: Mapping[str, str]
    ids: Ids
    begin: Callable[[], Awaitable[None]]
    write: Callable[[Message | bytes], Awaitable[None]]
    at_end: Callable[[Callable[[], None]], None]

    def asked(self, key: str = "") -> Asked:
        """What a change carries of this call; `key` is its idempotency key, "" for none."""
        trace = trace_of(self.metadata.get("traceparent", ""), self.ids)
        return Asked(self.who, "grpc", trace, key or None, "idempotency_key")


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is served. `operations` are the ids whose rows in the table of permissions count; where there are several,
    `which` says which one a message is. `at` says what it is done to. `changes`: once begun it runs to its end, whatever becomes
    of its caller. A `handler` of a streaming method writes its answers and returns None. One without a row is a `Defect`."""

    operations: Sequence[str]
    request: type[Message]
    at: Callable[[Any], At]
    handler: Callable[[Call, Any], Awaitable[Message | None]]
    changes: bool = False
    streams: bool = False
    which: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.operations if name not in TABLE]
        if unknown or (self.which is None and len(self.operations) != 1):
            raise Defect("defect", f"a gRPC method without a row in the table of permissions: {', '.join(unknown)}")

    @property
    def asks(self) -> bool:
        """Whether the caller must say who he is."""
        return any(TABLE[name].place != "open" for name in self.operations)

    def operation_of(self, message: Message) -> str:
        """The operation that a call with this message is."""
        return self.operations[0] if self.which is None else self.which(message)


def limit_of(given: int, most: int) -> int:
    """A page's size. Raises `Invalid` beyond 1 to `most`; 0 is the default."""
    if not 0 <= given <= most:
        raise wrong("limit", f"must be 1 to {most}, or 0 for {LIMIT_DEFAULT}", str(given))
    return given or min(LIMIT_DEFAULT, most)


def object_of(field: str, text: str) -> dict[str, Any]:
    """A JSON object; {} for "". Raises `Malformed` for what is no JSON, `Invalid` for what is no object."""
    if not text:
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Malformed("malformed", f"{field} is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise wrong(field, "must be a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]
