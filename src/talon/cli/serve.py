"""`talon up`, `talon gateway`, `talon worker`, `talon scheduler`: run until SIGTERM or Ctrl-C, then leave in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

from talon.cli import collector
from talon.cli.access import tls_of
from talon.cli.errors import Failed
from talon.cli.load import grpc_port_of, port_of, secret_of
from talon.cli.runtime import Role, Runtime, open_gateway, open_runtime, open_worker
from talon.cli.scheduling import open_scheduler, own_port, schedules
from talon.cli.settings import Settings
from talon.worker.worker import Worker

if TYPE_CHECKING:
    from talon.dispatch.schedules.cloudtasks.callbacks import Callbacks
    from talon.gateway.tls import TlsFiles

log = logging.getLogger("talon")
WATCH_S = 0.5
#: What calls under way get to finish.
GRACE_S = 5.0
#: Roles whose port answers health questions, and the calls of Cloud Tasks if it calls.
HEALTH_ONLY: tuple[Role, ...] = ("worker", "scheduler")
_SECRET_NAME = re.compile(r"(?:password|secret|token|key)$", re.IGNORECASE)


def serve(role: Role, settings: Settings) -> int:
    """Run the process; -> its exit code: 0 after an orderly end, 1 when it could not go on."""
    from talon.observe import logs, setup

    logs.configure(settings.observe.log_level, settings.observe.log_format, secrets=tuple(_secrets(settings)))
    shutdown_traces = setup.configure(settings.observe.exporter, settings.observe.otlp_endpoint)
    try:
        with _fast_loop() as runner:
            return runner.run(_main(role, settings))
    finally:
        shutdown_traces()


def _fast_loop() -> asyncio.Runner:
    """uvloop where it is installed (it comes with uvicorn[standard]; not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _secrets(settings: Settings) -> Iterator[str]:
    """What no log line may show: of the settings each secret, its parts, and what stands in URLs as a password."""
    from talon.observe.logs import parts

    for provider in settings.providers.values():
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        if secret_of(key) is None:
            yield from parts(key)
    auth, database, tasks = settings.gateway.auth, settings.control_plane.database, settings.control_plane.scheduler.cloud_tasks
    for one in (auth.bootstrap_key, auth.jwt.secret, auth.oidc.client_secret, tasks.secret):
        yield one.get_secret_value() if one else ""
    for key in settings.secrets.key.get_secret_value().split(",") if settings.secrets.key else ():
        yield key.strip()
    yield from _in_url(database.url.get_secret_value() if database.url else "")


def _in_url(url: str) -> Iterator[str]:
    """The password of a URL, and what its query has under such a name; as it is written and as it is meant."""
    found = urlsplit(url)
    fields = (pair.partition("=") for pair in found.query.split("&"))
    for text in (found.password or "", *(value for name, _, value in fields if _SECRET_NAME.search(name))):
        yield from (text, unquote(text))


async def _main(role: Role, settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, number)
    async with open_runtime(role, settings) as runtime:
        async with contextlib.AsyncExitStack() as stack:
            worker: Worker | None = None
            if role in ("up", "worker"):
                worker = await stack.enter_async_context(open_worker(runtime))
                log.info("worker %s runs up to %d turns", worker.id, settings.worker.concurrency)
            callbacks: Callbacks | None = None
            if schedules(role, settings):
                callbacks = await stack.enter_async_context(open_scheduler(runtime))
            doors = await stack.enter_async_context(_servers(role, runtime, worker, callbacks))
            if role == "up" and settings.apply:
                from talon.cli.apply import apply_at_start  # an HTTP client: only who applies pays for its import
                from talon.gateway.server import inside

                async with inside(doors.app) as path:
                    await apply_at_start(path, runtime.room.inside, settings.apply)
            collector.keep_what_is_there()
            told = (f"talon ready {doors.url}", *(f"talon {what} {where}" for what, where in doors.others.items()))
            print(*told, sep="\n", flush=True)
            broken = await _until(stop, runtime)
            log.info("stopping: no new requests, turns are drained")
        if broken:
            raise Failed(broken)
    return 0


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    """The first one asks for an orderly end, the second one does not ask."""
    if stop.is_set():
        print(f"\n{number.name} again: leaving at once; the journal says where to go on", file=sys.stderr)
        sys.stderr.flush()
        # Nothing is lost: what is not committed was never promised.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    stop.set()


async def _until(stop: asyncio.Event, runtime: Runtime) -> str:
    """Wait for the signal (then empty), or for something vital to end: then why the process must end too (kernel §4)."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_S)
        if broken := runtime.broken():
            return broken
    return ""


class _Doors(NamedTuple):
    """Where this process listens: its base URL, and what else there is by what it is called. `app` is the HTTP application."""

    url: str
    others: dict[str, str]
    app: Any


@contextlib.asynccontextmanager
async def _servers(role: Role, runtime: Runtime, worker: Worker | None, callbacks: Callbacks | None) -> AsyncGenerator[_Doors]:
    """The HTTP side, a gateway's or a worker's own port, and a gateway's gRPC. Requests end before it does."""
    from talon.gateway.server import serve

    tls = tls_of(runtime.settings.gateway.tls)
    host, wanted = runtime.settings.gateway.host, port_of(runtime.settings, role)
    sock = _bound(host, wanted, "--port")
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_ready(host: str, port: int) -> None:
        ready.set_result(_url(host, port, tls))

    app, deps = open_gateway(runtime, worker, health_only=role in HEALTH_ONLY)
    if callbacks is not None and role in HEALTH_ONLY:
        app = own_port(deps, callbacks, runtime.settings)
    beside: set[asyncio.Task[None]] = set()
    if role not in HEALTH_ONLY:
        beside = {
            asyncio.create_task(deps.plane.finisher.run(), name="finisher of deletions"),
            asyncio.create_task(runtime.room.upkeep.run(), name="upkeep of access"),
        }
    if tls is not None:
        beside.add(asyncio.create_task(tls.run(), name="look at certificates"))
    runtime.vital.extend(beside)
    task = asyncio.create_task(serve(app, sock, deps.hub, stop, settings=deps.settings, tls=tls, on_ready=on_ready), name="http")
    grpc: _Grpc | None = None
    others: dict[str, str] = {}
    try:
        async with contextlib.AsyncExitStack() as stack:
            if role not in HEALTH_ONLY and runtime.settings.gateway.grpc:
                grpc = await _grpc(runtime.settings, deps, tls)
                others |= {"grpc": grpc.address} if grpc else {}
            if role not in HEALTH_ONLY and callbacks is not None:
                others["callbacks"] = await stack.enter_async_context(_own_port(runtime.settings, deps, callbacks, tls))
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            yield _Doors(await ready if ready.done() else await _broken(task), others, app)
    finally:
        stop.set()
        if grpc is not None:
            await grpc.server.stop(GRACE_S)
        for one in beside:
            one.cancel()
        if beside:
            await asyncio.wait(beside)
        await task
        await runtime.room.upkeep.close()


def _bound(host: str, port: int, name: str) -> socket.socket:
    from talon.gateway.server import bind

    try:
        return bind(host, port)
    except OSError as error:
        raise Failed(f"cannot listen on {host}:{port}: {error.strerror}; choose another {name} (0 picks one)") from None


def _url(host: str, port: int, tls: TlsFiles | None) -> str:
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextlib.asynccontextmanager
async def _own_port(settings: Settings, deps: Any, callbacks: Callbacks, tls: TlsFiles | None) -> AsyncGenerator[str]:
    """The worker's own port beside the gateway's, in one process; -> where it is."""
    from talon.gateway.server import beside

    scheduler = settings.control_plane.scheduler
    given = "port" in scheduler.cloud_tasks.model_fields_set or settings.gateway.port != 0
    wanted = scheduler.cloud_tasks.port if given else 0
    sock = _bound(settings.gateway.host, wanted, "control_plane.scheduler.cloud_tasks.port")
    host, port = sock.getsockname()[:2]
    async with beside(own_port(deps, callbacks, settings), sock, deps.settings, tls):
        yield _url(host, port, tls)


class _Grpc(NamedTuple):
    server: Any
    address: str


async def _grpc(settings: Settings, deps: Any, tls: Any) -> _Grpc | None:
    """gRPC beside HTTP; None if the port that nobody asked for is taken, which is worth a word."""
    # The library's own words on stderr are no log lines, and what they say is told below.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from talon.gateway.grpc.server import Server

    host, wanted = settings.gateway.grpc_host or settings.gateway.host, grpc_port_of(settings)
    server = Server(deps, tls)
    port = await server.start(host, wanted)
    if port is not None:
        return _Grpc(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    reason = f"cannot listen on {host}:{wanted} for gRPC: it is in use, or not an address of this machine"
    if "grpc_port" in settings.gateway.model_fields_set:
        raise Failed(f"{reason}; choose another --grpc-port (0 picks one)")
    log.warning("%s; gRPC is not served: choose another --grpc-port (0 picks one), or say gateway.grpc = false", reason)
    return None


async def _broken(task: asyncio.Task[None]) -> NoReturn:
    await task
    raise Failed("the HTTP server ended before it was ready")
