"""Bells of all processes on one PostgreSQL, by LISTEN.

The store sends NOTIFY inside its own transactions, so a bell is never early and costs no round trip; here is only the ear. It has a
connection of its own, which is opened again for ever; whenever that has happened, bells may have been missed, and "look at
everything" is rung: here, and to all others, who learn by it that somebody listens beside them. Who hears nobody and finds no other
ear on the server may ring less (`others`); a program that does not ring when it begins is found by the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, cast

import asyncpg

from talon.dispatch.brokers.local import LocalBroker
from talon.dispatch.brokers.protocol import Listener
from talon.domain.bell import CHANNEL, EVERYTHING, Bell, decode, encode

log = logging.getLogger("talon.dispatch")

CONNECT_TIMEOUT_S = 5
#: How often a silent connection is asked whether it is still one, and how long it may take to answer.
PROBE_EVERY_S = 10.0
PROBE_TIMEOUT_S = 5.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_EAR = "talon-bells"
_OTHER_EARS = f"""
SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE application_name = '{_EAR}' AND datname = current_database() AND pid <> pg_backend_pid())"""
_GREETING = f"SELECT pg_notify('{CHANNEL}', '{encode(EVERYTHING)}')"
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class _Ear(Protocol):
    """The part of an `asyncpg.Connection` that is used here."""

    async def add_listener(self, channel: str, callback: Callable[[object, int, str, object], None]) -> None: ...

    async def fetchval(self, query: str, *, timeout: float) -> object: ...

    def get_server_pid(self) -> int: ...

    def add_termination_listener(self, callback: Callable[[object], None]) -> None: ...

    def is_closed(self) -> bool: ...

    def terminate(self) -> None: ...


def _nobody(_pid: int) -> bool:
    return False


def _untold(_others: bool) -> None:
    pass


class PostgresBroker:
    """A `Broker` over the database at `url`. `ring` reaches the listeners of this process only: the store rings for the others.

    `is_ours` tells the backends whose commits this process makes known by itself: what they ring is an echo, and passed over.
    `others` is told whether other processes listen; true while nobody knows.
    """

    def __init__(
        self,
        url: str,
        *,
        is_ours: Callable[[int], bool] = _nobody,
        others: Callable[[bool], None] = _untold,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        self._url = url
        self._is_ours = is_ours
        self._others = others
        self._own_pid = 0
        self._probe_every_s = probe_every_s
        self._here = LocalBroker()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listening when it returns, if the database answers at once; as soon as it does otherwise."""
        await self._here.start()
        tried = asyncio.Event()
        self._task = asyncio.create_task(self._run(tried), name="postgres-broker")
        await tried.wait()

    async def close(self) -> None:
        await self._here.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def ring(self, bell: Bell) -> None:
        self._here.ring(bell)

    def listen(self, listener: Listener) -> None:
        self._here.listen(listener)

    async def _run(self, tried: asyncio.Event) -> None:
        failures = 0
        while True:
            try:
                connection = await self._open()
            except _LOST as error:
                if failures == 0:
                    log.warning("no bells: the database cannot be listened to (%s); trying on", type(error).__name__)
            else:
                if failures:
                    log.info("bells are heard again")
                failures = 0
                try:
                    self._here.ring(EVERYTHING)
                    tried.set()
                    await self._watch(connection)
                finally:
                    self._others(True)
                    connection.terminate()
                log.warning("no bells: the connection that listens was lost; opening another")
            tried.set()
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    async def _open(self) -> _Ear:
        opened = await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            self._url, timeout=CONNECT_TIMEOUT_S, server_settings={"application_name": _EAR}
        )
        connection = cast(_Ear, opened)
        try:
            self._own_pid = connection.get_server_pid()
            await connection.add_listener(CHANNEL, self._heard)
            # In this order: who begins later greets us, who was there before is found.
            await connection.fetchval(_GREETING, timeout=PROBE_TIMEOUT_S)
            await self._look(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _watch(self, connection: _Ear) -> None:
        """Return when the connection is lost."""
        lost = asyncio.Event()

        def gone(_connection: object) -> None:
            lost.set()

        connection.add_termination_listener(gone)
        while not lost.is_set() and not connection.is_closed():
            try:
                await asyncio.wait_for(lost.wait(), self._probe_every_s)
            except TimeoutError:
                try:
                    await self._look(connection)
                except _LOST:
                    return

    async def _look(self, connection: _Ear) -> None:
        """Whether the connection lives, and who else listens."""
        self._others(bool(await connection.fetchval(_OTHER_EARS, timeout=PROBE_TIMEOUT_S)))

    def _heard(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        if pid == self._own_pid or self._is_ours(pid):
            return
        bell = decode(str(payload))
        if bell.everything:
            self._others(True)  # perhaps a greeting
        self._here.ring(bell)
