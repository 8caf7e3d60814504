"""What a principal may use, over all transports: requests are paced, streams are counted for him and end when he ends."""

from __future__ import annotations

from collections.abc import Callable

from talon.access.buckets import Buckets
from talon.access.protocol import Authenticator
from talon.access.roles import Principal
from talon.domain.errors import Throttled
from talon.domain.ids import Clock
from talon.gateway.deps import GatewaySettings


class Holding:
    """The requests and streams of one process. Where nobody is asked who he is, all are one, nobody is counted, and none of them is
    to wait for the others."""

    def __init__(self, authenticator: Authenticator, settings: GatewaySettings, clock: Clock) -> None:
        self._authenticator, self._clock = authenticator, clock
        self._most = settings.principal_streams_max
        self._buckets = Buckets(settings.principal_requests_per_s if authenticator.asks else 0.0, settings.principal_requests_burst)
        self._count: dict[str, int] = {}

    def pace(self, who: Principal) -> None:
        """Count a request of `who`. Raises `Throttled("too_many_requests")`."""
        wait_s = self._buckets.take(who.id, self._clock.monotonic_s())
        if wait_s > 0:
            raise Throttled(
                "too_many_requests",
                "more requests than one principal may make (gateway.principal_requests_per_s)",
                retry_after_s=wait_s,
            )

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
