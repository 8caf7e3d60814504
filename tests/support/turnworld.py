"""A worker over a real SQLite store, with a model that does what the test says and tools made of functions."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from support.waiting import until
from talon.cli.system import SystemClock, SystemIds
from talon.domain import entries as e
from talon.domain.bell import Bell
from talon.domain.inbox import CancelTurn, Message, Operation, Receipt, ResolveApproval
from talon.domain.models import Models
from talon.domain.session import SessionRow, TurnRow
from talon.manifest.effective import Effective, Limits, Profile, encode
from talon.providers.protocol import ChatEvent, ChatRequest, Finished, TextDelta, ToolCall
from talon.providers.registry import Providers
from talon.providers.traffic import Traffic
from talon.store.model import Append, NewSession
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource
from talon.store.sqlite import SqliteStore
from talon.store.sqlite.connection import Database
from talon.store.writer import Committed, JournalWriter
from talon.tools.loader import PythonToolset
from talon.tools.protocol import Effect, Outcome, ToolContext, ToolSpec
from talon.tools.registry import Registry
from talon.turn.context import ContextCache, ContextLimits
from talon.turn.definition import Definitions
from talon.turn.model_step import ModelStep
from talon.turn.runner import TurnDeps
from talon.turn.tool_step import ToolStep
from talon.worker.lease import FileLease, Lease
from talon.worker.worker import Worker, WorkerSettings

NAMESPACE, AGENT = "acme", "agent"
WAIT_S = 10.0

Act = ChatEvent | Exception | asyncio.Event
Script = Callable[[ChatRequest], Iterable[Act]]
Function = Callable[[dict[str, Any], ToolContext], Awaitable[str]]


# --- the model -------------------------------------------------------------------------------------------------------


def says(text: str = "done") -> list[Act]:
    """An answer."""
    return [TextDelta(text), Finished("stop", e.Usage(10, 5), model="fake-1")]


def asks(*tools: str, arguments: str = "{}", text: str = "") -> list[Act]:
    """An answer that asks for `tools`."""
    calls = tuple(ToolCall(f"call-{number}", name, arguments) for number, name in enumerate(tools, 1))
    return [*([TextDelta(text)] if text else []), Finished("tool_calls", e.Usage(10, 5), calls, model="fake-1")]


def results(request: ChatRequest) -> list[str]:
    """The tool results since the last word of a user."""
    found: list[str] = []
    for message in request.messages:
        if message.role == "user":
            found.clear()
        elif message.role == "tool":
            found.append(message.content)
    return found


def one_tool(name: str) -> Script:
    """Asks for `name`, then answers with its result."""

    def script(request: ChatRequest) -> list[Act]:
        found = results(request)
        return says(f"found: {found[-1]}") if found else asks(name)

    return script


class FakeModel:
    """A fake of a vendor's model. An `asyncio.Event` among its acts is waited for, an exception is raised."""

    def __init__(self, script: Script) -> None:
        self.script, self.requests = script, list[ChatRequest]()

    @property
    def name(self) -> str:
        return "fake"

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        self.requests.append(request)
        for act in self.script(request):
            if isinstance(act, asyncio.Event):
                await act.wait()
            elif isinstance(act, Exception):
                raise act
            else:
                yield act

    async def close(self) -> None:
        """Nothing is open."""


# --- tools -----------------------------------------------------------------------------------------------------------


@dataclass
class FunctionTool:
    """A tool made of an async function."""

    name: str
    function: Function
    effect: Effect = "read"
    found: Outcome = field(default_factory=lambda: Outcome("unknown"))
    timeout_s: float = 30.0
    calls: list[ToolContext] = field(default_factory=list[ToolContext])

    @property
    def spec(self) -> ToolSpec:
        schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}
        return ToolSpec(self.name, "Does what the test says.", schema, self.effect, timeout_s=self.timeout_s)

    def effect_of(self, args: Mapping[str, Any]) -> Effect:
        return self.effect

    async def call(self, args: dict[str, Any], context: ToolContext) -> str:
        self.calls.append(context)
        return await self.function(args, context)

    async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
        return self.found


async def four(args: dict[str, Any], context: ToolContext) -> str:
    """The simplest tool."""
    return "4"


@dataclass
class Held:
    """A tool function that can be seen running and is let go by the test."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False

    async def __call__(self, args: dict[str, Any], context: ToolContext) -> str:
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "let go"


# --- the store, watched ----------------------------------------------------------------------------------------------


class Watched:
    """A store that counts what goes through it, and that may be told to fail. `before` is asked before each call."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self.rows = 0
        self.written = 0
        self.appends: list[Append] = []
        self.before: Callable[[str], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.before is not None:
                await self.before(name)
            result = await method(*args, **kwargs)
            self.calls[name] += 1
            if name.startswith("read_") and name != "read_shared":  # circuits are looked at by the clock, whatever the turns
                self.rows += len(result)
            if name == "commit":
                self.appends += args[0]
                self.written += sum(len(msgspec.json.encode(append)) for append in args[0])
            return result

        return call

    def reset(self) -> None:
        """Count from here."""
        self.calls.clear()
        self.rows = self.written = 0
        self.appends.clear()


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Watched, None]:
    """A migrated SQLite store with the agent in it."""
    store = SqliteStore(Database(path / "talon.db", SystemClock()))
    try:
        await store.migrate()
        yield Watched(store)
    finally:
        await store.close()


def as_store(watched: Watched) -> Store:
    return cast(Store, watched)


