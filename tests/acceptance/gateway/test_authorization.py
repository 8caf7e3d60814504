"""Everybody, everywhere, everything: the authorization matrix, over HTTP and gRPC. Every question on SQLite; on PostgreSQL some,
drawn anew each time: only what is let in reaches the store at all."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import jwt
import pytest
import pytest_asyncio
from fastapi import APIRouter

from support import asgi
from support.bootedgateway import SESSIONS, TEMPLATE, Booted, Stream, booted
from support.matrix import (
    CANARY,
    GHOST_ID,
    GRANTED,
    PLACES,
    ROLES,
    Cell,
    Got,
    HttpRoutes,
    InProcess,
    Shown,
    Target,
    cells,
    got_of,
    run,
)
from support.matrixrpc import Rpc, Watches
from support.rpc import rpc
from talon.access.protocol import KeyRequest, TokenRequest
from talon.access.roles import LOCAL, Grant
from talon.access.secret import generate
from talon.access.signers import OneKey
from talon.access.tokens import Rules, Verifier
from talon.cli.system import SystemClock
from talon.gateway.api.table import TABLE
from talon.gateway.grpc.server import services
from talon.gateway.http.app import Unguarded, check_table
from talon.store.postgres import connections as postgres
from talon.store.sqlite import SqliteStore
from talon.store.sqlite import connection as sqlite

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "the-secret-of-the-signer-of-tokens-0123456789"
#: The part of the questions that is asked.
SHARE = {"sqlite": 1.0, "postgres": 0.15}
RULES = Rules("HS256", "https://issuer.example", "talon", 5.0, "talon_grants")


@dataclass
class World:
    """A gateway with keys and JWTs, four namespaces with something in each, and everybody who may ask."""

    gateway: Booted
    routes: HttpRoutes
    people: list[Shown]
    nobody: list[Shown]
    share: float

    def questions(self, operations: list[str]) -> Iterator[Cell]:
        """The share of them, in their order."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        return (cell for cell in cells(operations, self.people + self.nobody) if chance.random() < self.share)

    async def ask(self, method: str, path: str, shown: Shown, body: Any = None, **headers: str) -> asgi.Reply:
        named = {"authorization": shown.authorization, "content-type": "application/json"} | headers
        data = b"" if body is None else json.dumps(body).encode()
        return await asgi.request(self.gateway.app, method, path, named, data)

    def who(self, name: str) -> Shown:
        return next(one for one in self.people if one.name == name)


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    now = int(time.time())
    whole = {"iss": RULES.issuer, "aud": "talon", "sub": "ann", "exp": now + 600, "talon_grants": ["admin@*"]} | claims
    return "Bearer " + jwt.encode(whole, secret, algorithm)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    database = request.getfixturevalue("postgres").create_database() if request.param == "postgres" else ""
    verifier = Verifier(RULES, OneKey(SECRET.encode()), SystemClock())
    async with booted(tmp_path_factory.mktemp("matrix"), database=database, keys=True, bearers=[verifier]) as gateway:
        await _furnish(gateway)
        document = (await gateway.call("GET", "/openapi.json")).body
        share = SHARE[request.param]
        yield World(gateway, HttpRoutes(document), await _people(gateway), await _nobody(gateway), share)


async def _furnish(gateway: Booted) -> None:
    """The same in each namespace; what is foreign to somebody has the canary in it."""
    for namespace in PLACES[:-1]:
        text = TEMPLATE.replace("namespace: acme", f"namespace: {namespace}")
        if namespace in ("acmex", "beta"):
            text = text.replace("You help.", CANARY)
        other = text.split("---", 1)[0].replace("name: helper", "name: other")
        applied = await gateway.call("POST", "/v1/apply", data=f"{text}---\n{other}".encode(), Content_Type="application/yaml")
        assert applied.status == 200, applied
        for agent in ("helper", "other"):
            for session in ("s1", "s2"):
                path = SESSIONS.replace("acme", namespace).replace("helper", agent)
                fields = {"id": session, "metadata": {"note": CANARY if namespace in ("acmex", "beta") else ""}}
                made = await gateway.call("POST", path, fields)
                assert made.status == 201, made


async def _people(gateway: Booted) -> list[Shown]:
    keys = gateway.deps.access.keys
    found: list[Shown] = []
    for role in ROLES:
        for namespace in GRANTED:
            made = await keys.create(LOCAL, KeyRequest(f"{role}@{namespace}", (Grant(role, namespace),)))  # type: ignore[arg-type]
            found.append(Shown(f"{role}@{namespace}", f"Bearer {made.secret}", ((role, namespace),)))
    for name, session in (("token of a session", "s1"), ("token of an agent", "")):
        for role in ("operator", "viewer"):
            made = await keys.mint(LOCAL, TokenRequest("acme", "helper", session, role))
            found.append(Shown(f"{role}'s {name}", f"Bearer {made.secret}", ((role, "acme"),), "helper", session))
    both = [("viewer", "acme"), ("developer", "acme:eu")]
    found.append(Shown("JWT", signed({"talon_grants": [f"{role}@{namespace}" for role, namespace in both]}), tuple(both)))
    return found


