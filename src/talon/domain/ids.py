"""Clock and id source as Protocols (their real forms live in `cli`), and the rule for names."""

from __future__ import annotations

import re
from typing import Protocol

NAME_MAX = 63
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Clock(Protocol):
    """Where time comes from. `now_ms` may jump with the system clock; `monotonic_s` never goes back."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; only differences mean something."""
        ...


class Ids(Protocol):
    """Where fresh ids come from."""

    def uuid7(self) -> str:
        """A new UUIDv7 (RFC 9562) as its canonical 36 characters; ids of one process sort by time."""
        ...


def is_name(text: str) -> bool:
    """Whether `text` is a valid name of a resource: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters."""
    return len(text) <= NAME_MAX and NAME.fullmatch(text) is not None


def is_namespace(text: str) -> bool:
    """Whether `text` is a valid namespace: names joined by `:`, a child after its parent (`acme:eu`), each at most 63."""
    return len(text) <= 255 and all(is_name(part) for part in text.split(":"))
