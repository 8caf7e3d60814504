"""What goes wrong, and when: drawn from a seed, aimed at steps that are under way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from soak.fleet import Fleet
from soak.machine import JumpingClock, SmallDisk
from soak.node import Node, NotStarted
from soak.proxy import LossyProxy
from soak.report import Report
from soak.workload import Workload
from support.postgres import PostgresServer

#: A process that is started while the database is away may have to try again.
START_S = 90.0
#: How long a stop by SIGTERM may take: drain 10 s, streams, writer, store.
STOP_S = 40.0
#: A life ends after so long even when readers see hardly anything of it.
LIFE_MAX_S = 20
Fault = Callable[[], Awaitable[None]]


@dataclass
class Chaos:
    """Faults until `stop`. `rivals`: whether a second process on the data directory may start (only without the lock)."""

    fleet: Fleet
    workload: Workload
    report: Report
    rng: random.Random
    lease_s: float
    postgres: PostgresServer | None = None
    proxy: LossyProxy | None = None
    disk: SmallDisk | None = None
    clock: JumpingClock | None = None
    negative: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _disk: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Until `stop`; then everything is up again."""
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for node in self.fleet.workers:
                    group.create_task(self._hurt_worker(node))
                if not self.fleet.embedded:
                    group.create_task(self._lane(self._gateway_faults(), 8.0 if self.negative != "ack_first" else 2.0))
                group.create_task(self._lane(self._world_faults(), 8.0))
        finally:
            watch.cancel()

    async def _lane(self, faults: list[tuple[int, Fault]], every_s: float) -> None:
        while not self.stop.is_set():
            await self._sleep(every_s * (0.5 + self.rng.random()))
            if faults and not self.stop.is_set():
                await self._draw(faults)

    async def _draw(self, faults: list[tuple[int, Fault]]) -> None:
        await self.rng.choices([one for _, one in faults], [weight for weight, _ in faults])[0]()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    # --- workers -----------------------------------------------------------------------------------------------------------

    async def _hurt_worker(self, node: Node) -> None:
        pauses = 30 if self.negative == "no_fence" else 6
        faults: list[tuple[int, Fault]] = [
            (80, lambda: self._kill(node)),
            (6, lambda: self._terminate(node)),
            (pauses, lambda: self._pause_embedded(node) if self.fleet.embedded else self._pause(node)),
        ]
        while not self.stop.is_set():
            await self._live()
            if not self.stop.is_set():
                async with node.busy:
                    await self._draw(faults)

    async def _live(self) -> None:
        """Some time, in which some steps come to their end: or turns would rightly end for want of progress (K13)."""
        seen = self.report.seen["steps streamed"]
        await self._sleep((0.2 if self.fleet.embedded else 1.0) + self.rng.random() * (1.0 if self.fleet.embedded else 4.0))
        for _ in range(LIFE_MAX_S * 20):
            if self.stop.is_set() or self.report.seen["steps streamed"] - seen >= self.workload.load.lanes:
                return
            await asyncio.sleep(0.05)

    async def _aim(self, node: Node) -> None:
        """Wait until readers see a step of that worker under way; after three seconds it is hurt all the same."""
        for _ in range(300):
            if self.workload.under_way(node.name):
                return
            await asyncio.sleep(0.01)

    async def _kill(self, node: Node) -> None:
        await self._aim(node)
        await node.kill()
        self.report.faults["kill worker"] += 1
        # Now and then the others have to find out by the lease.
        if not self.fleet.embedded and self.rng.random() < 0.2:
            await self._sleep(self.lease_s + 2 * self.rng.random())
        await self.up(node)

    async def _terminate(self, node: Node) -> None:
        self.report.faults["SIGTERM worker"] += 1
        await self._stopped(node)
        await self.up(node)

    async def _stopped(self, node: Node) -> None:
        began = time.monotonic()
        try:
            code = await node.stop(STOP_S)
        except TimeoutError:
            self.report.violation("SIGTERM", f"{node.name} did not end within {STOP_S} s:\n{node.tail()}")
            return
        took_s = time.monotonic() - began
        self.report.seen["longest SIGTERM ms"] = max(self.report.seen["longest SIGTERM ms"], int(took_s * 1000))
        if code != 0:
            self.report.violation("SIGTERM", f"{node.name} ended with {code}:\n{node.tail()}")

    async def _pause(self, node: Node) -> None:
        await self._aim(node)
        self.report.faults["SIGSTOP worker"] += 1
        node.pause()
        await asyncio.sleep(self.lease_s + 0.5 + 3 * self.rng.random())
        node.go_on()

    async def _pause_embedded(self, node: Node) -> None:
        """Stopped, and meanwhile somebody starts a second process on the data directory, which must be refused (K8)."""
        await self._aim(node)
        self.report.faults["SIGSTOP worker"] += 1
        rival = Node("rival", node.command, node.directory, node.env)
        node.pause()
        try:
            await rival.start()
        except NotStarted:
            self.report.seen["rivals refused"] += 1
        else:
            if self.negative != "no_fence":
                self.report.violation("two processes", f"a second process started on the data directory of {node.name}")
        node.go_on()
        await self._sleep(4.0 if rival.state == "up" else 0.0)
        await rival.kill()

    async def up(self, node: Node) -> None:
        """Start it, if need be again and again while the database is away."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                await node.start()
                self.report.seen["longest start ms"] = max(self.report.seen["longest start ms"], int(node.ready_s * 1000))
                return
            except NotStarted as error:
                self.report.seen["starts refused"] += 1
                if time.monotonic() > deadline:
                    self.report.violation("start", str(error))
                    return
            await asyncio.sleep(0.3)

    # --- gateways ----------------------------------------------------------------------------------------------------------

    def _gateway_faults(self) -> list[tuple[int, Fault]]:
        async def kill() -> None:
            node = self.rng.choice(self.fleet.gateways)
            async with node.busy:
                await node.kill()
                self.report.faults["kill gateway"] += 1
                await self.up(node)

        async def terminate() -> None:
            node = self.rng.choice(self.fleet.gateways)
            async with node.busy:
                self.report.faults["SIGTERM gateway"] += 1
                await self._stopped(node)
                await self.up(node)

        async def pause() -> None:
            node = self.rng.choice(self.fleet.gateways)
            async with node.busy:
                self.report.faults["SIGSTOP gateway"] += 1
                node.pause()
                await asyncio.sleep(1 + 5 * self.rng.random())
                node.go_on()

        return [(5, kill), (2, terminate), (3, pause)]

    # --- the world ---------------------------------------------------------------------------------------------------------

    def _world_faults(self) -> list[tuple[int, Fault]]:
        faults: list[tuple[int, Fault]] = []
        if self.proxy is not None:
            faults.append((10, self._cut))
        if self.postgres is not None:
            faults += [(2, self._restart_postgres), (2, self._kill_postgres)]
        if self.disk is not None:
            faults.append((4, self._fill_disk))
        if self.clock is not None:
            faults.append((4, self._jump))
        return faults

    async def _cut(self) -> None:
        assert self.proxy is not None
        self.report.faults["answer lost after COMMIT"] += 1
        self.proxy.cut(self.rng.choice((1, 1, 3, 8)))

    async def _restart_postgres(self) -> None:
        assert self.postgres is not None
        self.report.faults["PostgreSQL restarted"] += 1
        await asyncio.to_thread(self.postgres.restart)

    async def _kill_postgres(self) -> None:
        assert self.postgres is not None
        self.report.faults["PostgreSQL killed"] += 1
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(self.rng.random() * 2)
        await asyncio.to_thread(self.postgres.start)

    async def _fill_disk(self) -> None:
        assert self.disk is not None
        self.report.faults["disk full"] += 1
        await asyncio.to_thread(self.disk.fill)
        await asyncio.sleep(0.5 + self.rng.random() * 3)
        self.disk.free()

    async def _jump(self) -> None:
        assert self.clock is not None
        self.report.faults["clock jumped"] += 1
        self.clock.jump(self.rng)

    async def _watch(self) -> None:
        """A process that ends by itself is a defect, whatever was done to what it stands on."""
        while True:
            await asyncio.sleep(0.5)
            for node in self.fleet.nodes:
                if node.state == "up" and not node.alive and not node.busy.locked():
                    async with node.busy:
                        if node.state == "up" and not node.alive:
                            assert node.process is not None
                            self.report.violation(
                                "process ended", f"{node.name} ended by itself with {node.process.returncode}:\n{node.tail()}"
                            )
                            await self.up(node)