async def _nobody(gateway: Booted) -> list[Shown]:
    keys = gateway.deps.access.keys
    admin = KeyRequest("gone", (Grant("admin", "*"),))
    revoked = await keys.create(LOCAL, admin)
    parent = await keys.create(LOCAL, admin)
    (by,) = [await gateway.deps.access.authenticator.principal(f"Bearer {parent.secret}", "")]
    orphan = await keys.mint(by, TokenRequest("acme", "helper"))
    await keys.revoke(LOCAL, revoked.row.id)
    await keys.revoke(LOCAL, parent.row.id)
    old = int(time.time()) - 3600
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    payload = signed({}).split(".")[1]
    genuine = signed({}).removeprefix("Bearer ")
    alive = await keys.create(LOCAL, admin)
    shown = {
        "nothing": "",
        "another scheme": "Basic YWRtaW46YWRtaW4=",
        "a revoked key": f"Bearer {revoked.secret}",
        "a token whose minter was revoked": f"Bearer {orphan.secret}",
        "a key of another server": f"Bearer {generate().text}",
        "a known id with another secret": f"Bearer talon_{alive.row.id}_{generate().text.split('_', 2)[2]}",
        "an expired JWT": signed({"exp": old}),
        "a JWT for another audience": signed({"aud": "other"}),
        "a JWT of another issuer": signed({"iss": "https://other.example"}),
        "a JWT with another algorithm": signed({}, SECRET * 2, "HS512"),
        "a JWT with another key": signed({}, "another-secret-that-is-long-enough-000000"),
        "a JWT of algorithm none": f"Bearer {header}.{payload}.",
        "a JWT without a signature": f"Bearer {genuine.rpartition('.')[0]}.",
    }
    return [Shown(name, authorization, None) for name, authorization in shown.items()]


async def test_the_matrix_has_no_wrong_answer_and_no_leak(world: World) -> None:
    caller = InProcess(world.gateway.app, world.routes)
    operations = caller.operations()
    guarded = {name for name, row in TABLE.items() if row.place != "open"}
    assert guarded <= set(operations), guarded - set(operations)
    found = await run(caller, world.questions(operations))
    print(f"{found.cells} cells")
    assert found.cells >= 5000 * world.share
    assert not found.wrong, "\n".join(found.wrong[:20])
    assert not found.leaks, "\n".join(found.leaks[:20])


async def test_the_matrix_over_grpc_has_no_wrong_answer_and_no_leak(world: World) -> None:
    served = {name for methods in services(world.gateway.deps).values() for one in methods.values() for name in one.operations}
    async with rpc(world.gateway) as client:
        assert served == set(Rpc(client).operations())  # a method that nobody asks here is found
        for caller in (Rpc(client), Watches(client)):
            operations = caller.operations()
            found = await run(caller, world.questions(operations))
            print(f"{caller.name}: {found.cells} cells of {len(operations)} operations")
            assert found.cells >= 25 * len(operations) * world.share
            assert not found.wrong, "\n".join(found.wrong[:20])
            assert not found.leaks, "\n".join(found.leaks[:20])


async def test_a_booted_gateway_answers_as_the_application_does(world: World) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    caller = OverSocket(world.gateway, world.routes)
    questions = [cell for cell in cells(caller.operations(), world.people + world.nobody) if cell.operation != "deleteSession"]
    found = await run(caller, iter(random.Random(seed).sample(questions, 300)))
    assert found.cells == 300
    assert (found.wrong, found.leaks) == ([], [])


