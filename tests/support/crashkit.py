"""The crash kit (kernel §7): a worker in this process that can die at any named point, over a real database.

Death is simulated faithfully: from that instant no call of the dead worker reaches the database, its tasks are cancelled, and the
next boot is a new worker, writer and caches over the same database. What happened outside is counted by a `Counter` that
survives, like the world does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter as Multiset
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from msgspec.structs import replace

from talon.cli.system import SystemClock, SystemIds
from talon.domain.errors import Unavailable
from talon.domain.inbox import Key, Message
from talon.domain.models import Models
from talon.domain.session import SessionRow
from talon.manifest.effective import Effective, Profile, encode
from talon.providers.registry import ProviderConfig, build_providers
from talon.providers.traffic import Traffic
from talon.store.model import NewSession
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource
from talon.store.writer import JournalWriter
from talon.tools.loader import PythonToolset
from talon.tools.protocol import Effect, Outcome, ToolContext, ToolSpec
from talon.tools.registry import Registry
from talon.turn.context import ContextCache, ContextLimits
from talon.turn.definition import Definitions
from talon.turn.model_step import ModelStep
from talon.turn.runner import TurnDeps
from talon.turn.tool_step import ToolStep
from talon.worker.lease import FileLease
from talon.worker.worker import Worker, WorkerSettings

NAMESPACE, AGENT = "acme", "agent"


class Point(StrEnum):
    """Where a worker may die, or only believe that something failed."""

    BEFORE_WRITE = "before a write: it never reached the database"
    AFTER_WRITE = "after a write: it is durable, nobody heard"
    LOST_ANSWER = "the write is durable, its answer was lost, the process lives and asks again"
    BEFORE_EFFECT = "after the intent, before the effect"
    AFTER_EFFECT = "after the effect, before its receipt"


#: The writes of the store that a turn needs: its acceptance, its claim, every commit of the journal, every pin.
WRITES = frozenset({"deliver", "commit", "claim", "put_definition"})


@dataclass
class Plan:
    """Die (or lose an answer) at the `nth` passing of `point`; `nth` 0: never. `seen` counts the passings."""

    point: Point
    nth: int
    seen: int = 0
    fired: bool = False

    def strikes(self, point: Point) -> bool:
        """Whether this is the moment."""
        if point is not self.point or self.nth == 0:
            return False
        self.seen += 1
        if self.seen != self.nth:
            return False
        self.fired = True
        return True


@dataclass
class World:
    """What survives a crash: the count of effects by idempotency key, and what the reconcilable tool's other side knows."""

    attempts: Multiset[str] = field(default_factory=Multiset[str])
    effects: Multiset[str] = field(default_factory=Multiset[str])

    def happen(self, key: str, effect: Effect) -> None:
        """The outside world takes a call: an idempotent one honours its key, the others just happen."""
        self.attempts[key] += 1
        if effect != "idempotent" or not self.effects[key]:
            self.effects[key] += 1


class Mortal:
    """A store through which one worker works. `die` cuts it off: every call hangs until its task is cancelled."""

    def __init__(self, inner: Store, plan: Plan) -> None:
        self._inner, self._plan = inner, plan
        self.dead = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self.alive()
            if name in WRITES and self._plan.strikes(Point.BEFORE_WRITE):
                await self.die()
            result = await method(*args, **kwargs)
            if name in WRITES and self._plan.strikes(Point.AFTER_WRITE):
                await self.die()
            if name == "commit" and self._plan.strikes(Point.LOST_ANSWER):
                raise Unavailable("database_unavailable", "the answer of a commit was lost")
            await self.alive()
            return result

        return call

    async def die(self) -> None:
        """Dead from here on; does not return."""
        self.dead.set()
        await self.alive()

    async def alive(self) -> None:
        """Hang for ever if dead."""
        if self.dead.is_set():
            await asyncio.Event().wait()


class EffectTool:
    """A tool of one effect class that acts on the world, with places to die before and after the effect."""

    def __init__(self, effect: Effect, world: World, mortal: Mortal, plan: Plan) -> None:
        self._effect: Effect = effect
        self._world, self._mortal, self._plan = world, mortal, plan

    @property
    def spec(self) -> ToolSpec:
        parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
        return ToolSpec(f"do_{self._effect}", "Acts on the world.", parameters, self._effect, timeout_s=30)

    def effect_of(self, args: Any) -> Effect:
        return self._effect

    async def call(self, args: dict[str, Any], context: ToolContext) -> str:
        await self._mortal.alive()
        if self._plan.strikes(Point.BEFORE_EFFECT):
            await self._mortal.die()
        self._world.happen(context.key, self._effect)
        if self._plan.strikes(Point.AFTER_EFFECT):
            await self._mortal.die()
        return f"done under {context.key[:8]}"

    async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
        await self._mortal.alive()
        done = self._world.effects[context.key] > 0
        return Outcome("done", "done, says the probe") if done else Outcome("not_done")


