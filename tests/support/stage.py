"""The whole product on a stage: booted processes on a real database, a model that says what a test planned, tools at gates.

    embedded   `talon up` on SQLite
    spread     two `talon gateway` and two `talon worker` on PostgreSQL

The model is a fake vendor over the real wire (`talon.providers.scripted.server`), in the test's process: it records what it was
asked. The tools are in `support/stagetools`; what they did stands in a file that the product does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from support import planted
from support.product import Api, Product, clean_environment, session_path
from support.waiting import BOUND_S, until
from talon.providers.scripted.conversation import Conversation
from talon.providers.scripted.script import Script
from talon.providers.scripted.server import ScriptedServer, Seen

_SECRET = {"apiVersion": "talon.dev/v1alpha1", "kind": "Secret"}
TOOLS = Path(__file__).parent / "stagetools"
#: An answer of the fake model, as `talon.providers.scripted.script` takes it; a list is one for each time that it is asked.
Step = dict[str, Any] | Sequence[dict[str, Any]]
Entry = dict[str, Any]


def say(text: str, **more: Any) -> dict[str, Any]:
    """The model answers."""
    return {"text": text, **more}


def slowly(text: str, chunk_chars: int = 4, chunk_delay_ms: int = 40) -> dict[str, Any]:
    """The model answers in small pieces."""
    return {"text": text, "chunk_chars": chunk_chars, "chunk_delay_ms": chunk_delay_ms}


def stalls(after: int = 1, text: str = "I was about to say something of importance.") -> dict[str, Any]:
    """The model begins, and nothing more comes."""
    return {"text": text, "fault": {"kind": "stall", "after": after}}


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """The model asks for one tool."""
    return {"calls": [{"tool": tool, "arguments": arguments}]}


def calls(*asked: dict[str, Any]) -> dict[str, Any]:
    """The model asks for several tools at once."""
    return {"calls": [one for answer in asked for one in answer["calls"]]}


def fault(kind: str, **more: Any) -> dict[str, Any]:
    """The model's server goes wrong."""
    return {"text": "The beginning of an answer that goes on for a while.", "fault": {"kind": kind, **more}}


class Model:
    """The fake model: what it says to a message, step by step, and what it was asked."""

    def __init__(self) -> None:
        self.server = ScriptedServer(Script(function=self._answer))
        self._plans: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}

    def plan(self, text: str, *steps: Step, model: str = "") -> str:
        """After a user's `text` the model answers its n-th call of the turn with `steps[n]`, and so on with the last. `model`: only
        when it is asked under that name. -> `text`."""
        self._plans[text, model] = [[step] if isinstance(step, dict) else list(step) for step in steps]
        return text

    def _answer(self, conversation: Conversation) -> dict[str, Any]:
        user = conversation.user
        steps = self._plans.get((user, conversation.model)) or self._plans.get((user, ""))
        if steps is None:
            return {"text": f"You said: {user}"}
        answers = steps[min(conversation.step, len(steps)) - 1]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def asked(self, text: str) -> list[Seen]:
        """The requests whose conversation has the user's message `text`, oldest first."""
        return [seen for seen in self.server.requests if text in said(seen, "user")]


def said(seen: Seen, *roles: str) -> list[str]:
    """The texts of a request's messages, those of `roles` only if any are given."""
    messages = json.loads(bytes(seen.body))["messages"]
    return [message.get("content") or "" for message in messages if not roles or message["role"] in roles]


