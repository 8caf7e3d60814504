"""The isolation of namespaces with the gateway's own check switched off: PostgreSQL alone still shows nothing foreign.

Each question has a text by which its answer gives away what it was asked about. The controls: who may see it is shown that text by
the same questions, through the wall; and with the checks off and without a wall every one of them leaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio

from support import asgi
from support.bootedgateway import Booted, booted
from support.matrix import HttpRoutes, InProcess, Target, covers
from support.postgres import PostgresServer
from support.rpc import Client, ref, rpc
from support.waiting import until
from talon.access.protocol import KeyRequest, TokenRequest
from talon.access.roles import LOCAL, Grant
from talon.gateway.api.table import TABLE
from talon.store.sight import NO_WALL, Wall
from talon.v1 import talon_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLACES = ("acme", "acme:eu", "acmex", "beta")
PROFILES = {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "scripted", "name": "one"}}]}}


def nothing(*_: object) -> None:
    """Nobody is refused, and everything is seen."""


def always(*_: object) -> bool:
    return True


#: gRPC's words for a mistake of ours.
BROKEN = ("UNKNOWN", "INTERNAL")
#: Where the gateway itself decides who sees what, all of it switched off.
CHECKS: dict[str, Any] = {
    "talon.gateway.http.guard.refusal": nothing,
    "talon.gateway.grpc.front.refusal": nothing,
    "talon.gateway.http.resources.allow_documents": nothing,
    "talon.gateway.grpc.resources.allow_documents": nothing,
    "talon.gateway.api.applying.allow_documents": nothing,
    "talon.gateway.api.applying.allow_plan": nothing,
    "talon.gateway.api.namespaces.visible": nothing,
    "talon.gateway.api.approvals.own": always,
    "talon.gateway.api.watching.sees": always,
    "talon.gateway.http.graph.sees": always,
    "talon.gateway.http.auth.sees": always,
    "talon.gateway.http.auth.may": always,
    "talon.access.keys.may": always,
    "talon.access.keys.roots": nothing,
}


class Question(NamedTuple):
    """`ask` with an `Authorization`; -> all that comes back, in which `tells` stands where it is shown."""

    name: str
    tells: str
    ask: Callable[[str], Awaitable[str]]


@dataclass
class World:
    """A gateway with something in each of `PLACES`. `people`: whoever asks -> (what he shows, the namespaces that he sees)."""

    gateway: Booted
    client: Client
    people: dict[str, tuple[str, str]]
    token: str
    approvals: dict[str, str]
    turns: dict[tuple[str, str], str]

    def questions(self, place: str, session: str = "s1") -> list[Question]:
        """What can be read of a namespace, over HTTP and over gRPC."""
        ns, mark = f"/v1/ns/{place}", f"mark({place})"
        one, said = f"{ns}/agents/helper/sessions/{session}", f"mark({place}/{session})"
        turn, approval = self.turns[place, session], self.approvals[place]
        reads = {
            f"/v1/namespaces/{place}": f'"name":"{place}"',
            "/v1/namespaces": f'"name":"{place}"',
            f"{ns}/templates": mark,
            f"{ns}/templates/base": mark,
            f"{ns}/templates/base/users": '"helper"',
            f"{ns}/agents": f'"namespace":"{place}"',
            f"{ns}/agents?label_selector=team%3Done": f'"namespace":"{place}"',
            f"{ns}/agents/helper": f'"namespace":"{place}"',
            f"{ns}/agents/helper/revisions": '"digest"',
            f"{ns}/agents/helper/revisions/1": '"revision":1',
            f"{ns}/agents/helper/models": '"candidates"',
            f"{ns}/secrets/token": mark,
            f"{ns}/schedules": mark,
            f"{ns}/schedules/nightly": mark,
            f"{ns}/schedules/nightly/next": '"local"',
            f"{ns}/graph": '"helper"',
            f"{ns}/export": mark,
            f"{ns}/agents/helper/sessions": said,
            one: said,
            f"{one}/journal": said,
            f"{one}/messages": said,
            f"{one}/turns": turn,
            f"{one}/turns/{turn}": f'"turn_id":"{turn}"',
            f"{one}/state": '"goal"',
            f"{ns}/approvals": approval,
            f"{ns}/approvals/{approval}": f'"id":"{approval}"',
            f"/v1/auth/log?namespace={place}&limit=500": f"agents/mark-{place.replace(':', '-')}",
            "/v1/auth/keys?limit=500": mark,
        }
        live = {
            f"{one}/stream?after=0": said,
            f"{ns}/templates?watch=true&resource_version=0": mark,
            "/v1/namespaces?watch=true&resource_version=0": f'"name":"{place}"',
        }
        return [
            *(Question(path, tells, self._reader(path)) for path, tells in reads.items()),
            *(Question(path, tells, self._listener(path, tells)) for path, tells in live.items()),
            *self._calls(place, session, mark, said),
        ]

    def _reader(self, path: str) -> Callable[[str], Awaitable[str]]:
        async def read(authorization: str) -> str:
            reply = await asgi.request(self.gateway.app, "GET", path, {"authorization": authorization})
            assert reply.status < 500, reply
            return reply.raw.decode()

        return read

    def _listener(self, path: str, tells: str) -> Callable[[str], Awaitable[str]]:
        async def listen(authorization: str) -> str:
            """To the text, to the bookmark behind everything that there is, or to the end."""
            headers = {"Authorization": authorization}
            async with asyncio.timeout(20), self.gateway.http.get(self.gateway.url + path, headers=headers) as answer:
                heard = ""
                while tells not in heard and "event: bookmark" not in heard and (data := await answer.content.readany()):
                    heard += data.decode()
                return heard

        return listen

    def _calls(self, place: str, session: str, mark: str, said: str) -> list[Question]:
        stubs, at = self.client, ref(session, "helper", place)
        approval = pb.ApprovalRef(namespace=place, id=self.approvals[place])
        agents = pb.ListResourcesRequest(namespace=place, kind="Agent")
        template = pb.GetResourceRequest(namespace=place, kind="AgentTemplate", name="base")
        watch = pb.WatchRequest(namespace=place, kind="AgentTemplate", resource_version="0")
        asked: list[tuple[Any, Any, str]] = [
            (stubs.namespaces.Get, pb.GetNamespaceRequest(name=place), f'"{place}"'),
            (stubs.namespaces.List, pb.ListNamespacesRequest(), f'"{place}"'),
            (stubs.resources.Get, template, mark),
            (stubs.resources.List, agents, '"helper"'),
            (stubs.resources.Watch, watch, mark),
            (stubs.resources.Watch, pb.WatchRequest(kind="Namespace", resource_version="0"), f'"{place}"'),
            (stubs.sessions.Get, at, said),
            (stubs.sessions.List, pb.ListSessionsRequest(namespace=place, agent="helper"), said),
            (stubs.sessions.State, at, self.turns[place, session]),
            (stubs.sessions.Stream, pb.StreamRequest(session=at, after="0"), said),
            (stubs.approvals.List, pb.ListApprovalsRequest(namespace=place), self.approvals[place]),
            (stubs.approvals.Get, approval, "helper"),
        ]
        return [
            Question(f"gRPC {number} {type(message).__name__}", tells, self._caller(method, message, tells))
            for number, (method, message, tells) in enumerate(asked)
        ]

    def _caller(self, method: Any, message: Any, tells: str) -> Callable[[str], Awaitable[str]]:
        async def ask(authorization: str) -> str:
            call = method(message, metadata=(("authorization", authorization),), timeout=20)
            try:
                if not hasattr(call, "read"):
                    return str(await call)
                heard = ""
                while tells not in heard and "bookmark" not in heard and (told := await call.read()) is not grpc.aio.EOF:
                    heard += str(told)
                return heard
            except grpc.aio.AioRpcError as error:
                return error.code().name
            finally:
                call.cancel()

        return ask


@contextlib.contextmanager
def unchecked() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, instead in CHECKS.items():
            patch.setattr(name, instead)
        yield


def documents(place: str) -> bytes:
    metadata, mark = {"namespace": place}, f"mark({place})"
    spec = {
        "kind": "cron",
        "cron": "0 14 * * 1-5",
        "timezone": "UTC",
        "target": {"agent": "helper", "sessionMode": "named", "sessionId": "s1"},
        "inputMessage": mark,
    }
    some: list[dict[str, Any]] = [
        {"kind": "AgentTemplate", "metadata": {**metadata, "name": "base"}, "definition": {"systemPrompt": mark, **PROFILES}},
        {"kind": "Agent", "metadata": {**metadata, "name": "helper", "labels": {"team": "one"}}, "spec": {"templateRef": "base"}},
        {"kind": "Secret", "metadata": {**metadata, "name": "token"}, "spec": {"description": mark}},
        {"kind": "Schedule", "metadata": {**metadata, "name": "nightly"}, "spec": spec},
    ]
    return "\n---\n".join(json.dumps({"apiVersion": "talon.dev/v1alpha1", **one}) for one in some).encode()


@contextlib.asynccontextmanager
async def open_world(directory: Path, database: str = "") -> AsyncGenerator[World]:
    """On a PostgreSQL `database` behind the wall, else on SQLite."""
    wall = Wall("talon_gateway") if database else NO_WALL
    async with booted(directory, database=database, keys=True, hooks={"wall": wall}) as gateway, rpc(gateway) as client:
        assert await gateway.store.raise_wall() == wall
        keys = gateway.deps.access.keys
        people: dict[str, tuple[str, str]] = {}
        for place in ("acme", "acme:eu"):
            made = await keys.create(LOCAL, KeyRequest(f"admin of {place}", (Grant("admin", place),)))
            people[f"admin@{place}"] = (f"Bearer {made.secret}", place)
        token = await keys.mint(LOCAL, TokenRequest("acme", "helper", "s1"))
        world = World(gateway, client, people, f"Bearer {token.secret}", {}, {})
        for place in PLACES:
            await _furnish(world, place)
        log = "/v1/auth/log?limit=500"

        async def written() -> bool:
            return (await gateway.call("GET", log)).raw.count(b"agents/mark-") >= len(PLACES)

        await until(written)  # within a second
        yield world


async def _furnish(world: World, place: str) -> None:
    gateway, sessions = world.gateway, f"/v1/ns/{place}/agents/helper/sessions"
    applied = await gateway.call("POST", "/v1/apply", data=documents(place), Content_Type="application/yaml")
    assert applied.status == 200, applied
    await gateway.deps.access.keys.create(LOCAL, KeyRequest(f"mark({place})", (Grant("viewer", place),)))
    for session in ("s1", "s2"):
        mark = f"mark({place}/{session})"
        assert (await gateway.call("POST", sessions, {"id": session, "metadata": {"note": mark}})).status == 201
        world.turns[place, session] = (await gateway.message(f"{sessions}/{session}", mark))["turn_id"]
        held = await gateway.hand.claim()
        await gateway.hand.start(held)
        if session == "s1":
            world.approvals[place] = str(uuid.uuid4())
            await gateway.hand.ask(held, world.approvals[place])
    gone = await gateway.call("GET", f"/v1/ns/{place}/agents/mark-{place.replace(':', '-')}")
    assert gone.status == 404


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """Behind the wall."""
    url = postgres.create_database()
    async with open_world(tmp_path_factory.mktemp("walled"), url) as made:
        yield made
    postgres.drop_database(url)


def foreign(sees: str) -> list[str]:
    return [place for place in PLACES if not covers(sees, place)]


async def test_through_the_wall_everybody_is_shown_what_is_his(world: World) -> None:
    hidden: list[object] = []
    for name, (authorization, sees) in world.people.items():
        for place in sorted(set(PLACES) - set(foreign(sees))):
            for question in world.questions(place):
                answer = await question.ask(authorization)
                if question.tells not in answer:
                    hidden.append((name, place, question.name, answer))
    assert hidden == []


async def test_with_the_checks_off_the_wall_alone_shows_nothing_foreign(world: World) -> None:
    leaks: list[object] = []
    asked = 0

    async def ask(question: Question, authorization: str) -> None:
        nonlocal asked
        answer = await question.ask(authorization)
        asked += 1
        if question.tells in answer or answer in BROKEN:
            leaks.append((question.name, answer))

    with unchecked():
        for authorization, sees in world.people.values():
            for place in foreign(sees):
                for question in world.questions(place):
                    await ask(question, authorization)
        for place in foreign("acme"):
            for question in world.questions(place):
                await ask(question, world.token)
        # Of its own namespace a token sees that it is there, and its agent; of sessions its own one.
        for question in world.questions("acme", "s2"):
            if "/s2)" in question.tells or question.tells == world.turns["acme", "s2"]:
                await ask(question, world.token)
    assert asked > 300
    assert leaks == []


async def test_without_the_wall_each_of_these_questions_leaks(tmp_path: Path) -> None:
    """So the checks were off, and the questions are such that something could come back."""
    async with open_world(tmp_path) as world:
        authorization, _ = world.people["admin@acme:eu"]
        kept: list[object] = []
        for off in (False, True):
            with unchecked() if off else contextlib.nullcontext():
                for question in world.questions("beta"):
                    answer = await question.ask(authorization)
                    if (question.tells in answer) != off:
                        kept.append((off, question.name, answer))
        assert kept == []


async def test_with_the_checks_off_no_operation_reaches_what_is_foreign(world: World) -> None:
    """Each of the table that names a place: what it would read or change it does not find, and so it does not make it again."""
    caller = InProcess(world.gateway.app, HttpRoutes((await world.gateway.call("GET", "/openapi.json")).body))
    placed = [name for name in caller.operations() if TABLE[name].place in ("namespace", "agent", "session", "approval")]
    before = await world.gateway.store.versions(PLACES)
    reached: list[object] = []
    with unchecked():
        for authorization, place in (
            (world.people["admin@acme"][0], "acmex"),
            (world.people["admin@acme:eu"][0], "acme"),
            (world.token, "beta"),
        ):
            for operation in placed:
                got = await caller.ask(operation, Target(place), authorization)
                if got.code in ("", "internal") or "mark(" in got.text:
                    reached.append((operation, place, got))
            headers = {"authorization": authorization, "content-type": "application/yaml"}
            applied = await asgi.request(world.gateway.app, "POST", "/v1/apply", headers, documents(place))
            assert (applied.status, applied.body["code"]) == (409, "conflict"), applied.raw
    assert len(placed) > 60
    assert reached == []
    assert await world.gateway.store.versions(PLACES) == before


async def test_with_the_checks_off_no_message_reaches_a_foreign_session(world: World) -> None:
    authorization, sees = world.people["admin@acme:eu"]
    stubs = world.client.sessions

    async def send(place: str, session: str, shown: str) -> tuple[int, str]:
        path, headers = f"/v1/ns/{place}/agents/helper/sessions/{session}/message", {"authorization": shown}
        reply = await asgi.request(world.gateway.app, "POST", f"{path}?create=true", headers, b'{"content": "hello"}')
        message = pb.SendRequest(session=ref(session, "helper", place), content="hello", create=True)
        try:
            await stubs.Send(message, metadata=(("authorization", shown),), timeout=20)
        except grpc.aio.AioRpcError as error:
            return reply.status, error.code().name
        return reply.status, "OK"

    with unchecked():
        for place in foreign(sees):
            assert await send(place, "s2", authorization) == (404, "NOT_FOUND")
            assert await send(place, "fresh", authorization) == (404, "NOT_FOUND")
        assert await send("acme", "s2", world.token) == (404, "NOT_FOUND")
    assert await send("acme:eu", "s2", authorization) == (202, "OK")
    assert await send("acme:eu", "fresh", authorization) == (202, "OK")
    assert await send("acme", "s1", world.token) == (202, "OK")


async def test_what_is_inherited_is_resolved_through_the_wall(world: World) -> None:
    """Who sees `acme:eu` alone: his agents follow templates of `acme`, which he does not see."""
    authorization, _ = world.people["admin@acme:eu"]
    shared = {
        "kind": "AgentTemplate",
        "metadata": {"name": "shared", "namespace": "acme"},
        "definition": {"systemPrompt": "x", **PROFILES},
    }
    heir = {"kind": "Agent", "metadata": {"name": "heir", "namespace": "acme:eu"}, "spec": {"templateRef": "shared"}}
    for document, shown in ((shared, world.people["admin@acme"][0]), (heir, authorization)):
        body = json.dumps({"apiVersion": "talon.dev/v1alpha1", **document}).encode()
        headers = {"authorization": shown, "content-type": "application/yaml"}
        applied = await asgi.request(world.gateway.app, "POST", "/v1/apply", headers, body)
        assert applied.status == 200, applied.raw

    async def get(path: str) -> asgi.Reply:
        return await asgi.request(world.gateway.app, "GET", path, {"authorization": authorization})

    agent = (await get("/v1/ns/acme:eu/agents/heir")).body
    resolved = next(one for one in agent["status"]["conditions"] if one["type"] == "ReferencesResolved")
    assert resolved["status"] == "True", resolved
    nodes = (await get("/v1/ns/acme:eu/graph")).body["nodes"]
    assert {"namespace": "", "kind": "AgentTemplate", "name": "shared"} in nodes
    with unchecked():
        assert (await get("/v1/ns/acme/templates/shared")).status == 404
