"""A gateway on a real port over a real store and journal writer, without workers: a test plays the worker, step by step."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from starlette.types import ASGIApp

from support import planted
from support.sse import Event, Parser
from support.vaults import vault_on
from talon.access.authenticator import Bearer
from talon.access.oidc import Client
from talon.access.protocol import KeyRequest
from talon.access.recognised import Recognised
from talon.access.roles import EVERYWHERE, LOCAL, Grant
from talon.access.room import asking_room, open_room
from talon.cli.system import SystemClock, SystemIds
from talon.domain import entries as e
from talon.gateway.accesslog import Told
from talon.gateway.deps import GatewayDeps, GatewaySettings
from talon.gateway.holding import Holding
from talon.gateway.http.app import create_app
from talon.gateway.hub import StreamHub
from talon.gateway.plane import control_plane
from talon.gateway.server import bind, serve
from talon.store import postgres, sqlite
from talon.store.model import Append, Appended, Caps, Claimed, Fragment, NewApproval, TurnChange
from talon.store.protocols import Store
from talon.store.writer import Committed, JournalWriter

TEMPLATE = """\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: helper, namespace: acme}
definition:
  customSpec:
    features:
      - {name: tone, type: enum, values: [plain, warm], default: plain}
    modelPolicy:
      profiles:
        - {name: primary, model: {provider: scripted, name: one}}
        - {name: second, model: {provider: scripted, name: two}}
    systemPrompt: You help.
---
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: strict, namespace: acme}
definition:
  customSpec:
    features:
      - {name: customer_id, type: string, required: true}
    modelPolicy:
      profiles:
        - {name: primary, model: {provider: scripted, name: one}}
    systemPrompt: You help.
"""
SESSIONS = "/v1/ns/acme/agents/helper/sessions"


@dataclass
class Hand:
    """A worker played by hand: claims, appends under its fence."""

    store: Store
    writer: JournalWriter
    ids: SystemIds
    worker: str = ""

    async def claim(self) -> Claimed:
        """Take the one session that is runnable."""
        if not self.worker:
            self.worker = await self.store.register("hand", self.ids.uuid7(), 3_600_000, b"{}")
        (claimed,) = await self.store.claim(self.worker, 1, Caps())
        return claimed

    async def append(self, held: Claimed, *payloads: e.Payload, **more: Any) -> Appended:
        """Commit entries of the held turn."""
        turn = held.turn.turn_id
        entries = tuple(e.new_entry(payload, turn) for payload in payloads)
        return await self.writer.append(Append(self.ids.uuid7(), held.session.sid, held.session.fence, entries, **more))

    async def start(self, held: Claimed) -> int:
        """turn.started and model.started; -> the seq of the latter."""
        started = e.TurnStarted(agent="helper", revision=1, worker=self.worker, fence=held.session.fence)
        change = TurnChange(held.turn.turn_id, state="running", revision=1)
        done = await self.append(held, started, e.ModelStarted(iteration=1, provider="scripted", model="one"), turn=change)
        return done.base + 2

    async def say(self, held: Claimed, model: int, offset: int, text: str) -> None:
        """One durable fragment."""
        await self.append(held, fragments=(Fragment(model, offset, text),))

    async def finish(self, held: Claimed, model: int, text: str) -> None:
        """The answer and the end."""
        await self.append(
            held,
            e.ModelFinished(stop_reason="stop"),
            e.MessageCompleted(content=text, model_seq=model),
            e.TurnCompleted(iterations=1),
            turn=TurnChange(held.turn.turn_id, state="completed", reason="answered", progress=True),
            drop_fragments=(model,),
            hold="release",
        )

    async def ask(self, held: Claimed, approval: str) -> None:
        """An unsafe call whose receipt was lost: the turn waits for a human."""
        asked = e.ApprovalRequested(
            approval=approval, kind="uncertain", call=1, name="refund", arguments='{"x":1}', arguments_sha256="ab"
        )
        await self.append(
            held,
            e.ToolUncertain(call=1, key="k", approval=approval),
            asked,
            e.TurnWaiting(kind="approval", approvals=(approval,)),
            turn=TurnChange(held.turn.turn_id, state="waiting", waiting_for="approval"),
            approvals=(NewApproval(approval, held.turn.turn_id, 1, "uncertain", e.new_entry(asked).payload),),
            hold="park",
        )


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Any
    raw: bytes
    body: Any


@dataclass
class Booted:
    """A running gateway and a client of it."""

    url: str
    http: aiohttp.ClientSession
    store: Store
    writer: JournalWriter
    hub: StreamHub
    hand: Hand
    stop: asyncio.Event
    serving: asyncio.Task[None]
    deps: GatewayDeps
    app: ASGIApp
    published: list[Committed] = field(default_factory=list[Committed])

    async def call(self, method: str, path: str, body: Any = None, *, data: Any = None, **headers: str) -> Answer:
        """One request. Header names are given with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            data, named = json.dumps(body).encode(), {"Content-Type": "application/json", **named}
        sent = io.BytesIO(data) if isinstance(data, bytes) else data  # aiohttp warns of large bytes
        async with self.http.request(method, self.url + path, headers=named, data=sent) as answer:
            raw = await answer.read()
            parsed = await answer.json(content_type=None) if "json" in answer.headers.get("content-type", "") and raw else None
            planted.answered(self.url, f"{method} {path}", raw, answer.raw_headers, parsed)
            return Answer(answer.status, answer.headers, raw, parsed)

    async def session(self, name: str = "s1") -> str:
        """Create a session; -> its path."""
        answer = await self.call("POST", SESSIONS, {"id": name})
        assert answer.status == 201, answer
        return f"{SESSIONS}/{name}"

    async def message(self, session: str, content: str = "hello", **headers: str) -> Any:
        """Send a message that must be accepted; -> the receipt."""
        answer = await self.call("POST", session + "/message", {"content": content}, **headers)
        assert answer.status == 202, answer
        return answer.body

    def stream(self, session: str, query: str = "", last_id: str = "") -> Stream:
        """A stream to be entered with `async with`."""
        return Stream(self, f"{session}/stream{query}", {"Last-Event-ID": last_id} if last_id else {})


