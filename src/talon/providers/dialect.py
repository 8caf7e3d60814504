"""What a vendor's adapter is: how a request is written, how an answer's events are read. Everything else is the same for all.

HttpProvider (pool, key, cancellation) ─> WireCall (deadlines, limits) ─> Frames (bytes → events) ─> Reader (event → Answer)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Protocol

from yarl import URL

from talon.providers.answer import Answer
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatRequest

#: How many models' addresses a provider keeps.
_ADDRESSES = 64


class Frames(Protocol):
    """Cuts the bytes of a body into the payloads of its events, however the bytes were chunked.

    `sniffs`: the body may also be one JSON document (a server that ignored the wish to stream), told by its first byte.
    """

    sniffs: ClassVar[bool]

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """-> the payloads that became whole. Raises `FrameError`."""
        ...

    def rest(self) -> bytes:
        """At the end of the body: what was begun and not closed; `b""` for nothing."""
        ...


class FrameError(ValueError):
    """The body cannot be cut into events: one goes over the limit, or the framing is broken. It cannot be read on."""


class Reader(Protocol):
    """Reads the events of one answer into its `Answer`. Raises `ProviderError` for an event that says so, `Unreadable` for one that
    cannot be decoded; what came before it is in the answer by then."""

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """Events that arrived together, one at least; what is new goes to the answer, which hands it to `out`. -> True when the
        answer's last was among them: what is behind it counts for nothing."""
        ...

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """An answer that came as one JSON document."""
        ...


class Dialect(Protocol):
    """A vendor's wire. Stateless, and without I/O."""

    #: Fields of `ChatRequest` that this vendor has no word for: they are not sent.
    leaves_out: ClassVar[frozenset[str]]

    def url(self, request: ChatRequest) -> URL:
        """Where this request is posted. Asked for each call: made once for a model."""
        ...

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The headers of this call beside the common ones; `key` may be empty."""
        ...

    def body(self, request: ChatRequest) -> bytes:
        """The request as the vendor wants it, always streamed. Raises `UnicodeEncodeError` or `TypeError` for what JSON cannot say
        (half a surrogate pair, a schema that is not JSON)."""
        ...

    def frames(self, limits: CallLimits) -> Frames:
        """A cutter for one answer."""
        ...

    def reader(self, answer: Answer) -> Reader:
        """A reader for one answer."""
        ...


class OneAddress:
    """A wire that posts to the same address whatever the model."""

    def __init__(self, url: str) -> None:
        self._url = URL(url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._url)!r})"

    def url(self, request: ChatRequest) -> URL:
        """The same for all models."""
        return self._url


class AddressByModel:
    """A wire on which the model's name (of `address`, quoted there) is part of the address."""

    def __init__(self, base: str, address: Callable[[str], str]) -> None:
        self._base = base

        @lru_cache(_ADDRESSES)
        def url_of(model: str) -> URL:
            return URL(base + address(model), encoded=True)

        self._url_of = url_of

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base!r})"

    def url(self, request: ChatRequest) -> URL:
        """Made once for a model."""
        return self._url_of(request.model)
