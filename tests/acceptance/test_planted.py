"""What is planted in every booted product: that the search finds each of it in every form, and that nothing is left of it by a
product that is asked everything, shown everything wrong, and killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import jwt
import pytest
import yaml

from support import planted
from support.planted import MARK, PLANTED, SECRETS, VAULT_KEY, marks
from support.postgres import PostgresServer, database_of
from support.product import Api, Product
from support.rpc import STUBS, ref
from support.shell import Shell
from support.stage import talon
from support.vendor import Vendor, vending
from support.waiting import until
from talon.cli.leaves import leaves
from talon.providers.kinds import KINDS
from talon.v1 import talon_pb2 as pb

RULES = {
    "TALON_GATEWAY_AUTH_JWT_ALGORITHM": "HS256",
    "TALON_GATEWAY_AUTH_JWT_ISSUER": "i",
    "TALON_GATEWAY_AUTH_JWT_AUDIENCE": "talon",
}
FIRST = f"talon_planted_{PLANTED['first key']}"


# --- the search -------------------------------------------------------------------------------------------------------------------


def encodings(data: bytes) -> Iterator[tuple[str, bytes]]:
    """`data` as it may be met."""
    text = data.decode("latin-1")
    plain: dict[str, Callable[[str], str]] = {
        "as it is": str,
        "JSON": json.dumps,
        "JSON of JSON": lambda value: json.dumps(json.dumps(value)),
        "escaped for JSON": lambda value: "".join(f"\\u{ord(char):04x}" for char in value),
        "escaped for Python": lambda value: "".join(f"\\x{ord(char):02x}" for char in value),
        "of Python": repr,
        "percent": lambda value: quote(value, safe=""),
        "all percent": lambda value: "".join(f"%{ord(char):02X}" for char in value),
        "HTML": lambda value: "".join(f"&#{ord(char)};" for char in value),
        "HTML, hex": lambda value: "".join(f"&#x{ord(char):x};" for char in value),
        "octal": lambda value: "".join(f"\\{ord(char):03o}" for char in value),
        "lower case": str.lower,
    }
    yield from ((name, made(text).encode("latin-1")) for name, made in plain.items())
    yield from (("UTF-16", text.encode("utf-16-le")), ("UTF-16, big", text.encode("utf-16-be")))
    for between in ("", ":", " "):
        yield from (
            (f"hex {between!r}", data.hex(between or ":").replace(":", between).encode()),
            ("HEX", data.hex().upper().encode()),
        )
    for before in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64 of URLs", base64.urlsafe_b64encode)):
            once = encode(b"?" * before + data)
            yield f"{name} behind {before}", once
            yield f"{name} behind {before}, in hex", once.hex().encode()
            for again in range(3):
                yield f"{name} behind {before}, once more behind {again}", encode(b"?" * again + once)
        yield f"hex in base64 behind {before}", base64.b64encode(b"?" * before + data.hex().encode())


@pytest.mark.parametrize("cut", [None, 24, -24])
def test_the_search_finds_each_of_more_than_fifty_in_every_encoding_and_cut_off(cut: int | None) -> None:
    assert len(PLANTED) > 50
    assert len(set(PLANTED.values())) == len(PLANTED)
    for what, value in PLANTED.items():
        shown = value.encode() if cut is None else value.encode()[:cut] if cut > 0 else value.encode()[cut:]
        if value == VAULT_KEY and cut == -24:
            continue  # it has its mark only at its beginning
        for name, said in encodings(shown):
            assert marks(b"before " + said + b" after"), (what, name)
    for name, said in encodings(base64.b64decode(VAULT_KEY)):
        if name in ("as it is", "hex ''"):
            assert marks(said), ("the key ring's bytes", name)
    assert not marks(b"before " + MARK[:-1].encode() + b" " + MARK[1:].encode() + b" after")


def test_every_secret_setting_and_variable_has_something_planted() -> None:
    given = planted.environment({"DATABASE_URL": "postgresql://talon@/t", "TALON_SECRETS_KEY": VAULT_KEY})
    assert sum(MARK in value for value in given.values()) >= 45, "beside those of providers, requests, commands and resources"
    given |= planted.MORE
    settings = {path: leaf.env for path, leaf in leaves().items() if leaf.is_secret}
    settings["control_plane.database.url"] = "DATABASE_URL"
    settings["providers.*.api_key"] = "TALON_PROVIDERS_PLANTED_OPENAI_API_KEY"
    assert [path for path, name in settings.items() if MARK not in given.get(name, "")] == []
    assert [kind.key_env for kind in KINDS.values() if kind.key_env and MARK not in given[kind.key_env]] == []


async def test_a_product_or_a_database_that_has_kept_something_is_caught(
    tmp_path: Path, postgres: PostgresServer, database_url: str
) -> None:
    """The control of the whole: one line of base64 in a log, one row of SQLite, one row of PostgreSQL."""
    leak = 'printenv STRIPE_SECRET_KEY | base64 >&2; exec "$@"'
    with pytest.raises(AssertionError, match="has something that was planted"):
        async with Product(tmp_path / "up", wrapper=("sh", "-c", leak, "sh")):
            pass
    database = sqlite3.connect(tmp_path / "left.db")
    with database:
        database.execute("create table t (v)")
        database.execute("insert into t values (?)", (PLANTED["cookie"],))
    database.close()
    with pytest.raises(AssertionError, match=r"left\.db has something that was planted"):
        planted.search("a product", b"", (tmp_path,))
    planted.environment({"DATABASE_URL": database_url})
    held = json.dumps({"x": base64.b64encode(PLANTED["header X-Api-Key"].encode()).decode()})
    postgres.sql(
        f"create table left_over (v bytea); insert into left_over values (convert_to('{held}', 'utf8'))", database_of(database_url)
    )
    with pytest.raises(AssertionError, match=r"the database test_.* has something that was planted"):
        postgres.drop_database(database_url)
    postgres.sql("drop table left_over", database_of(database_url))


# --- the product ------------------------------------------------------------------------------------------------------------------


class House:
    """A product that asks who one is, writes its access log to a file and its spans to its log; its model's key is a secret."""

    def __init__(self, directory: Path, vendor: Vendor, database: str) -> None:
        self.directory, self.vendor = directory, vendor
        far = {"kind": "openai", "base_url": vendor.url, "api_key": "secret:acme/s0"}
        (directory / "talon.yaml").write_text(yaml.safe_dump({"providers": {"far": far}}))
        asking = {**RULES, "TALON_GATEWAY_AUTH_MODE": "api_key,jwt", "TALON_GATEWAY_ACCESS_LINES": "file"}
        env = {**planted.MORE, **asking, "TALON_OBSERVE_EXPORTER": "console"}
        if database:
            env |= {"DATABASE_URL": database, "TALON_SECRETS_KEY": VAULT_KEY}
        self.product = Product(directory, args=("--data-dir", "data"), env=env)