@dataclass
class Stream:
    """One connection to a stream. `ended` once the server has ended it."""

    gateway: Booted
    path: str
    headers: dict[str, str]
    method: str = "GET"
    body: Any = None
    parser: Parser = field(default_factory=Parser)
    waiting: list[Event] = field(default_factory=list[Event])
    ended: bool = False
    response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Self:
        self.response = await self.gateway.http.request(
            self.method, self.gateway.url + self.path, headers=self.headers, json=self.body, timeout=aiohttp.ClientTimeout(None)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.response is not None
        self.response.close()

    async def next(self, timeout_s: float = 5.0) -> Event | None:
        """The next event; None when the server has ended the stream."""
        assert self.response is not None
        async with asyncio.timeout(timeout_s):
            while not self.waiting:
                chunk = await self.response.content.readany()
                if not chunk:
                    self.ended = True
                    return None
                self.waiting += self.parser.feed(chunk)
        return self.waiting.pop(0)

    async def take(self, count: int) -> list[Event]:
        """So many events; fails if the stream ends before."""
        found: list[Event] = []
        while len(found) < count:
            event = await self.next()
            assert event is not None, f"the stream ended after {[one.type for one in found]}"
            found.append(event)
        return found

    async def rest(self) -> list[Event]:
        """Every event to the stream's end."""
        found: list[Event] = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def comment(self, timeout_s: float = 5.0) -> None:
        """Wait for one more comment (heartbeat)."""
        assert self.response is not None
        have = self.parser.comments
        async with asyncio.timeout(timeout_s):
            while self.parser.comments == have:
                self.waiting += self.parser.feed(await self.response.content.readany())


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


async def _open_store(directory: Path, database: str, clock: SystemClock, ids: SystemIds) -> Store:
    if not database:
        return await sqlite.open_store(directory / "talon.db", clock, ids)
    return await postgres.open_store(database, ids)


@contextlib.asynccontextmanager
async def booted(
    directory: Path,
    *,
    database: str = "",
    shared: bool = False,
    keys: bool = False,
    bearers: Sequence[Bearer] = (),
    oidc: Client | None = None,
    hooks: Mapping[str, Any] | None = None,
    **limits: Any,
) -> AsyncGenerator[Booted]:
    """A gateway with the agents `helper` and `strict` of namespace `acme`, on SQLite, or on the PostgreSQL `database`.

    `keys`: it asks for API keys, and its client has an admin's; `bearers` and `oidc` are further ways to be recognised. `hooks` are
    those of `GatewayDeps`.
    """
    lines = Lines()
    logging.getLogger("talon").addHandler(lines)
    clock, ids = SystemClock(), SystemIds()
    store = await _open_store(directory, database, clock, ids)
    await store.migrate()
    settings = GatewaySettings(**limits)
    hub = StreamHub(store, clock, settings, shared=shared)
    published: list[Committed] = []

    def publish(committed: Sequence[Committed]) -> None:
        published.extend(committed)
        if not shared:  # with other processes the test rings the bells itself
            hub.publish(committed)

    writer = JournalWriter(store, publish)
    await writer.start()
    vault = vault_on(store)
    plane = control_plane(store, writer, hub, ids, vault, settings)
    room = asking_room(store, clock, Recognised(clock), keys=True, bearers=bearers, oidc=oidc) if keys else open_room(store, clock)
    holding = Holding(room.access.authenticator, settings, clock)
    deps = GatewayDeps(
        store,
        writer,
        hub,
        clock,
        ids,
        vault,
        plane,
        room.access,
        holding,
        Told(room.access.log, clock),
        "0.0.0-test",
        settings,
        **(hooks or {}),
    )
    app = create_app(deps)
    upkeep = asyncio.create_task(room.upkeep.run())
    admin = (await room.access.keys.create(LOCAL, KeyRequest("admin", (Grant("admin", EVERYWHERE),)))).secret if keys else ""
    sock, stop = bind("127.0.0.1", 0), asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            app,
            sock,
            hub,
            stop,
            settings=settings,
            on_ready=lambda host, port: ready.set_result(f"http://{host}:{port}"),
            grace_s=2,
        )
    )
    url = ""
    try:
        url = await asyncio.wait_for(ready, 10)
        shown = planted.headers(f"Bearer {admin}" if keys else "")
        async with aiohttp.ClientSession(headers=shown) as http:
            gateway = Booted(url, http, store, writer, hub, Hand(store, writer, ids), stop, serving, deps, app, published)
            applied = await gateway.call("POST", "/v1/apply", data=TEMPLATE.encode(), Content_Type="application/yaml")
            assert applied.status == 200, applied
            yield gateway
    finally:
        stop.set()
        await asyncio.wait_for(serving, 15)
        upkeep.cancel()
        await asyncio.wait({upkeep})
        await writer.close()
        await store.close()
        logging.getLogger("talon").removeHandler(lines)
        planted.search("the gateway", "\n".join(lines.said).encode(), (directory,), (url,))
