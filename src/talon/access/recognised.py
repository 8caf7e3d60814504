"""What was recognised is remembered, until it expires or is revoked; and who wants to know of its end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from talon.access.roles import Principal
from talon.domain.ids import Clock

#: So many are remembered; beyond, the oldest is recognised again when it comes back.
REMEMBERED_MAX = 20_000
#: Ids of what was revoked lately: an answer of the store that was under way meanwhile is not believed.
GONE_MAX = 100_000
TOUCH_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Known:
    who: Principal
    until_ms: int


class Recognised:
    """The memory of one process. `key` is the SHA-256 of what was shown: no secret is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._of: dict[str, set[bytes]] = {}
        self._gone: dict[str, None] = {}
        self._watches: dict[tuple[str, int | None], dict[int, Callable[[], None]]] = {}
        self._numbers = 0
        self._touch_at_s: dict[str, float] = {}
        self._used: set[str] = set()

    def find(self, key: bytes) -> Principal | None:
        """Whom `key` recognised before, if that still holds."""
        known = self._known.get(key)
        if known is None:
            return None
        if self._clock.now_ms() >= known.until_ms:
            self._drop(key)
            return None
        if known.who.via:
            self._touch(known.who.via)
        return known.who

    def remember(self, key: bytes, who: Principal, until_ms: int) -> bool:
        """From now on `key` is `who`, until then; False, and it is not, if its credential has been revoked meanwhile."""
        if who.via in self._gone:
            return False
        if len(self._known) >= REMEMBERED_MAX:
            self._drop(next(iter(self._known)))
        self._known[key] = _Known(who, until_ms)
        self._of.setdefault(who.via, set()).add(key)
        if who.via:
            self._touch(who.via)
        return True

    def forget(self, via: str | None = None) -> None:
        """What stands on this credential ("": on none; None: everything) must be recognised anew."""
        if via is None:
            self._known.clear()
            self._of.clear()
        for key in self._of.get(via or "", set()).copy():
            self._drop(key)

    def revoked(self, credentials: Iterable[str]) -> None:
        """These have ended: they are nobody from now on, and who watches them is told."""
        for one in credentials:
            if len(self._gone) >= GONE_MAX:
                del self._gone[next(iter(self._gone))]
            self._gone[one] = None
            self.forget(one)
            for key in [key for key in self._watches if key[0] == one]:
                self._tell(key)

    def expired(self) -> None:
        """Tell those who watch what has expired since."""
        now = self._clock.now_ms()
        for key in [key for key in self._watches if key[1] is not None and now >= key[1]]:
            self._tell(key)

    def watch(self, who: Principal, ended: Callable[[], None]) -> Callable[[], None]:
        """See `Authenticator.watch`."""
        key = (who.via, who.expires_at_ms)
        if who.via in self._gone:
            asyncio.get_running_loop().call_soon(ended)
            return _nothing
        self._numbers += 1
        number = self._numbers
        self._watches.setdefault(key, {})[number] = ended

        def end() -> None:
            watching = self._watches.get(key, {})
            watching.pop(number, None)
            if not watching:
                self._watches.pop(key, None)

        return end

    def used(self) -> list[str]:
        """The credentials that were used since this was asked last, each once in `TOUCH_EVERY_S`."""
        used, self._used = self._used, set()
        return sorted(used)

    def _touch(self, credential: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._touch_at_s.get(credential, 0.0):
            if len(self._touch_at_s) >= REMEMBERED_MAX:
                self._touch_at_s.clear()
            self._touch_at_s[credential] = now_s + TOUCH_EVERY_S
            self._used.add(credential)

    def _tell(self, key: tuple[str, int | None]) -> None:
        loop = asyncio.get_running_loop()
        for ended in self._watches.pop(key, {}).values():
            loop.call_soon(ended)  # each by itself: one that fails keeps no other from being told

    def _drop(self, key: bytes) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            keys = self._of.get(known.who.via, set())
            keys.discard(key)
            if not keys:
                self._of.pop(known.who.via, None)


def _nothing() -> None:
    pass