@contextlib.asynccontextmanager
async def house(directory: Path, database: str) -> AsyncGenerator[tuple[House, Api]]:
    async with vending() as vendor:
        home = House(directory, vendor, database)
        async with home.product, Api(home.product.url, FIRST) as api:
            yield home, api


def agent(name: str, provider: str) -> dict[str, Any]:
    profiles = [{"name": "first", "model": {"provider": provider, "name": "one"}}]
    definition = {"systemPrompt": "You help.", "modelPolicy": {"profiles": profiles}}
    metadata = {"name": name, "namespace": "acme"}
    return {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "definition": definition}


def secret(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "acme"}
    return {"apiVersion": "talon.dev/v1alpha1", "kind": "Secret", "metadata": metadata, "spec": {"value": SECRETS["s0"], **spec}}


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.timeout(180)
async def test_nothing_is_left_by_a_product_that_is_asked_everything_shown_everything_wrong_and_killed(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    database: str = request.getfixturevalue("database_url") if store == "postgres" else ""
    async with house(tmp_path, database) as (home, api):
        await furnished(api)
        await every_model_fails(home, api)
        await every_wrong_credential(home.product, api)
        await every_wrong_call(await home.product.grpc())
        await everything_is_shown(api)
        if not database:
            await every_command_shows_it(home)
        async with Api(home.product.url, FIRST) as last:
            left = asyncio.ensure_future(last.send("acme/far/last", "hello"))
            await until(lambda: len(home.vendor.keys) > 1 and '"name": "turn' in home.product.log)  # the spans stand in the log
            await home.product.kill()
            await asyncio.gather(left, return_exceptions=True)
    async with home.product:
        pass
    assert b"sendMessage" in (tmp_path / "data" / "access.jsonl").read_bytes()


async def test_a_start_that_fails_says_nothing_of_it(tmp_path: Path) -> None:
    """Where a secret stands in the wrong place, or in the wrong form."""
    login, port = quote(planted.URL_PASSWORD, safe=""), "127.0.0.1:9"
    wrong = {
        "TALON_PROVIDERS_FAR_BASE_URL": f"http://talon:{login}@{port}/v1",
        "TALON_OBSERVE_OTLP_ENDPOINT": f"ftp://talon:{login}@{port}",
        "TALON_GATEWAY_AUTH_BOOTSTRAP_KEY": f"talon_{planted.URL_PASSWORD}",
        "TALON_SECRETS_KEY": planted.URL_PASSWORD,
        "DATABASE_URL": f"mysql://talon:{login}@{port}/talon",
        "TALON_CONTROL_PLANE_DATABASE_URL": f"postgresql://talon:{login}@{port}/talon",
    }
    far = ("--set", "providers.far.kind=openai")
    starts = [
        talon("up", "--port", "0", "--data-dir", name, *far, cwd=tmp_path, env={name: value}) for name, value in wrong.items()
    ]
    for name, (code, out, errors) in zip(wrong, await asyncio.gather(*starts), strict=True):
        assert (code in (1, 2), out) == (True, ""), (name, errors)
        assert "Traceback" not in errors, name


async def furnished(api: Api) -> None:
    """Secrets, right and wrong in every way, and an agent for each planted provider."""
    providers = ["far", *(f"planted-{kind.replace('_', '-')}" for kind in KINDS)]
    documents = [agent(name, name) for name in providers]
    await api.apply(yaml.safe_dump_all(documents))
    for name, value in SECRETS.items():
        status, _ = await api.call("PUT", f"/v1/ns/acme/secrets/{name}", secret(name, value=value))
        assert status in (200, 201)
    for wrong in (
        secret("s1", value=[SECRETS["s1"]]),
        secret("s1", vlaue=SECRETS["s1"]),
        {**secret("s1"), "spec": SECRETS["s1"]},
        {**secret("s1"), "value": SECRETS["s1"]},
        secret("s1", value=SECRETS["s1"] * 2000),
    ):
        status, _ = await api.call("PUT", "/v1/ns/acme/secrets/s1", wrong)
        assert 400 <= status < 500, wrong
    cut = yaml.safe_dump(secret("s1")) + "  more: [unclosed\n"
    status, _ = await api.call("POST", "/v1/apply", cut, headers={"Content-Type": "application/yaml"})
    assert 400 <= status < 500


async def every_model_fails(home: House, api: Api) -> None:
    """Each planted key on its way to a vendor that is not there; the secret's to one that says it back in every form."""
    agents = [item["metadata"]["name"] for item in (await api.get("/v1/ns/acme/agents"))["items"]]
    assert len(agents) == len(KINDS) + 1

    async def one(name: str) -> str:
        where = f"acme/{name}/s"
        turn = (await api.send(where, "hello"))["turn_id"]
        if name != "far":  # whether it goes on trying is another matter
            async with asyncio.timeout(30):
                async for event in api.events(where, turn=turn):
                    if event["type"] == "model.failed":
                        return str(event["payload"]["error"])
        return str((await api.end_of(where, turn))["payload"]["detail"])

    said = await asyncio.gather(*map(one, agents))
    assert any("authentication" in words for words in said)
    assert home.vendor.keys == [SECRETS["s0"]]


async def every_wrong_credential(up: Product, api: Api) -> None:
    """In each place where somebody may show one."""
    key, unknown = PLANTED["secret of JWTs"], f"talon_abcd_{PLANTED['first key']}"
    claims = {"iss": "i", "aud": "talon", "sub": "ann", "talon_grants": ["viewer@acme"]}
    fine, forged = jwt.encode({**claims, "exp": time.time() + 600}, key), jwt.encode({**claims, "exp": 1}, key)
    path = "/v1/ns/acme/agents"
    async with Api(up.url) as nobody:
        for shown in (f"Bearer {fine}", f"Bearer {forged}", planted.basic(), f"Bearer {unknown}", unknown, f"Bearer {unknown} x"):
            status, _ = await nobody.call("GET", path, headers={"Authorization": shown})
            assert status == (200 if shown.endswith(fine) else 401)
        for query in (f"api_key={quote(key, safe='')}", f"x={unknown}", f"access_token={unknown}", f"q={FIRST}"):
            assert (await nobody.call("GET", f"{path}?{query}"))[0] == 400
        for place in (f"/v1/ns/{FIRST}/agents", f"/{unknown}"):
            assert (await nobody.call("GET", place))[0] == 400
        for body in (f'{{"key": "{unknown}', b"\xff" + unknown.encode(), {"name": unknown, "grants": [unknown]}):
            for authorization in (f"Bearer {FIRST}", planted.basic()):
                status, _ = await nobody.call("POST", "/v1/auth/keys", body, headers={"Authorization": authorization})
                assert 400 <= status < 500
    made = await api.call(
        "POST", "/v1/auth/keys", {"name": "k", "grants": [{"role": "developer", "namespace": "acme"}]}, expect=201
    )
    async with Api(up.url, made[1]["secret"]) as theirs:
        await theirs.call("POST", "/v1/auth/tokens", {"namespace": "acme", "agent": "far"}, expect=201)
        await theirs.call("POST", "/v1/auth/session", expect=201)
        await api.call("DELETE", f"/v1/auth/keys/{made[1]['credential']['id']}", expect=204)
        assert (await theirs.call("GET", path))[0] == 401


async def every_wrong_call(address: str) -> None:
    """The same over gRPC."""
    async with grpc.aio.insecure_channel(address) as opened:
        channel: Any = opened
        stubs: Any = STUBS.SessionsStub(channel)
        for shown in (f"Bearer {FIRST}", planted.basic(), f"Bearer talon_abcd_{PLANTED['first key']}", PLANTED["first key"]):
            for message in (ref("s", "far"), ref("absent", "far")):
                said: list[object] = []
                try:
                    call = stubs.Get(message, metadata=[("authorization", shown), *planted.metadata()])
                    said += [await call, await call.initial_metadata()]
                except grpc.aio.AioRpcError as error:
                    said += [error.details(), error.trailing_metadata(), error.initial_metadata(), error.debug_error_string()]
                planted.nothing_in("gRPC", repr(said))
        raw = channel.unary_unary("/talon.v1.Sessions/Get")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await raw(PLANTED["Authorization: Basic"].encode(), metadata=[("authorization", f"Bearer {FIRST}")])
        stream = stubs.Stream(pb.StreamRequest(session=ref("s", "far"), after="0"), metadata=[("authorization", f"Bearer {FIRST}")])
        planted.nothing_in("a stream over gRPC", str(await stream.read()))
        stream.cancel()


async def everything_is_shown(api: Api) -> None:
    """Whatever reads. That nothing planted is in it is seen to where it arrives."""
    for path in (
        *("/openapi.json", "/readyz", "/v1/models", "/v1/models/tiers", "/v1/auth/whoami", "/v1/auth/keys?limit=500"),
        *("/v1/auth/log?limit=500", "/v1/namespaces", "/v1/ns/acme/export", "/v1/ns/acme/graph", "/v1/ns/acme/secrets"),
        *("/v1/ns/acme/secrets/s0", "/v1/ns/acme/secrets/s0/uses", "/v1/ns/acme/agents", "/v1/ns/acme/agents/planted-bedrock"),
    ):
        assert (await api.call("GET", path))[0] == 200, path
    for name in ("far", "planted-openai", "planted-bedrock"):
        assert await api.journal(f"acme/{name}/s")


async def every_command_shows_it(home: House) -> None:
    """The same as it is written to a terminal."""
    shell = Shell(home.product.url, home.directory, "acme")
    commands = (("export", "acme"), ("describe", "secret", "s0"), ("auth", "log", "-o", "jsonl"), ("model", "list"))
    ran = await asyncio.gather(*(shell.run(*command, TALON_API_KEY=FIRST) for command in commands))
    assert [code for code, _, _ in ran] == [0] * len(commands), ran
