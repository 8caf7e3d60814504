"""Who did what, told once an answer begins: to the store's log, in groups beside the requests, and as JSON lines where wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from talon.access.buckets import Buckets
from talon.access.protocol import AccessLog
from talon.domain.ids import Clock
from talon.store.access import LogRow

#: Requests of nobody that are written down: who may not come in must not fill the log. The others are counted, and that is said.
NOBODY_PER_S, NOBODY_BURST = 20.0, 200
SAID_EVERY_S = 60.0
log = logging.getLogger("talon.gateway")


class Told:
    """One of a process, for all transports. `line` takes each row as JSON, without its end; None: no lines are wanted."""

    def __init__(self, kept: AccessLog, clock: Clock, line: Callable[[bytes], None] | None = None) -> None:
        self._kept, self._clock, self._line = kept, clock, line
        self._nobody = Buckets(NOBODY_PER_S, NOBODY_BURST)
        self._left_out, self._say_at_s = 0, 0.0

    def tell(self, row: LogRow) -> None:
        """Write `row` down, soon. Never waits and never raises."""
        if not row.who:
            now_s = self._clock.monotonic_s()
            if self._nobody.take("", now_s) > 0:
                self._left_out += 1
                return
            if self._left_out and now_s >= self._say_at_s:
                self._say_at_s = now_s + SAID_EVERY_S
                log.warning("access log: %d refused requests of nobody were left out of it", self._left_out)
                self._left_out = 0
        self._kept.write(row)
        if self._line is not None:
            self._line(msgspec.json.encode(row))
