"""Stores of Talon filled to a size, each with the booted product over it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench import asks, machine
from bench.asks import NAMESPACE, TEMPLATES, Client
from bench.counted import Steps
from bench.database import Database
from bench.node import Node
from talon.cli.system import SystemClock, SystemIds
from talon.store.postgres import open_store
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database as Sqlite

#: Agents that one transaction of the filling writes.
BATCH = 1_000


@dataclass
class World:
    """One store, filled to `size` agents, and Talon on it. `url` is its database, empty for SQLite."""

    size: int
    name: str
    directory: Path
    postgres: Database | None
    url: str = ""
    node: Node | None = field(default=None, repr=False)
    steps: Steps | None = field(default=None, repr=False)
    asked: dict[str, int] = field(default_factory=dict[str, int], repr=False)

    def make(self) -> None:
        """Fill it: the first agents over HTTP, the others as copies of them, straight into the store."""
        (self.directory / "data").mkdir(parents=True)
        if self.postgres is not None:
            self.url = self.postgres.create()
        with_http = self.start()
        with_http.ask("POST", "/v1/namespaces", json.dumps({"name": NAMESPACE}))
        with_http.apply("".join(asks.TEMPLATE.format(number=number) for number in range(TEMPLATES)))
        with_http.apply("".join(asks.agent(number, self.size) for number in range(min(10, self.size))))
        with_http.close()
        self.stop()
        asyncio.run(self._fill())
        if self.postgres is not None:
            self.postgres.settle(self.url)

    def start(self, *, counted: bool = False) -> Client:
        """Start Talon, on SQLite with its steps counted if wanted; -> a client."""
        program = ["-m", "talon"]
        if counted and self.postgres is None:
            file = self.directory / "steps"
            self.steps = Steps(file)
            program = ["-m", "bench.counted", str(file)]
        command = [sys.executable, *program, "up", "--port", "0", "--data-dir", "data"]
        env = {"PYTHONPATH": f"{machine.ROOT / 'src'}:{machine.ROOT}"} | ({"DATABASE_URL": self.url} if self.url else {})
        self.node = Node(self.name, command, self.directory, env)
        return Client(self.node.url, self.size)

    def stop(self) -> None:
        """End Talon."""
        if self.node is not None:
            self.node.stop()
            self.node = None

    def cpu_ns(self) -> list[dict[int, int]]:
        """CPU so far of Talon's process and, if it has one of its own, of the database's, by process id."""
        assert self.node is not None
        pids = [[self.node.pid], *([self.postgres.backends(self.url)] if self.postgres is not None else [])]
        return [{pid: machine.busy_ns(pid) for pid in group} for group in pids]

    def reads(self) -> dict[str, int]:
        """What was read so far."""
        if self.postgres is not None:
            return self.postgres.reads(self.url)._asdict()
        assert self.steps is not None
        return {"steps": self.steps.total()}

    async def _fill(self) -> None:
        store: Store
        if self.postgres is not None:
            store = await open_store(self.url, SystemIds())
        else:
            store = SqliteStore(Sqlite(self.directory / "data" / "talon.db", SystemClock()))
        try:
            patterns = [await _pattern(store, number) for number in range(TEMPLATES)]
            for first in range(10, self.size, BATCH):
                block = range(first, min(first + BATCH, self.size))
                await store.change(Changes(tuple(self._copy(patterns[number % TEMPLATES], number) for number in block)))
            await store.forget_events()
        finally:
            await store.close()

    def _copy(self, pattern: PutResource, number: int) -> PutResource:
        name, labels = asks.name_of(number), asks.labels_of(number, self.size)
        assert pattern.body is not None
        body = msgspec.json.decode(pattern.body)
        body["metadata"] |= {"name": name, "labels": labels}
        uid = f"{number:08}-0000-7000-8000-000000000000"
        return msgspec.structs.replace(pattern, name=name, uid=uid, labels=labels, body=msgspec.json.encode(body, order="sorted"))


async def _pattern(store: Store, number: int) -> PutResource:
    """What would create the agent of that number once more."""
    identity = (NAMESPACE, "Agent", asks.name_of(number))
    row = await store.get_resource(*identity)
    assert row is not None
    revision = await store.get_revision(NAMESPACE, row.name, row.revision)
    assert revision is not None
    refs = (await store.refs_of([identity]))[identity]
    return PutResource(
        *identity, uid=row.uid, if_generation=0, body=row.body, refs=refs, effective=revision.effective, digest=revision.digest
    )
