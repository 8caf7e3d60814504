"""Token buckets: how many requests somebody may make. Pure; the clock is the caller's."""

from __future__ import annotations

#: So many callers are remembered; beyond, those whose bucket is full again are forgotten, and if none is, the oldest.
REMEMBERED_MAX = 20_000


class Buckets:
    """A bucket for each caller: `burst` tokens at first, `per_s` more each second, never more than `burst`. `per_s` 0: no limit."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._left: dict[str, tuple[float, float]] = {}  # caller -> (tokens, as of when)

    def take(self, caller: str, now_s: float) -> float:
        """Take one token; -> 0.0, or the seconds until there is one if there is none now."""
        if self._per_s <= 0:
            return 0.0
        left, since_s = self._left.get(caller, (self._burst, now_s))
        left = min(self._burst, left + max(0.0, now_s - since_s) * self._per_s)
        if caller not in self._left and len(self._left) >= REMEMBERED_MAX:
            self._forget(now_s)
        if left < 1.0:
            self._left[caller] = (left, now_s)
            return (1.0 - left) / self._per_s
        self._left[caller] = (left - 1.0, now_s)
        return 0.0

    def _forget(self, now_s: float) -> None:
        full_s = self._burst / self._per_s
        self._left = {caller: kept for caller, kept in self._left.items() if now_s - kept[1] < full_s}
        if len(self._left) >= REMEMBERED_MAX:
            del self._left[next(iter(self._left))]