SCRIPT = """
rules:
  - when: {step: 1}
    text: "Let me see. "
    chunk_chars: 4
    chunk_delay_ms: 1
    calls: [{tool: do_EFFECT, arguments: {n: 1}}]
  - when: {step: 2}
    calls: [{tool: do_EFFECT, arguments: {n: 2}}, {tool: do_EFFECT, arguments: {n: 3}}]
default: {text: "All done: {{ result }}", chunk_chars: 6, chunk_delay_ms: 1}
"""


@dataclass
class Boot:
    """One life of a worker."""

    mortal: Mortal
    worker: Worker
    writer: JournalWriter
    tasks: list[asyncio.Task[Any]]

    async def accept(self, session: SessionRow, key: str, *, offered: bool) -> str:
        """What this process does with a message: durable under its key (K1, K9), and, if a free slot is `offered`, started in the
        same commit. -> its turn id; hangs when the process dies."""
        worker = self.worker
        op = Message((NAMESPACE, AGENT, session.id), "go", SystemIds().uuid7(), key=Key("http", key, "go"))
        if offered and worker.promise():
            await worker._deps.definitions.pin(session, 1)  # pyright: ignore[reportPrivateUsage] - so that it can start at once
            op = replace(op, offer=worker.id, start=worker.first_entries)
        receipt = await self.writer.deliver(op)
        if receipt.claimed is not None and not receipt.replayed:
            worker.take(*receipt.claimed, receipt.entries)
        elif op.offer:
            worker.decline()
        return receipt.turn_id

    async def end(self) -> None:
        """The end of this life, by a crash or because the test is over: nothing is said to the database."""
        self.mortal.dead.set()
        running = [*self.tasks, *(task for _, task in self.worker._running.values())]  # pyright: ignore[reportPrivateUsage]
        named = {task for task in asyncio.all_tasks() if task.get_name().startswith(("turn ", "journal"))}
        everything: set[asyncio.Task[Any]] = {*running, *named}
        for _ in range(20):
            for task in everything:
                task.cancel()
            if not everything:
                return
            done, everything = await asyncio.wait(everything, timeout=0.5)
            for task in done:
                if not task.cancelled():
                    task.exception()
        raise AssertionError(f"tasks of the dead worker go on: {everything}")


async def boot(store: Store, world: World, plan: Plan, effect: Effect, tmp_script: Any, name: str = "w1") -> Boot:
    """A new life: a worker of the same name takes its own sessions back at once (K8)."""
    mortal: Any = Mortal(store, plan)
    clock, ids = SystemClock(), SystemIds()
    tmp_script.write_text(SCRIPT.replace("EFFECT", effect), encoding="utf-8")
    providers = build_providers({"fake": ProviderConfig(kind="scripted", script=str(tmp_script))})
    tool = EffectTool(effect, world, mortal, plan)
    registry = Registry([PythonToolset("world", {tool.spec.name: tool})])
    writer = JournalWriter(mortal, lambda _: None)
    await writer.start()
    lease, limits = FileLease(), ContextLimits()

    def deps(worker: str) -> TurnDeps:
        return TurnDeps(
            journal=mortal,
            writer=writer,
            definitions=Definitions(mortal, registry, ("fake",), Models()),
            models=ModelStep(providers, mortal, clock, limits, Traffic(mortal, clock)),
            tools=ToolStep(ids),
            clock=clock,
            ids=ids,
            cache=ContextCache(),
            context_limits=limits,
            lease_alive=lease.alive,
            worker=worker,
        )

    worker = Worker(mortal, deps, lease, clock, ids, WorkerSettings(name, ttl_s=3600, sweep_s=0.05))
    await worker.register()
    task = asyncio.create_task(worker.run(), name="worker")
    return Boot(mortal, worker, writer, [task])


async def prepare(store: Store) -> None:
    """An agent with the toolset `world`."""
    effective = Effective(NAMESPACE, AGENT, "You act on the world.", (Profile("main", "fake", "fake-1"),), tool_refs=("world",))
    put = PutResource(
        namespace=NAMESPACE,
        kind="Agent",
        name=AGENT,
        uid=SystemIds().uuid7(),
        if_generation=0,
        body=b"{}",
        effective=encode(effective),
        digest="1",
        cause="test",
    )
    space = PutResource("", "Namespace", NAMESPACE, SystemIds().uuid7(), 0, b"{}")
    await store.change(Changes(puts=(space, put)))


async def new_session(store: Store, name: str) -> SessionRow:
    """A session of the agent."""
    row, _ = await store.create_session(NewSession(SystemIds().uuid7(), NAMESPACE, AGENT, name))
    return row


@contextlib.asynccontextmanager
async def lives(
    store: Store, world: World, plan: Plan, effect: Effect, tmp_script: Any
) -> AsyncGenerator[Callable[[], Awaitable[Boot]]]:
    """Boots that are ended with the block, whatever happens in it."""
    boots: list[Boot] = []

    async def start() -> Boot:
        boots.append(await boot(store, world, plan, effect, tmp_script))
        return boots[-1]

    try:
        yield start
    finally:
        for one in boots:
            await one.end()
