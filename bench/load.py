"""The load generator, a process of its own: a job as JSON on stdin, its result as JSON on stdout.

    closed   `sessions` clients, each posting one turn after the other for `seconds`, each turn in a new session
    burst    `sessions` clients at once, one turn each
    serial   one client, `turns` turns in the same session, `sessions` times; with `database`, the WAL bytes of each turn

Every client has a connection of its own, open before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import msgspec
import uvloop

from bench.stats import percentile
from bench.wire import Connection, Timing

TIMEOUT_S = 120.0
WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
#: More connections at once than a listening socket takes at once are opened in groups.
OPEN_AT_ONCE = 100


class Job(msgspec.Struct):
    """What to do. `path` and `body` may hold {session}; `tag` makes session names unique within a database."""

    kind: str
    url: str
    path: str
    body: str
    tag: str
    sessions: int
    seconds: float = 0.0
    turns: int = 0
    database: str = ""


class Load:
    """Runs one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        address = urlsplit(job.url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._count = 0
        self._timings: list[Timing] = []

    def _session(self) -> str:
        self._count += 1
        return f"{self._job.tag}-{self._count}"

    def _request(self, session: str) -> bytes:
        job = self._job
        body = job.body.replace("{session}", session).encode()
        return (
            f"POST {job.path.replace('{session}', session)} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def _turn(self, connection: Connection, session: str) -> Timing:
        timing = await connection.turn(self._request(session), TIMEOUT_S)
        self._timings.append(timing)
        return timing

    async def run(self) -> dict[str, Any]:
        """-> turns, errors, wall time, latencies; for serial jobs the cost of each turn."""
        job = self._job
        clients: list[Connection] = []
        wanted = 1 if job.kind == "serial" else job.sessions
        while len(clients) < wanted:
            some = min(OPEN_AT_ONCE, wanted - len(clients))
            clients += await asyncio.gather(*(Connection.open(self._host, self._port) for _ in range(some)))
        began_s = time.perf_counter()
        more: dict[str, Any] = {}
        match job.kind:
            case "closed":
                await asyncio.gather(*(self._closed(client, began_s + job.seconds) for client in clients))
            case "burst":
                await asyncio.gather(*(self._turn(client, self._session()) for client in clients))
            case "serial":
                more = await self._serial(clients[0])
            case _:
                raise ValueError(f"{job.kind!r} is no kind of job")
        wall_s = time.perf_counter() - began_s
        for client in clients:
            client.close()
        return {**self._summary(wall_s), **more}

    async def _closed(self, client: Connection, until_s: float) -> None:
        while time.perf_counter() < until_s:
            if (await self._turn(client, self._session())).error:
                client = await Connection.open(self._host, self._port)

    async def _serial(self, client: Connection) -> dict[str, Any]:
        job = self._job
        database = await cast(Any, asyncpg).connect(job.database) if job.database else None
        per_session: list[dict[str, list[float]]] = []
        for _ in range(job.sessions):
            session, ms, wal = self._session(), list[float](), list[float]()
            for _ in range(job.turns):
                before = int(await database.fetchval(WAL)) if database else 0
                ms.append((await self._turn(client, session)).done_s * 1000)
                wal.append(int(await database.fetchval(WAL)) - before if database else 0)
            per_session.append({"ms": ms, "wal": wal})
        if database:
            await database.close()
        return {"serial": per_session}

    def _summary(self, wall_s: float) -> dict[str, Any]:
        good = [timing for timing in self._timings if not timing.error]
        errors = [timing.error for timing in self._timings if timing.error]
        done = [timing.done_s * 1000 for timing in good]
        first = [timing.first_s * 1000 for timing in good if timing.first_s]
        return {
            "turns": len(good),
            "errors": len(errors),
            "error_samples": sorted(set(errors))[:3],
            "wall_s": wall_s,
            "turns_s": len(good) / wall_s,
            "done_ms": {"p50": percentile(done, 0.5), "p99": percentile(done, 0.99)} if done else None,
            "first_ms": {"p50": percentile(first, 0.5), "p95": percentile(first, 0.95)} if first else None,
        }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(Load(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)).run())))
