"""The composition root: the only place that names a concrete store, the system's clock and random ids.

    up       gateway + worker in one process, on SQLite or PostgreSQL
    gateway  HTTP only, PostgreSQL           worker  turns only, PostgreSQL (its port answers health questions)
                                             scheduler  schedules only, the same

Started from the store upwards, stopped in the opposite order: no new requests, streams closed, turns drained, writer, store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import msgspec

from talon.access.lines import Lines
from talon.access.room import Room
from talon.cli.access import first_key, lines_of, room_of, wall_of
from talon.cli.configured import provider_configs
from talon.cli.errors import WrongUse, found_here, make_data_dir
from talon.cli.keyring import open_vault
from talon.cli.load import PostgresAt, SqliteAt, broker_of, database_of, secret_of, worker_name_of
from talon.cli.scheduler_settings import is_active
from talon.cli.settings import Settings
from talon.cli.system import SystemClock, SystemIds
from talon.dispatch.brokers.local import LocalBroker
from talon.domain.bell import Bell
from talon.domain.errors import Conflict, TalonError
from talon.domain.inbox import Receipt
from talon.domain.models import Models
from talon.domain.quota import Quota
from talon.manifest import catalogue
from talon.manifest.read import DEFAULT_NAMESPACE
from talon.manifest.state import bare_namespace
from talon.providers.catalogue import load_models
from talon.providers.keys import secret_key
from talon.providers.protocol import Key
from talon.providers.registry import Providers, build_providers
from talon.providers.traffic import Traffic
from talon.store.model import Caps
from talon.store.protocols import Store, Where
from talon.store.resources import Changes, PutResource
from talon.store.sight import NO_WALL, Wall, seeing
from talon.store.writer import Committed, JournalWriter
from talon.tools.builtin.wakeups import Wakeups
from talon.tools.registry import Registry
from talon.turn.context import ContextCache, ContextLimits
from talon.turn.definition import Definitions
from talon.turn.model_step import ModelStep
from talon.turn.runner import TurnDeps
from talon.turn.tool_step import ToolStep
from talon.vault.vault import Vault
from talon.worker.lease import FileLease, HeartbeatLease, Lease
from talon.worker.worker import Worker, WorkerSettings

Role = Literal["up", "gateway", "worker", "scheduler"]
log = logging.getLogger("talon")


@dataclass
class Runtime:
    """What a process is made of. `bells` rings for whoever listens in this process."""

    role: Role
    settings: Settings
    clock: SystemClock
    ids: SystemIds
    store: Store
    writer: JournalWriter
    bells: LocalBroker
    vault: Vault
    room: Room
    lines: Lines | None = None
    wall: Wall = NO_WALL
    publish_to: list[Callable[[Sequence[Committed]], None]] = field(default_factory=list[Callable[[Sequence[Committed]], None]])
    vital: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def broken(self) -> str:
        """Why the process cannot go on; empty while it can. Nothing that was accepted is lost by ending it."""
        if not self.writer.alive:
            return "the journal writer has died: see the log, and start again"
        for task in self.vital:
            if task.done():
                error = task.exception()
                return error.detail if isinstance(error, TalonError) else f"the {task.get_name()} has died: {error!r}"
        return ""

    def published(self, committed: Sequence[Committed]) -> None:
        """After a commit of this process: readers get the entries, workers hear the bell."""
        for listener in self.publish_to:
            listener(committed)
        tails = tuple((one.sid, one.base + len(one.entries)) for one in committed if one.entries)
        self.bells.ring(Bell(runnable=any(one.runnable for one in committed), tails=tails))


@contextlib.asynccontextmanager
async def open_runtime(role: Role, settings: Settings) -> AsyncGenerator[Runtime]:
    """Store, writer and bells, ready to serve; everything is closed on the way out.

    Raises `WrongUse` for a role that the database does not allow, `Unavailable` when it cannot be reached or is newer.
    """
    clock, ids = SystemClock(), SystemIds()
    store = await open_store(settings, ids, clock, role)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        applied = await store.migrate()
        if applied:
            log.info("database migrated: %s", ", ".join(map(str, applied)))
        vault = open_vault(settings, store, clock)
        await vault.finish()
        await _default_namespace(store, ids)
        if role in ("up", "gateway"):
            await first_key(settings.gateway.auth, settings.data_dir, store, clock)
        wall = await wall_of(settings.gateway.auth, store) if role in ("up", "gateway") else NO_WALL
        bells = LocalBroker()
        writer = JournalWriter(store, lambda committed: runtime.published(committed))
        lines = lines_of(settings.gateway, settings.data_dir) if role in ("up", "gateway") else None
        if lines is not None:
            stack.callback(lines.close)
        room = room_of(settings.gateway, store, clock)
        runtime = Runtime(role, settings, clock, ids, store, writer, bells, vault, room, lines, wall)
        await runtime.writer.start()
        stack.push_async_callback(runtime.writer.close)
        if broker_of(settings) == "postgres":
            await stack.enter_async_context(_postgres_bells(settings, store, bells))
        yield runtime


async def _default_namespace(store: Store, ids: SystemIds) -> None:
    """The namespace that always exists."""
    if await store.get_resource("", "Namespace", DEFAULT_NAMESPACE) is None:
        body = msgspec.json.encode(bare_namespace(DEFAULT_NAMESPACE))
        put = PutResource("", "Namespace", DEFAULT_NAMESPACE, ids.uuid7(), 0, body)
        with contextlib.suppress(Conflict):  # another process was first
            await store.change(Changes(puts=(put,)))


async def open_store(settings: Settings, ids: SystemIds, clock: SystemClock, role: Role | None = None) -> Store:
    """The store that the settings name. SQLite is one process: `gateway` and `worker` alone need PostgreSQL."""
    database = database_of(settings)
    if isinstance(database, SqliteAt):
        if role in ("gateway", "worker", "scheduler"):
            raise WrongUse(
                f"`talon {role}` runs beside other processes and needs PostgreSQL: set DATABASE_URL=postgresql://… "
                "(on SQLite everything is one process: `talon up`)"
            )
        from talon.store import sqlite

        make_data_dir(database.path.parent)
        return await sqlite.open_store(database.path, clock, ids)
    from talon.store import postgres

    with found_here():
        return await postgres.open_store(database.url, ids, notify=broker_of(settings) == "postgres")


@contextlib.asynccontextmanager
async def _postgres_bells(settings: Settings, store: Store, bells: LocalBroker) -> AsyncGenerator[None]:
    """Bells of other processes ring here too."""
    from talon.dispatch.brokers.postgres import PostgresBroker
    from talon.store.postgres import PostgresStore

    database = database_of(settings)
    if not isinstance(database, PostgresAt) or not isinstance(store, PostgresStore):
        raise AssertionError("checked by the settings")
    broker = PostgresBroker(database.url, is_ours=store.is_ours, others=store.heard)
    broker.listen(bells.ring)
    await broker.start()
    try:
        yield
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def open_worker(runtime: Runtime) -> AsyncGenerator[Worker]:
    """A registered worker that claims; drained on the way out. Its end by a defect ends the process."""
    settings = runtime.settings
    with found_here():
        registry, providers = await _load(runtime)
        models = load_models(providers.catalogue(), runtime.settings.models.catalogue)
    cache = ContextCache()
    context = settings.context
    limits = ContextLimits(
        context.entries_max, context.chars_max, context.tool_result_chars_max, context.images_max, context.images_max_bytes
    )
    lease = _lease(runtime)
    names = tuple(info.name for info in providers.catalogue())
    traffic = Traffic(runtime.store, runtime.clock, _quotas(settings), models)

    def deps(worker: str) -> TurnDeps:
        return TurnDeps(
            journal=runtime.store,
            writer=runtime.writer,
            definitions=Definitions(runtime.store, registry, names, models),
            models=ModelStep(providers, runtime.store, runtime.clock, limits, traffic),
            tools=ToolStep(runtime.ids),
            clock=runtime.clock,
            ids=runtime.ids,
            cache=cache,
            context_limits=limits,
            lease_alive=lease.alive,
            worker=worker,
            attempts_max=settings.worker.attempts_max,
            cancel_grace_s=settings.worker.cancel_grace_s,
        )

    worker = Worker(
        runtime.store, deps, lease, runtime.clock, runtime.ids, _worker_settings(runtime.role, settings, registry, names, models)
    )
    await worker.register()
    runtime.bells.listen(worker.hear)
    task = asyncio.create_task(worker.run(), name="worker")
    runtime.vital.append(task)
    try:
        yield worker
    finally:
        await worker.stop()
        await asyncio.wait({task})
        await providers.close()
        await registry.close()


async def _load(runtime: Runtime) -> tuple[Registry, Providers]:
    from talon.tools.builtin import builtin_toolset
    from talon.tools.builtin.wakeups import WakeupTools
    from talon.tools.registry import load_toolsets

    settings = runtime.settings
    http = settings.tools.http_request
    builtin = builtin_toolset(
        runtime.clock, allow_hosts=http.allow_hosts, idempotent_hosts=http.idempotent_hosts, timeout_s=http.timeout_s
    )
    registry = load_toolsets(settings.tools.modules, settings.tools.path, [builtin, WakeupTools(_wakeups(runtime))])
    configs = await provider_configs(settings, lambda provider, given: _key(runtime, provider, given))
    return registry, build_providers(configs)


def _wakeups(runtime: Runtime) -> Wakeups:
    """The wakeups that agents make for their sessions: resources, written from here as a gateway writes them."""
    from talon.gateway.deleting import Deletions
    from talon.gateway.resources import Resources
    from talon.gateway.wakeups import SessionWakeups
    from talon.tools.builtin.wakeups import WAKEUPS_MAX

    def changed(namespaces: Sequence[str]) -> None:
        runtime.bells.ring(Bell(namespaces=tuple(namespaces)))

    ahead_ms = ahead_ms_of(runtime.settings)
    resources = Resources(runtime.store, runtime.ids, runtime.vault, changed, now_ms=runtime.clock.now_ms, ahead_ms=ahead_ms)
    return SessionWakeups(runtime.store, resources, Deletions(runtime.store, changed), WAKEUPS_MAX)


async def _key(runtime: Runtime, provider: str, given: str) -> Key:
    """The key itself, or what reads the secret that is meant; one that is not there yet is worth a word now."""
    secret = secret_of(given)
    if secret is None:
        return given
    namespace, name = secret
    if await runtime.store.get_sealed(namespace, name) is None:
        log.warning(
            "providers.%s.api_key: secret %r of namespace %r has no value yet; turns that need it are denied until it has",
            provider,
            name,
            namespace,
        )
    return secret_key(runtime.vault, provider, namespace, name, f"worker/{worker_name_of(runtime.settings, runtime.role)}")


def _lease(runtime: Runtime) -> Lease:
    database = database_of(runtime.settings)
    if isinstance(database, SqliteAt):
        return FileLease()
    from talon.store import postgres

    url, ids = database.url, runtime.ids
    return HeartbeatLease(lambda: postgres.open_store(url, ids, notify=False), runtime.settings.worker.lease_ttl_s, runtime.clock)


#: On SQLite the lock on the data directory is the lease; the row must not end before the process does.
FOREVER_S = 10 * 365 * 86_400.0


def _quotas(settings: Settings) -> dict[str, Quota]:
    return {name: Quota(one.requests_per_minute, one.tokens_per_minute) for name, one in settings.providers.items()}


def _worker_settings(
    role: Role, settings: Settings, registry: Registry, providers: tuple[str, ...], models: Models
) -> WorkerSettings:
    toolsets = {name: tuple(tool["name"] for tool in tools) for name, tools in registry.catalogue().items()}
    embedded = isinstance(database_of(settings), SqliteAt)
    worker = settings.worker
    return WorkerSettings(
        name=worker_name_of(settings, role),
        concurrency=worker.concurrency,
        ttl_s=FOREVER_S if embedded else worker.lease_ttl_s,
        sweep_s=worker.sweep_s,
        drain_timeout_s=worker.drain_timeout_s,
        caps=Caps(worker.namespace_turns_max, worker.agent_turns_max),
        catalogue=catalogue.encode(catalogue.Catalogue(toolsets, tuple(sorted(providers)), tuple(models))),
    )


def open_gateway(runtime: Runtime, worker: Worker | None, *, health_only: bool = False) -> tuple[Any, Any]:
    """-> (the ASGI application, what a gateway is given); `health_only` is a worker's own port.

    A `worker` of this process with a free slot takes turns in the commit that accepts them.
    """
    from talon.gateway.accesslog import Told
    from talon.gateway.deps import GatewayDeps
    from talon.gateway.holding import Holding
    from talon.gateway.hub import StreamHub
    from talon.gateway.plane import control_plane

    settings = gateway_settings(runtime.settings)
    hub = StreamHub(runtime.store, runtime.clock, settings, shared=broker_of(runtime.settings) == "postgres")
    plane = control_plane(runtime.store, runtime.writer, hub, runtime.ids, runtime.vault, settings)
    if not health_only:
        runtime.publish_to.append(hub.publish)
        runtime.bells.listen(lambda bell: _poke(hub, plane, bell))
    deps = GatewayDeps(
        store=runtime.store,
        writer=runtime.writer,
        hub=hub,
        clock=runtime.clock,
        ids=runtime.ids,
        sealer=runtime.vault,
        plane=plane,
        access=runtime.room.access,
        holding=Holding(runtime.room.access.authenticator, settings, runtime.clock),
        told=Told(runtime.room.access.log, runtime.clock, runtime.lines.write if runtime.lines else None),
        version=version("talon-runtime"),
        settings=settings,
        wall=runtime.wall,
        **({} if worker is None or health_only else _hooks(worker)),
    )
    if health_only:
        from talon.gateway.http.ownport import create_app
    else:
        from talon.gateway.http.app import create_app  # with FastAPI, a third of what is imported: workers do without
    return create_app(deps), deps


def _hooks(worker: Worker) -> dict[str, Any]:
    from talon.gateway.deps import Offer

    async def offer(_: Where) -> Offer | None:
        return Offer(worker.id, worker.first_entries) if worker.promise() else None

    def started(receipt: Receipt) -> None:
        if receipt.claimed is None:
            raise AssertionError("only a claimed turn is started")
        with seeing(None):  # the turn is not its sender's
            worker.take(*receipt.claimed, receipt.entries)

    def declined(_: Offer) -> None:
        worker.decline()

    return {"offer": offer, "started": started, "declined": declined}


def _poke(hub: Any, plane: Any, bell: Bell) -> None:
    if bell.everything:
        hub.poke_all()
        plane.watches.changed_anywhere()
    for sid, last_seq in bell.tails:
        hub.poke(sid, last_seq)
    plane.watches.changed(bell.namespaces)


def ahead_ms_of(settings: Settings) -> int:
    """How long before it is due Cloud Tasks is told of an occurrence; 0 where it is not."""
    if not is_active(settings):
        return 0
    from talon.dispatch.schedules.cloudtasks.announcer import AHEAD_MS

    return AHEAD_MS


def gateway_settings(settings: Settings) -> Any:
    """The gateway's own values from the program's settings."""
    from talon.gateway.deps import GatewaySettings

    gateway = settings.gateway
    return GatewaySettings(
        host=gateway.host,
        port=gateway.port,
        allowed_hosts=gateway.allow_hosts,
        allowed_origins=gateway.allow_origins,
        body_max=gateway.body_max_bytes,
        message_max=gateway.message_max_bytes,
        image_max=gateway.image_max_bytes,
        images_max=gateway.message_images_max,
        metadata_max=gateway.metadata_max_bytes,
        queue_max=settings.session.queue_max,
        heartbeat_s=gateway.heartbeat_s,
        headers_max=gateway.headers_max_bytes,
        page_max=gateway.page_max,
        connections_max=gateway.connections_max,
        streams_max=gateway.streams_max,
        principal_streams_max=gateway.principal_streams_max,
        principal_requests_per_s=gateway.principal_requests_per_s,
        principal_requests_burst=gateway.principal_requests_burst,
        browser_session_max_s=gateway.auth.session_max_s,
        stream_buffer_max=gateway.stream_buffer_bytes,
        schedules_ahead_ms=ahead_ms_of(settings),
    )
