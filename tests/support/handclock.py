"""A clock for tests of what time does."""

from __future__ import annotations


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def later(self, seconds: float) -> None:
        """It is so much later now."""
        self.ms += round(seconds * 1000)

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000