async def put_agent(store: Watched, limits: Limits | None = None, profiles: Sequence[str] = ("main",)) -> None:
    """The agent, with the toolset `world`; each profile is a model of the provider `fake`."""
    effective = Effective(
        NAMESPACE,
        AGENT,
        "You help.",
        tuple(Profile(name, "fake", name) for name in profiles),
        tool_refs=("world",),
        limits=limits or Limits(),
    )
    put = PutResource(
        NAMESPACE, "Agent", AGENT, SystemIds().uuid7(), 0, b"{}", effective=encode(effective), digest="1", cause="test"
    )
    space = PutResource("", "Namespace", NAMESPACE, SystemIds().uuid7(), 0, b"{}")
    await store.change(Changes(puts=(space, put)))


# --- a worker --------------------------------------------------------------------------------------------------------


class World:
    """Everything around the workers of one process. Use `world(...)`."""

    def __init__(self, store: Watched, model: FakeModel, tools: Sequence[FunctionTool], **deps: Any) -> None:
        self.store, self.model = store, model
        self.clock, self.ids, self.cache = SystemClock(), SystemIds(), ContextCache()
        self.providers = Providers({}, {"fake": model})
        self.registry = Registry([PythonToolset("world", {tool.spec.name: tool for tool in tools})])
        self.limits = ContextLimits()
        self.workers: list[Worker] = []
        self.writer = JournalWriter(as_store(store), self._published, retry_for_s=1.0)
        self._deps = deps

    def _published(self, committed: Sequence[Committed]) -> None:
        tails = tuple((one.sid, one.base + len(one.entries)) for one in committed if one.entries)
        bell = Bell(runnable=any(one.runnable for one in committed), tails=tails)
        for worker in self.workers:
            worker.hear(bell)

    def deps(self, worker: str, lease: Lease | None = None) -> TurnDeps:
        store = as_store(self.store)
        fields: dict[str, Any] = {
            "journal": store,
            "writer": self.writer,
            "definitions": Definitions(store, self.registry, ("fake",), Models()),
            "models": ModelStep(self.providers, store, self.clock, self.limits, Traffic(store, self.clock)),
            "tools": ToolStep(self.ids),
            "clock": self.clock,
            "ids": self.ids,
            "cache": self.cache,
            "context_limits": self.limits,
            "lease_alive": (lease or FileLease()).alive,
            "worker": worker,
        }
        return TurnDeps(**(fields | self._deps))

    @contextlib.asynccontextmanager
    async def worker(self, name: str = "w1", lease: Lease | None = None, **settings: Any) -> AsyncGenerator[Worker, None]:
        """A worker that runs until the block ends."""
        made = lease or FileLease()
        fields: dict[str, Any] = {"name": name, "ttl_s": 3600.0, "sweep_s": 0.05, "drain_timeout_s": WAIT_S}
        worker = Worker(
            as_store(self.store), lambda id: self.deps(id, made), made, self.clock, self.ids, WorkerSettings(**(fields | settings))
        )
        await worker.register()
        self.workers.append(worker)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await asyncio.wait_for(worker.stop(), WAIT_S)
            await asyncio.wait_for(task, WAIT_S)
            self.workers.remove(worker)

    # --- what a user does ---------------------------------------------------------------------------------------------

    async def session(self, name: str = "s1") -> SessionRow:
        row, _ = await self.store.create_session(NewSession(self.ids.uuid7(), NAMESPACE, AGENT, name))
        return row

    async def deliver(self, operation: Operation) -> Receipt:
        return await self.writer.deliver(operation)

    async def send(self, session: SessionRow, content: str = "go", **more: Any) -> str:
        """-> the turn id."""
        message = Message((NAMESPACE, AGENT, session.id), content, self.ids.uuid7(), **more)
        return (await self.deliver(message)).turn_id

    async def cancel(self, session: SessionRow, turn_id: str) -> None:
        await self.deliver(CancelTurn((NAMESPACE, AGENT, session.id), turn_id))

    async def resolve(self, session: SessionRow, outcome: str, result: str = "") -> None:
        """Answer the only open question."""
        ((row, _),), _ = await self.store.list_approvals(NAMESPACE, "open", "", 10)
        await self.deliver(ResolveApproval((NAMESPACE, AGENT, session.id), row.id, outcome, result))

    async def turn(self, session: SessionRow, turn_id: str) -> TurnRow:
        row = await self.store.get_turn(session.sid, turn_id)
        assert row is not None
        return row

    async def reaches(self, session: SessionRow, turn_id: str, *states: str, within_s: float = WAIT_S) -> TurnRow:
        """The turn's row once it is in one of `states` (by default: ended)."""
        wanted = states or ("completed", "failed", "cancelled", "denied")

        async def there() -> TurnRow | None:
            row = await self.turn(session, turn_id)
            return row if row.state in wanted else None

        found = await until(there, within_s)
        assert found is not None
        return found

    async def journal(self, session: SessionRow) -> list[e.Entry]:
        return await self.store.inner.read_entries(session.sid, 0, 100_000)

    async def types(self, session: SessionRow) -> list[str]:
        return [entry.type for entry in await self.journal(session)]

    async def payloads(self, session: SessionRow, *kinds: type[e.Payload]) -> list[Any]:
        return [p for entry in await self.journal(session) if isinstance(p := entry.decode(), kinds)]


@contextlib.asynccontextmanager
async def world(
    path: Path,
    script: Script,
    *tools: FunctionTool,
    limits: Limits | None = None,
    profiles: Sequence[str] = ("main",),
    **deps: Any,
) -> AsyncGenerator[World, None]:
    """A store, a writer, an agent; workers are started by the test."""
    async with opened(path) as store:
        await put_agent(store, limits, profiles)
        made = World(store, FakeModel(script), tools, **deps)
        await made.writer.start()
        try:
            yield made
        finally:
            await made.writer.close()
