"""Dispatch on SQLite: workers, claims, sweeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from talon.domain.entries import READER
from talon.domain.session import SessionRow, TurnRow
from talon.store.inbox_apply import backoff_ms
from talon.store.model import Caps, Claimed, WorkerRow
from talon.store.sqlite import sql
from talon.store.sqlite.connection import Database


class QueuePart:
    """`talon.store.protocols.Queue`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def register(self, name: str, boot: str, ttl_ms: int, catalogue: bytes) -> str:
        worker = f"{name}/{boot}"

        def put(connection: sqlite3.Connection, now: int) -> str:
            connection.execute(sql.WORKER_PUT, (worker, name, now + ttl_ms, catalogue, now))
            for (earlier,) in connection.execute(sql.WORKERS_EARLIER, (name, worker)).fetchall():
                connection.execute(sql.WORKER_END, (earlier,))
            held = connection.execute(sql.HELD_BY_EARLIER_BOOTS, (name, worker)).fetchall()
            _give_back(connection, [(sid, 0) for sid, _ in held], now)
            return worker

        return await self._db.write(put)

    async def heartbeat(self, worker: str, ttl_ms: int, draining: bool = False) -> bool:
        return await self._db.write(
            lambda connection, now: connection.execute(sql.WORKER_BEAT, (now + ttl_ms, draining, worker)).rowcount > 0
        )

    async def retire(self, worker: str) -> int:
        def end(connection: sqlite3.Connection, now: int) -> int:
            connection.execute(sql.WORKER_END, (worker,))
            return _give_back(connection, _backed_off(connection.execute(sql.HELD_BY, (worker,))), now)

        return await self._db.write(end)

    async def claim(self, worker: str, slots: int, caps: Caps) -> list[Claimed]:
        if slots <= 0:
            return []
        return await self._db.write(lambda connection, now: _claim(connection, worker, slots, caps, now))

    async def sweep(self) -> int:
        def sweep(connection: sqlite3.Connection, now: int) -> int:
            connection.execute(sql.WORKERS_EXPIRE, (now,))
            connection.execute(sql.WAKE_BY_THE_CLOCK, (now,))
            return _give_back(connection, _backed_off(connection.execute(sql.HELD_BY_NOBODY)), now)

        return await self._db.write(sweep)

    async def owned(self, worker: str) -> list[tuple[int, int]]:
        return await self._db.read(lambda connection: connection.execute(sql.OWNED, (worker,)).fetchall())

    async def next_wake_ms(self) -> int | None:
        row = await self._db.read(lambda connection: connection.execute(sql.NEXT_WAKE, (READER,)).fetchone())
        return None if row is None else max(0, row[0] - self._db.clock.now_ms())

    async def workers(self) -> list[WorkerRow]:
        now = self._db.clock.now_ms()
        rows = await self._db.read(lambda connection: connection.execute(sql.WORKERS, (now,)).fetchall())
        return [WorkerRow(worker, name, expires, bool(draining), *rest) for worker, name, expires, draining, *rest in rows]

    async def put_definition(self, digest: str, body: bytes) -> None:
        await self._db.write(lambda connection, _: connection.execute(sql.DEFINITION_PUT, (digest, body)))

    async def get_definition(self, digest: str) -> bytes | None:
        row = await self._db.read(lambda connection: connection.execute(sql.DEFINITION, (digest,)).fetchone())
        return None if row is None else row[0]


def give_back_all(connection: sqlite3.Connection, now: int) -> None:
    """Every worker is gone: this process has just taken the data directory, and nobody else can have one (K8)."""
    connection.execute(sql.WORKERS_END)
    _give_back(connection, [(sid, 0) for sid, _ in connection.execute(sql.HELD).fetchall()], now)


def _backed_off(held: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(sid, backoff_ms(attempts)) for sid, attempts in held]


def _give_back(connection: sqlite3.Connection, sessions: list[tuple[int, int]], now: int) -> int:
    """Nobody owns these (sid, wait in ms) any more; -> how many."""
    connection.executemany(sql.GIVE_BACK, [(now + wait, now, sid) for sid, wait in sessions])
    connection.executemany(sql.HELD_DROP, [(sid,) for sid, _ in sessions])
    return len(sessions)


