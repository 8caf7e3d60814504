"""JSON as values, of a type: events that arrived together are decoded in one go, which costs half of decoding each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
_WRONG = (msgspec.DecodeError, UnicodeDecodeError)


class Unreadable(ValueError):
    """`event` is not what it should be; the message says why."""

    def __init__(self, event: bytes, error: Exception) -> None:
        super().__init__(str(error))
        self.event = event


class Decoding(Generic[T]):
    """Decodes JSON texts as `type_`; may be shared."""

    def __init__(self, type_: type[T]) -> None:
        decoder = msgspec.json.Decoder(type_)
        self._decode, self._decode_lines = decoder.decode, decoder.decode_lines

    def one(self, event: bytes | msgspec.Raw) -> T:
        """The value. Raises `Unreadable`."""
        try:
            return self._decode(event)
        except _WRONG as error:
            raise Unreadable(bytes(event), error) from None

    def each(self, events: Sequence[bytes]) -> Iterable[T]:
        """The values in their order, without blank events. Where one cannot be read, `Unreadable` is raised when its turn comes:
        what came before it is given."""
        if len(events) == 1:
            return (self.one(events[0]),) if events[0].strip() else ()
        try:
            values = self._decode_lines(b"\n".join(events))
        except _WRONG:
            return self._singly(events)
        return values if len(values) == len(events) else self._singly(events)  # blank ones, or two in one

    def _singly(self, events: Sequence[bytes]) -> Iterator[T]:
        for event in events:
            if event.strip():
                yield self.one(event)


def text_of(raw: msgspec.Raw) -> str:
    """JSON text that was kept undecoded. Raises `Unreadable`: nobody has looked at its characters so far."""
    data = bytes(raw)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(data, error) from None