@dataclass
class Stage:
    """A running product. `gateways[0]` is the one that `api` talks to."""

    directory: Path
    model: Model
    store: str
    config: dict[str, Any]
    env: dict[str, str]
    gateways: list[Product] = field(default_factory=list[Product])
    workers: list[Product] = field(default_factory=list[Product])
    apis: list[Api] = field(default_factory=list[Api])
    _count: int = 0

    @property
    def api(self) -> Api:
        """A client of the first gateway."""
        return self.apis[0]

    @property
    def other(self) -> Api:
        """A client of the other gateway, where there is one."""
        return self.apis[-1]

    @property
    def log(self) -> str:
        """What the processes wrote to stderr."""
        return "\n".join(product.log for product in {id(one): one for one in (*self.gateways, *self.workers)}.values())

    def product(self, role: str = "up", name: str = "up", *args: str) -> Product:
        """One more process on this stage's database, not started yet; it lives in a directory `name` of its own."""
        here = ("--config", str(self.directory / "talon.yaml"), "--data-dir", str(self.directory / "talon-data"), "--name", name)
        return Product(self.directory / name, role=role, args=(*here, *args), env=self.env)

    async def furnish(self) -> None:
        """An agent, and secrets that nobody uses."""
        await self.agent()
        for name, value in planted.SECRETS.items():
            metadata = {"name": name, "namespace": "planted"}
            await self.api.apply(json.dumps({**_SECRET, "metadata": metadata, "spec": {"value": value}}))

    # --- acting ------------------------------------------------------------------------------------------------------------

    async def agent(self, name: str = "helper", **spec: Any) -> str:
        """Apply an agent of namespace `default` with the tools of the stage; `spec` are parts of its definition. -> its name."""
        profiles = [{"name": "first", "model": {"provider": "model", "name": "one"}}]
        definition = {
            "systemPrompt": f"You are {name}.",
            "modelPolicy": {"profiles": profiles},
            "mcpServerRefs": ["toolbox"],
            **spec,
        }
        manifest = {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "definition": definition}
        await self.api.apply(yaml.safe_dump(manifest))
        return name

    def session(self, agent: str = "helper") -> str:
        """A fresh session's place `default/agent/name`, not created yet."""
        self._count += 1
        return f"default/{agent}/s{self._count}"

    async def turn(self, where: str, text: str, *steps: Step, **body: Any) -> str:
        """Send `text`, to which the model is planned to answer `steps`; -> the turn's id."""
        if steps:
            self.model.plan(text, *steps)
        return (await self.api.send(where, text, **body))["turn_id"]

    async def done(self, where: str, turn_id: str) -> Entry:
        """The turn's end entry."""
        return await self.api.end_of(where, turn_id)

    async def run(self, where: str, text: str, *steps: Step, **body: Any) -> Entry:
        """`turn`, and wait for its end."""
        return await self.done(where, await self.turn(where, text, *steps, **body))

    def open(self, gate: str) -> None:
        """Let the tools pass that wait at `gate`."""
        (self.directory / f"{gate}.gate").touch()

    # --- seeing ------------------------------------------------------------------------------------------------------------

    def effects(self, where: str = "", tool: str = "", event: str = "") -> list[dict[str, Any]]:
        """What the tools told, oldest first."""
        file = self.directory / "effects.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        wanted = {"session": where.rpartition("/")[2], "tool": tool, "event": event}
        return [line for line in lines if all(line[key] == value for key, value in wanted.items() if value)]

    async def began(self, where: str, tool: str, times: int = 1) -> None:
        """Wait until `tool` runs in that session."""
        await until(lambda: len(self.effects(where, tool, "began")) >= times)

    async def entry(self, where: str, type_: str, turn: str = "", after: int = 0) -> Entry:
        """Wait for an entry of a type (of a turn, after a position)."""
        async with asyncio.timeout(BOUND_S):
            async for event in self.api.events(where, after=after):
                if event["type"] == type_ and (not turn or event["turn_id"] == turn):
                    return event
        raise AssertionError(f"the stream of {where} ended without {type_}")

    async def types(self, where: str, turn: str = "") -> list[str]:
        """The types of the journal's entries (of a turn)."""
        return [entry["type"] for entry in await self.api.journal(where) if not turn or entry["turn_id"] == turn]

    async def approvals(self, where: str, state: str = "open") -> list[dict[str, Any]]:
        """The approvals of a session."""
        namespace, agent, session = where.split("/")
        items = (await self.api.get(f"/v1/ns/{namespace}/approvals?state={state}&limit=500"))["items"]
        return [item for item in items if (item["agent"], item["session_id"]) == (agent, session)]

    async def cli(self, *args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a `talon` command against the first gateway; -> (exit code, stdout, stderr)."""
        return await talon(*args, cwd=self.directory, env={"TALON_SERVER": self.api.url}, stdin=stdin)


def gate_of(where: str) -> str:
    """A gate of that session's own."""
    return where.replace("/", "-")


def path(where: str, *more: str) -> str:
    """The route of a session, or below it."""
    return "/".join((session_path(where), *more))


async def talon(*args: str, cwd: Path, env: dict[str, str] | None = None, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run one `talon` command to its end; -> (exit code, stdout, stderr)."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "talon", *args),
        cwd=cwd,
        env=clean_environment(planted.of_commands(env or {})),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        async with asyncio.timeout(BOUND_S):
            out, errors = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    planted.nothing_in(f"talon {' '.join(args)}", out, errors)
    return process.returncode, out.decode(), errors.decode()


def stage_config(model_url: str) -> dict[str, Any]:
    """Settings for quick tests. `model` is patient, `hasty` gives a silent model 0.3 s, `second` is another name of the same."""
    provider = {"kind": "openai", "base_url": model_url, "api_key": planted.STAGE_KEY}
    return {
        "providers": {
            "model": provider,
            "second": provider,
            "hasty": {**provider, "first_token_timeout_s": 0.3, "idle_timeout_s": 0.3},
        },
        "tools": {"modules": ["toolbox"], "path": [str(TOOLS)]},
        "worker": {"sweep_s": 0.25, "cancel_grace_s": 1, "drain_timeout_s": 5},
        "session": {"queue_max": 8},
        "gateway": {"heartbeat_s": 1},
    }


@contextlib.asynccontextmanager
async def set_stage(directory: Path, database: str = "", **config: Any) -> AsyncGenerator[Stage]:
    """A stage, with nothing booted yet. `database`: a PostgreSQL URL, else SQLite. `config` replaces groups of settings."""
    model = Model()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(model.server)
        settings = {**stage_config(model.server.base_url), **config}
        (directory / "talon.yaml").write_text(yaml.safe_dump(settings))
        shared = {"DATABASE_URL": database, "TALON_SECRETS_KEY": planted.VAULT_KEY}
        env = {"STAGE_DIR": str(directory), **(shared if database else {})}
        yield Stage(directory, model, "postgres" if database else "sqlite", settings, env)


@contextlib.asynccontextmanager
async def embedded_stage(directory: Path, **config: Any) -> AsyncGenerator[Stage]:
    """`talon up` on SQLite."""
    async with set_stage(directory, **config) as stage, stage.product() as up, Api(up.url) as api:
        stage.gateways, stage.workers, stage.apis = [up], [up], [api]
        await stage.furnish()
        yield stage


@contextlib.asynccontextmanager
async def spread_stage(directory: Path, database: str, **config: Any) -> AsyncGenerator[Stage]:
    """Two gateways and two workers on PostgreSQL."""
    async with set_stage(directory, database, **config) as stage, contextlib.AsyncExitStack() as stack:
        products = [stage.product(role, f"{role}{number}") for role in ("gateway", "worker") for number in range(2)]
        async with asyncio.TaskGroup() as group:  # one that does not start takes the others with it
            for product in products:
                group.create_task(stack.enter_async_context(product))
        stage.gateways, stage.workers = products[:2], products[2:]
        stage.apis = [await stack.enter_async_context(Api(product.url)) for product in stage.gateways]
        await stage.furnish()
        yield stage


class Watch:
    """A client that follows a session's stream in the background and keeps what it saw."""

    def __init__(self, api: Api, where: str, *, after: int | str | None = 0, turn: str = "") -> None:
        self._api, self._where, self._after, self._turn = api, where, after, turn
        self._task: asyncio.Task[None] | None = None
        self.events: list[Entry] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        async for event in self._api.events(self._where, after=self._after, turn=self._turn):
            self.events.append(event)

    async def ended(self) -> list[Entry]:
        """Every event, once the server has ended the stream."""
        assert self._task is not None
        async with asyncio.timeout(BOUND_S):
            await self._task
        return self.events