class _Candidate(NamedTuple):
    """A runnable session in the order of claiming: the namespace with the fewest running turns, then the oldest."""

    running: int
    wake_at_ms: int
    sid: int
    agent: str
    namespace: str


class _Running:
    """How many turns run, and whom a cap keeps from running more."""

    def __init__(self, rows: Iterable[tuple[str, str, int]], caps: Caps) -> None:
        self._caps = caps
        self._agents = {(namespace, agent): count for namespace, agent, count in rows}
        self._namespaces: dict[str, int] = {}
        for (namespace, _), count in self._agents.items():
            self._namespaces[namespace] = self._namespaces.get(namespace, 0) + count

    def of(self, namespace: str) -> int:
        return self._namespaces.get(namespace, 0)

    def namespace_is_full(self, namespace: str) -> bool:
        return 0 < self._caps.per_namespace <= self.of(namespace)

    def agent_is_full(self, namespace: str, agent: str) -> bool:
        return 0 < self._caps.per_agent <= self._agents.get((namespace, agent), 0)

    def add(self, namespace: str, agent: str) -> None:
        self._namespaces[namespace] = self.of(namespace) + 1
        self._agents[namespace, agent] = self._agents.get((namespace, agent), 0) + 1


def _claim(connection: sqlite3.Connection, worker: str, slots: int, caps: Caps, now: int) -> list[Claimed]:
    if connection.execute(sql.WORKER_ALIVE, (worker, now)).fetchone() is None:
        return []
    chosen, asleep = _choose(connection, slots, caps, now)
    connection.executemany(sql.SESSION_SLEEPS, [(sid,) for sid in asleep])
    return [_take(connection, worker, sid, now) for sid in chosen]


def _choose(connection: sqlite3.Connection, slots: int, caps: Caps, now: int) -> tuple[list[int], list[int]]:
    """The sids to claim, and those that were woken with nothing to do."""
    chosen: list[int] = []
    asleep: list[int] = []
    running = _Running(connection.execute(sql.RUNNING), caps)

    def runnable(namespace: str) -> Iterator[tuple[int, int, str]]:
        for wake, sid, agent, something in connection.execute(sql.RUNNABLE, (namespace, now, READER)):
            if not something:
                asleep.append(sid)
            elif not running.agent_is_full(namespace, agent):
                yield wake, sid, agent

    namespaces = [name for (name,) in connection.execute(sql.NAMESPACES_AWAKE).fetchall()]
    queues = {name: runnable(name) for name in namespaces if not running.namespace_is_full(name)}
    heads = [_Candidate(running.of(name), *head, name) for name, queue in queues.items() if (head := next(queue, None))]
    heapify(heads)
    while heads and len(chosen) < slots:
        head = heappop(heads)
        chosen.append(head.sid)
        running.add(head.namespace, head.agent)
        following = None if running.namespace_is_full(head.namespace) else next(queues[head.namespace], None)
        if following is not None:
            heappush(heads, _Candidate(running.of(head.namespace), *following, head.namespace))
    return chosen, asleep


def _take(connection: sqlite3.Connection, worker: str, sid: int, now: int) -> Claimed:
    session = SessionRow(*connection.execute(sql.SESSION, (sid,)).fetchone())
    if session.turn_id is not None:
        turn, queued = TurnRow(*connection.execute(sql.TURN, (sid, session.turn_id)).fetchone()), session.queued
    else:
        turn, queued = TurnRow(*connection.execute(sql.TURNS_QUEUED, (sid, 1)).fetchone()), session.queued - 1
    connection.execute(sql.TURN_CLAIMED, (now, turn.turn_id))
    connection.execute(sql.SESSION_CLAIMED, (worker, turn.turn_id, queued, now, sid))
    connection.execute(sql.HELD_PUT, (sid, worker))
    revision = connection.execute(sql.AGENT_REVISION, (session.namespace, session.agent)).fetchone()
    return Claimed(
        session=SessionRow(*connection.execute(sql.SESSION, (sid,)).fetchone()),
        turn=TurnRow(*connection.execute(sql.TURN, (sid, turn.turn_id)).fetchone()),
        was=turn.state,
        revision=0 if revision is None else revision[0],
    )
