"""JSON as values, of a type: events that arrived together are decoded in one go, which costs half of decoding each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar, overload

import msgspec

T = TypeVar("T", covariant=True)
_WRONG = (msgspec.DecodeError, UnicodeDecodeError)


class Unreadable(ValueError):
    """`event` is not what it should be; the message says why."""

    def __init__(self, event: bytes, error: Exception) -> None:
        super().__init__(str(error))
        self.event = event


class Lines(Sequence[bytes]):
    """Events that arrived together, as one text of `count` lines: cut apart only when somebody looks at one."""

    __slots__ = ("_count", "text")

    def __init__(self, text: bytes, count: int) -> None:
        self.text = text
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        return self._cut()[index]

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        for _ in range(self._count):
            end = self.text.find(b"\n", at)
            yield self.text[at : end if end >= 0 else None]
            at = end + 1

    def _cut(self) -> list[bytes]:
        return self.text.split(b"\n") if self._count else []


def until(events: Sequence[bytes], mark: bytes) -> tuple[Sequence[bytes], bool]:
    """The events before `mark`, and whether it is the last of them. One that stands in the middle is left, to be found when it is
    decoded: no stream is searched for it."""
    if isinstance(events, Lines):
        if events.text != mark and not events.text.endswith(b"\n" + mark):
            return events, False
        return Lines(events.text[: -len(mark) - 1], len(events) - 1), True
    return (events[:-1], True) if events[-1] == mark else (events, False)


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
        text = events.text if isinstance(events, Lines) else b"\n".join(events)
        try:
            if len(events) == 1:
                return (self._decode(text),)
            values = self._decode_lines(text)
        except _WRONG:
            return self._singly(events)
        return values if len(values) == len(events) else self._singly(events)  # blank ones, or two in one

    def _singly(self, events: Sequence[bytes]) -> Iterator[T]:
        for event in events:
            if event.strip():
                yield self.one(event)


class Head(Protocol):
    """What every event of some vendors repeats: the answer's id, and its model's name."""

    id: str | None
    model: str | None


def text_of(raw: msgspec.Raw) -> str:
    """JSON text that was kept undecoded. Raises `Unreadable`: nobody has looked at its characters so far."""
    data = bytes(raw)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(data, error) from None