class OverSocket:
    """HTTP to the booted gateway."""

    name = "socket"

    def __init__(self, gateway: Booted, routes: HttpRoutes) -> None:
        self._gateway, self._routes = gateway, routes

    def operations(self) -> list[str]:
        return self._routes.operations()

    async def ask(self, operation: str, target: Target, authorization: str) -> Got:
        method, path, body, media = self._routes.request(operation, target)
        headers = {"Authorization": authorization, "Content-Type": media}
        async with self._gateway.http.request(
            method, self._gateway.url + path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            raw = await (answer.content.readany() if streams else answer.read())
            return got_of(answer.status, raw, answer.headers)


async def test_a_route_without_a_row_does_not_start(world: World) -> None:
    missing = "/v1/new"
    api = APIRouter()

    @api.get(missing)
    async def new() -> None: ...

    with pytest.raises(Unguarded, match=missing):
        check_table(api.routes, [])
    with pytest.raises(Unguarded, match="getAgent"):
        check_table([], [])
    assert new is not None


async def test_what_somebody_does_not_see_is_not_even_looked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it takes as long as what is not there."""
    reads: ContextVar[list[int] | None] = ContextVar("reads", default=None)
    kind, name = (sqlite.Database, "read") if isinstance(world.gateway.store, SqliteStore) else (postgres.Pool, "run")
    plain: Any = getattr(kind, name)

    async def counting(*args: Any, **more: Any) -> Any:
        count = reads.get()
        if count is not None:
            count[0] += 1
        return await plain(*args, **more)

    monkeypatch.setattr(kind, name, counting)
    token = reads.set(count := [0])
    assert await world.gateway.store.get_resource("", "Namespace", "acme") is not None
    reads.reset(token)
    assert count == [1], "what is counted are reads"
    caller = InProcess(world.gateway.app, world.routes)
    stranger = world.who("admin@acme:eu")
    for operation in caller.operations():
        if TABLE[operation].place not in ("namespace", "agent", "session", "approval", "documents"):
            continue
        for namespace in ("acme", "beta", "gone"):
            for _ in range(3):  # a gateway that was held up for a second asks anew who one is, though not what for
                token = reads.set(count := [0])
                got = await caller.ask(operation, Target(namespace), stranger.authorization)
                reads.reset(token)
                assert got.code == "namespace_not_found", (operation, got)
                if count == [0]:
                    break
            assert count == [0], operation


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_the_list_of_namespaces_has_only_what_is_seen_and_no_cursor_says_more(world: World, limit: int) -> None:
    everything = ["acme", "acme:eu", "acmex", "beta"]
    for name, seen in (("viewer@acme", ["acme", "acme:eu"]), ("viewer@acme:eu", ["acme:eu"]), ("viewer@*", everything)):
        found: list[str] = []
        cursor = ""
        while True:
            reply = await world.ask("GET", f"/v1/namespaces?limit={limit}&cursor={cursor}", world.who(name))
            assert reply.status == 200, reply
            found += [item["metadata"]["name"] for item in reply.body["items"]]
            cursor = reply.body["next_cursor"] or ""
            if name != "viewer@*" and cursor:
                inside = base64.urlsafe_b64decode(cursor.partition(".")[2] + "==").decode()
                assert not any(foreign in inside for foreign in ("acmex", "beta"))
            if not cursor:
                break
        assert found == seen


async def test_a_watch_of_namespaces_tells_only_those_that_are_seen(world: World) -> None:
    gateway = world.gateway
    viewer = {"Authorization": world.who("viewer@acme").authorization}
    async with Stream(gateway, "/v1/namespaces?watch=true", viewer) as watch:
        assert (await watch.take(1))[0].type == "bookmark"
        for name in ("beta", "acmex", "acme:eu"):
            changed = await gateway.call("PATCH", f"/v1/namespaces/{name}", {"metadata": {"labels": {"touched": "yes"}}})
            assert changed.status == 200, changed
        (told,) = await watch.take(1)
        assert (told.type, told.data["object"]["metadata"]["name"]) == ("modified", "acme:eu")


async def test_a_graph_names_no_namespace_that_is_not_seen(world: World) -> None:
    template = {"kind": "AgentTemplate", "metadata": {"name": "base", "namespace": "acme"}, "definition": SPEC}
    agent = {"kind": "Agent", "metadata": {"name": "heir", "namespace": "acme:eu"}, "spec": {"templateRef": "base"}}
    documents = "\n---\n".join(json.dumps({"apiVersion": "talon.dev/v1alpha1", **one}) for one in (template, agent))
    applied = await world.gateway.call("POST", "/v1/apply", data=documents.encode(), Content_Type="application/yaml")
    assert applied.status == 200, applied.body
    for name, shown in (("viewer@acme", "acme"), ("viewer@acme:eu", "")):
        graph = (await world.ask("GET", "/v1/ns/acme:eu/graph", world.who(name))).body
        (found,) = [node for node in graph["nodes"] if node["kind"] == "AgentTemplate"]
        assert (found["namespace"], found["name"], found.get("missing", False)) == (shown, "base", False)
        assert [edge["to"]["namespace"] for edge in graph["edges"] if edge["to"]["name"] == "base"] == [shown]


async def test_one_document_too_many_and_nothing_is_written_or_told(world: World) -> None:
    developer = world.who("developer@acme:eu")
    bodies = {
        "absent": [_document("Agent", "acme:eu"), _document("Agent", "beta")],
        "a namespace on the way": [_document("Agent", "acme:eu:new")],
        "a namespace": [_document("Agent", "acme:eu"), _document("Namespace", "", "acme:eu:new")],
    }
    codes: dict[str, Any] = {}
    for name, documents in bodies.items():
        for query in ("", "?dry_run=true"):
            headers = {"content-type": "application/yaml"}
            data = "\n---\n".join(map(json.dumps, documents)).encode()
            reply = await asgi.request(
                world.gateway.app, "POST", f"/v1/apply{query}", headers | {"authorization": developer.authorization}, data
            )
            codes[name + query] = (reply.body["code"], reply.body["detail"])
    for query in ("", "?dry_run=true"):
        assert codes["absent" + query] == ("namespace_not_found", "no namespace 'beta'")
        for name in ("a namespace on the way", "a namespace"):
            assert codes[name + query][0] == "forbidden"
            assert "namespaces.write" in codes[name + query][1]
    for path in ("/v1/ns/acme:eu/agents/fresh", "/v1/ns/beta/agents/fresh", "/v1/namespaces/acme:eu:new"):
        assert (await world.gateway.call("GET", path)).status == 404


async def test_an_idempotency_key_of_a_token_meets_nobody_elses(world: World) -> None:
    """Else it would say that somebody used it, and for something else."""
    mint = world.gateway.deps.access.keys.mint
    one, again, other = [
        replace(world.people[0], authorization="Bearer " + (await mint(LOCAL, TokenRequest("beta", "other", session))).secret)
        for session in ("s1", "s1", "s2")
    ]
    path = "/v1/ns/beta/agents/other/sessions/"
    first = await world.ask("POST", path + "s1/message", one, {"content": "hello"}, **{"idempotency-key": "k1"})
    assert first.status == 202, first
    theirs = await world.ask("POST", path + "s2/message", other, {"content": "something else"}, **{"idempotency-key": "k1"})
    assert theirs.status == 202, theirs
    renewed = await world.ask("POST", path + "s1/message", again, {"content": "hello"}, **{"idempotency-key": "k1"})
    assert (renewed.status, renewed.header("idempotent-replayed"), renewed.body) == (202, "true", first.body)
    differs = await world.ask("POST", path + "s1/message", again, {"content": "no"}, **{"idempotency-key": "k1"})
    assert differs.body["code"] == "idempotency_conflict"


async def test_a_token_sees_the_approvals_of_its_own_session_only(world: World) -> None:
    gateway = world.gateway
    asked: dict[str, str] = {}
    for session in ("s1", "s2"):
        await gateway.message(f"/v1/ns/acmex/agents/other/sessions/{session}")
        while session not in asked:
            held = await gateway.hand.claim()
            await gateway.hand.start(held)
            approval = str(uuid.uuid4())
            await gateway.hand.ask(held, approval)
            if held.session.namespace == "acmex":
                asked[held.session.id] = approval
    token = await gateway.deps.access.keys.mint(LOCAL, TokenRequest("acmex", "other", "s1"))
    shown = replace(world.people[0], authorization=f"Bearer {token.secret}")
    own = await world.ask("GET", f"/v1/ns/acmex/approvals/{asked['s1']}", shown)
    assert (own.status, own.body["session_id"]) == (200, "s1")
    theirs = await world.ask("GET", f"/v1/ns/acmex/approvals/{asked['s2']}", shown)
    nothing = await world.ask("GET", f"/v1/ns/acmex/approvals/{GHOST_ID}", shown)
    told = {"detail": theirs.body["detail"].replace(asked["s2"], ""), "request_id": ""}
    assert theirs.body | told == nothing.body | {"detail": nothing.body["detail"].replace(GHOST_ID, ""), "request_id": ""}
    assert (await world.ask("GET", "/v1/ns/acmex/approvals", shown)).body["code"] == "forbidden"
    resolved = await world.ask("POST", f"/v1/ns/acmex/approvals/{asked['s1']}", shown, {"outcome": "done", "result": ""})
    assert resolved.body["code"] == "forbidden"
    approver = await gateway.deps.access.keys.create(LOCAL, KeyRequest("a", (Grant("approver", "acmex"),)))
    shown = replace(shown, authorization=f"Bearer {approver.secret}")
    resolved = await world.ask("POST", f"/v1/ns/acmex/approvals/{asked['s1']}", shown, {"outcome": "done", "result": ""})
    assert (resolved.status, resolved.body["resolved_by"]) == (200, f"key:{approver.row.id}")


SPEC = {"customSpec": {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "s", "name": "o"}}]}, "systemPrompt": "x"}}


def _document(kind: str, namespace: str, name: str = "fresh") -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"definition": SPEC} if kind == "Agent" else {}
    return {"apiVersion": "talon.dev/v1alpha1", "kind": kind, "metadata": metadata, **body}
