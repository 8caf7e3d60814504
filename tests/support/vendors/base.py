"""What every vendor's fake is asked to say, and what the table of vendors holds of each.

A fake speaks its vendor's documented format, byte by byte: the tests decide where the bytes are cut, held back or broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from talon.domain.entries import Usage
from talon.providers.dialect import Dialect
from talon.providers.protocol import ToolCall


@dataclass(frozen=True)
class Says:
    """An answer. `stop`: stop | tool_calls | length | content_filter | refusal. `signed`: with what the vendor wants back.
    `usage` in Talon's way of counting; None: the server counts nothing. `piece`: characters of one event."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    stop: str = "stop"
    refusal: str = ""
    signed: bool = False
    usage: Usage | None = field(default_factory=lambda: Usage(30, 20, 10, reasoning_tokens=5))
    piece: int = 7


def pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def sse(payload: object, event: str = "") -> bytes:
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + msgspec.json.encode(payload) + b"\n\n"


ERRORS = ("rate_limit", "server", "overloaded", "authentication", "context_overflow", "content_filter")


class Fake(Protocol):
    """A fake of one vendor's server: what it would write."""

    #: Of the body of a stream.
    content_type: str
    #: Stop reasons that the vendor's stream can say.
    stops: frozenset[str]

    def stream(self, says: Says) -> list[bytes]:
        """Every event of a streamed answer, in order. The last but `after_stop` events come after the reason for stopping."""
        ...

    def whole(self, says: Says) -> bytes | None:
        """The answer as one document; None where no server would send it."""
        ...

    def error(self, kind: str) -> tuple[int, bytes]:
        """(status, body) of an error: one of `ERRORS`."""
        ...

    def error_event(self, kind: str) -> bytes | None:
        """An error in the middle of a stream (server | overloaded); None where the vendor has none."""
        ...


def endless_event() -> bytes:
    """The beginning of a server-sent event that never ends."""
    return b'data: {"type":"x","y":"' + b"z" * 10_000


@dataclass(frozen=True)
class Sent:
    """A field of `ChatRequest` on the wire: the `value` that is asked for, and all that it puts into the body."""

    value: Any
    body: Mapping[str, Any]
    model: str = ""  # where the field hangs on the model
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])  # other fields that it needs


@dataclass(frozen=True)
class Vendor:
    """One row of the table: a kind of provider with its fake and what it must put on the wire."""

    kind: str
    dialect: Callable[[str], Dialect]  # of a base URL
    path: str  # of the base URL, on a server of its own and on aimock
    model: str
    fake: Fake
    key_header: str
    sent: Mapping[str, Sent]
    image: Callable[[str, str], Any]  # (mime, base64) -> the image part of the body
    image_url: Callable[[str], Any] | None  # None: it takes no image by its address
    kept: Callable[[dict[str, Any]], list[Any]]  # of a body: what goes back unread, in its order
    aimock_wrong: Mapping[str, str] = field(default_factory=dict[str, str])  # case -> what aimock does there instead
    lacks: Mapping[str, str] = field(default_factory=dict[str, str])  # case -> why this vendor's wire cannot say it
    uncounted: tuple[str, ...] = ()  # fields of `Usage` that the vendor does not tell
    quiet: bytes = b": ping\n\n"  # what keeps a stream alive without saying anything
    endless: bytes = field(default_factory=endless_event)
    likewise: Callable[[dict[str, Any]], dict[str, Any]] = dict[str, Any]  # a body of the vendor's program, as we write the same

    def counts(self, usage: Usage) -> Usage:
        """What the vendor tells of it."""
        return replace(usage, **dict.fromkeys(self.uncounted, 0))
