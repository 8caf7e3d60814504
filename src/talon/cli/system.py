"""The real clock and the real id source. Everything below `cli` gets them handed in."""

from __future__ import annotations

import threading
import time

import uuid_utils


class SystemClock:
    """A `talon.domain.ids.Clock` on the system's clocks."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, UTC. May jump when the system's clock is set."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class SystemIds:
    """A `talon.domain.ids.Ids`: UUIDv7 that sort in the order in which this process made them.

    Safe from several threads. uuid-utils counts within a millisecond, but not when the system's clock is set back: then the
    last id plus one is given, until the clock has caught up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = ""

    def uuid7(self) -> str:
        """A new UUIDv7, greater than every one before."""
        with self._lock:
            fresh = str(uuid_utils.uuid7())
            if fresh <= self._last:  # as texts they sort like their numbers
                fresh = str(uuid_utils.UUID(int=_next(uuid_utils.UUID(self._last).int)))
            self._last = fresh
        return fresh


_RAND_B = (1 << 62) - 1
_RAND_A = ((1 << 12) - 1) << 64


def _next(last: int) -> int:
    """The UUIDv7 after `last`: its random bits plus one, version and variant kept."""
    rand_b = (last & _RAND_B) + 1
    if rand_b <= _RAND_B:
        return (last & ~_RAND_B) | rand_b
    rand_a = (last & _RAND_A) + (1 << 64)
    if rand_a <= _RAND_A:
        return (last & ~(_RAND_A | _RAND_B)) | rand_a
    return ((last >> 80) + 1) << 80 | (last & ~(_RAND_A | _RAND_B) & ((1 << 80) - 1))
