"""Streams belong to principals: they are counted for them, and end when they end."""

from __future__ import annotations

from collections.abc import Callable

from talon.access.protocol import Authenticator
from talon.access.roles import Principal
from talon.domain.errors import Throttled


class Holding:
    """The streams of one process, over all transports. `most` is how many one principal may have open; where nobody is asked who
    he is, nobody is counted."""

    def __init__(self, authenticator: Authenticator, most: int) -> None:
        self._authenticator, self._most = authenticator, most
        self._count: dict[str, int] = {}

    def hold(self, who: Principal, ended: Callable[[], None]) -> Callable[[], None]:
        """Count a stream of `who`, and call `ended()` when he is revoked or expires, within a second; -> what lets it go (may be
        called again). Raises `Throttled("too_many_streams")`."""
        if self._authenticator.asks:
            open_now = self._count.get(who.id, 0)
            if open_now >= self._most:
                raise Throttled(
                    "too_many_streams",
                    f"{open_now} streams of yours are open, the most of one principal (gateway.principal_streams_max); try later",
                    retry_after_s=5.0,
                )
            self._count[who.id] = open_now + 1
        unwatch = self._authenticator.watch(who, ended)
        held = True

        def let_go() -> None:
            nonlocal held
            if held:
                held = False
                unwatch()
                self._drop(who.id)

        return let_go

    def _drop(self, who: str) -> None:
        left = self._count.get(who, 1) - 1
        if left:
            self._count[who] = left
        else:
            self._count.pop(who, None)
