"""The broker of one process: ringing calls the listeners."""

from __future__ import annotations

import logging

from talon.dispatch.brokers.protocol import Listener
from talon.domain.bell import Bell

log = logging.getLogger("talon.dispatch")


class LocalBroker:
    """A `Broker` within one event loop. A bell has been heard when `ring` returns."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._closed = False

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    def ring(self, bell: Bell) -> None:
        if self._closed or not bell:
            return
        for listener in tuple(self._listeners):
            try:
                listener(bell)
            except Exception:
                log.exception("a listener failed on %s", bell)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)
