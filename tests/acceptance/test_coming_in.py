"""Who comes in, through the booted product: the first key, logging in, keys and tokens that end everywhere at once, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
import pytest

from support.canary import files, leaks
from support.certificates import Authority
from support.idp import Signer
from support.product import Api, Product
from support.rpc import STUBS, ref
from support.stage import talon
from support.waiting import until
from talon.v1 import talon_pb2 as pb

AGENT = """
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: helper}
definition:
  systemPrompt: You are a helper.
  modelPolicy: {profiles: [{name: first, model: {provider: scripted, name: one}}]}
"""
SETTINGS = "providers: {scripted: {script: script.yaml}}\napply: [agent.yaml]\n"
SESSIONS = "/v1/ns/default/agents/helper/sessions"
FIRST = f"talon_first_{'k' * 48}"
#: A revoked key is nobody within this everywhere, and its streams have ended.
AT_ONCE_S = 1.0
#: So many streams over each of HTTP and gRPC.
CROWD = 1000


#: What these tests give themselves, or want to be missing.
NOT_GIVEN = {"TALON_GATEWAY_AUTH_BOOTSTRAP_KEY": "", "TALON_GATEWAY_AUTH_JWT_SECRET": "", "TALON_API_KEY": ""}


class House:
    """A directory with settings, and commands in it."""

    def __init__(self, directory: Path, **env: str) -> None:
        self.directory = directory
        self.env = {"XDG_CONFIG_HOME": str(directory / "config"), **NOT_GIVEN, **env}
        for name, text in (("agent.yaml", AGENT), ("script.yaml", "default: {text: hello}\n"), ("talon.yaml", SETTINGS)):
            (directory / name).write_text(text)

    def product(self, *args: str, role: str = "up", **env: str) -> Product:
        """One process."""
        return Product(self.directory, role, ("--set", "gateway.auth.mode=api_key,jwt", *args), {**JWT, **self.env, **env})

    async def talon(self, *args: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        """One command."""
        return await talon(*args, cwd=self.directory, env={**self.env, **env}, stdin=stdin.encode())

    async def says(self, *args: str, stdin: str = "", **env: str) -> str:
        """The stdout of a command that must succeed."""
        code, out, errors = await self.talon(*args, stdin=stdin, **env)
        assert code == 0, errors
        return out.strip()


SIGNER = Signer("EdDSA", "k1")
JWT = {
    "TALON_GATEWAY_AUTH_JWT_ALGORITHM": "EdDSA",
    "TALON_GATEWAY_AUTH_JWT_ISSUER": "https://idp.example",
    "TALON_GATEWAY_AUTH_JWT_AUDIENCE": "talon",
    "TALON_GATEWAY_AUTH_JWT_KEY_FILE": "signer.pem",
}


def signed(**more: Any) -> str:
    """A token of somebody whom the signer knows as a viewer of `default`."""
    claims = {"iss": "https://idp.example", "aud": "talon", "sub": "ann", "exp": time.time() + 600}
    return SIGNER.sign({**claims, "talon_grants": ["viewer@default"], **more})


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def answered(http: aiohttp.ClientSession, method: str, url: str, secret: str, **more: Any) -> tuple[int, Any]:
    async with http.request(method, url, headers=bearing(secret), **more) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


async def ends(answer: aiohttp.ClientResponse) -> float:
    """Read a stream to its end; -> when that was."""
    async with asyncio.timeout(10):
        while await answer.content.readany():
            pass
    return asyncio.get_running_loop().time()


async def test_the_first_key_is_in_a_file_and_opens_everything(tmp_path: Path) -> None:
    home = House(tmp_path)
    (tmp_path / "signer.pem").write_bytes(SIGNER.pem)
    key_file = tmp_path / "talon-data" / "admin.key"
    async with home.product() as product, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http:
        home.env["TALON_SERVER"] = product.url
        assert key_file.stat().st_mode & 0o777 == 0o600
        first = key_file.read_text().strip()
        code, _, errors = await home.talon("auth", "login", stdin=first[:-1])
        assert (code, "[unauthenticated]" in errors) == (3, True)
        assert "key:" in await home.says("auth", "login", stdin=first + "\n")
        assert "helper" in await home.says("get", "agents")  # what the setting `apply` brought in, past the same door
        made = json.loads(await home.says("auth", "key", "create", "eyes", "--grant", "viewer@default", "-o", "json"))
        eyes = made["secret"]
        assert "viewer@default" in await home.says("auth", "whoami", TALON_API_KEY=eyes)
        assert (await answered(http, "GET", product.url + SESSIONS, eyes))[0] == 200
        assert (await answered(http, "POST", product.url + SESSIONS, eyes, json={"id": "s1"}))[1]["code"] == "forbidden"
        who = await answered(http, "GET", product.url + "/v1/auth/whoami", signed())
        assert (who[0], who[1]["id"], who[1]["grants"]) == (200, "user:https://idp.example#ann", ["viewer@default"])
        await home.says("auth", "key", "revoke", made["credential"]["id"])
        assert (await answered(http, "GET", product.url + SESSIONS, eyes))[0] == 401

        async def is_logged() -> bool:
            lines = (await home.says("auth", "log", "--outcome", "!ok", "-o", "jsonl")).splitlines()
            return {json.loads(line)["outcome"] for line in lines} == {"unauthenticated", "forbidden"}

        await until(is_logged)
        said = product.log.encode()
    key_file.unlink()
    async with home.product() as product, aiohttp.ClientSession() as http:  # a key is alive: no other is made
        assert not key_file.exists()
        assert (await answered(http, "GET", product.url + "/v1/auth/whoami", first))[0] == 200
        said += product.log.encode()
    stored = b"".join(data for _, data in files(tmp_path / "talon-data"))
    secrets = [one.rpartition("_")[2] for one in (first, eyes)]
    assert leaks(said + stored, *secrets) == []


async def test_a_revoked_key_is_nobody_at_every_gateway_within_a_second_and_its_streams_end(
    tmp_path: Path, database_url: str
) -> None:
    env = {"DATABASE_URL": database_url, "TALON_GATEWAY_AUTH_BOOTSTRAP_KEY": FIRST}
    homes = [House(tmp_path / name, **env) for name in ("a", "b") if not (tmp_path / name).mkdir()]
    for home in homes:
        (home.directory / "signer.pem").write_bytes(SIGNER.pem)
    async with (
        homes[0].product() as one,
        homes[1].product(role="gateway") as two,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http,
    ):
        status, _ = await answered(http, "POST", one.url + SESSIONS, FIRST, json={"id": "s1"})
        assert status == 201
        body = {"name": "k", "grants": [{"role": "operator", "namespace": "default"}]}
        _, made = await answered(http, "POST", one.url + "/v1/auth/keys", FIRST, json=body)
        asked = {"namespace": "default", "agent": "helper", "session": "s1"}
        _, minted = await answered(http, "POST", two.url + "/v1/auth/tokens", made["secret"], json=asked)
        secrets = [made["secret"], minted["secret"]]
        streams = [
            await http.get(f"{product.url}{SESSIONS}/s1/stream", headers=bearing(secret))
            for product in (one, two)
            for secret in (*secrets, FIRST)
        ]
        assert [stream.status for stream in streams] == [200] * 6
        reading = [asyncio.ensure_future(ends(stream)) for stream in streams]
        started = asyncio.get_running_loop().time()
        status, _ = await answered(http, "DELETE", f"{one.url}/v1/auth/keys/{made['credential']['id']}", FIRST)
        assert status == 204
        ended = [await reading[number] for number in (0, 1, 3, 4)]
        print("streams ended after", [round(at - started, 3) for at in ended])
        assert max(ended) - started < AT_ONCE_S
        for product in (one, two):
            for secret in secrets:
                status, answer = await answered(http, "GET", f"{product.url}{SESSIONS}/s1", secret)
                assert (status, answer["code"]) == (401, "unauthenticated")
        assert not reading[2].done()  # another's goes on
        assert not reading[5].done()
        for stream in streams:
            stream.close()
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
        assert FIRST not in one.log + two.log


async def over_http(url: str, secret: str, opened: contextlib.AsyncExitStack) -> list[Awaitable[object]]:
    """So many streams, begun; -> what waits for the end of each."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"GET {SESSIONS}/s1/stream HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
    readers: list[asyncio.StreamReader] = []
    for _ in range(CROWD):
        reader, writer = await asyncio.open_connection(host, int(port))
        opened.callback(writer.close)
        writer.write(head)
        readers.append(reader)
    for reader in readers:
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return [reader.readuntil(b"\r\n0\r\n\r\n") for reader in readers]


async def over_grpc(channel: grpc.aio.Channel, secret: str) -> list[Awaitable[object]]:
    """The same over gRPC: what waits fails with the status that the stream was ended with."""
    stubs: Any = STUBS.SessionsStub(channel)
    message = pb.StreamRequest(session=ref("s1", "helper", "default"))
    calls = [stubs.Stream(message, metadata=[("authorization", f"Bearer {secret}")]) for _ in range(CROWD)]
    await asyncio.gather(*(call.initial_metadata() for call in calls))
    return [call.read() for call in calls]


@pytest.mark.timeout(180)
async def test_a_thousand_streams_over_http_and_a_thousand_over_grpc_end_with_their_key_within_a_second(tmp_path: Path) -> None:
    home = House(tmp_path, TALON_GATEWAY_AUTH_BOOTSTRAP_KEY=FIRST, TALON_GATEWAY_PRINCIPAL_REQUESTS_PER_S="0")
    (tmp_path / "signer.pem").write_bytes(SIGNER.pem)
    async with contextlib.AsyncExitStack() as opened, home.product() as product:
        http = await opened.enter_async_context(Api(product.url, FIRST))
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(await product.grpc()))
        await http.call("POST", SESSIONS, {"id": "s1"}, expect=201)
        key = {"name": "k", "grants": [{"role": "operator", "namespace": "default"}]}
        _, made = await http.call("POST", "/v1/auth/keys", key, expect=201)
        _, other = await http.call("POST", "/v1/auth/keys", key, expect=201)
        stubs: Any = STUBS.SessionsStub(channel)
        request = pb.StreamRequest(session=ref("s1", "helper", "default"))
        theirs = stubs.Stream(request, metadata=[("authorization", f"Bearer {other['secret']}")])
        waiting = [*await over_http(product.url, made["secret"], opened), *await over_grpc(channel, made["secret"])]
        reading = [asyncio.ensure_future(one) for one in waiting]
        started = asyncio.get_running_loop().time()
        await http.call("DELETE", f"/v1/auth/keys/{made['credential']['id']}", expect=204)
        done, _ = await asyncio.wait(reading, timeout=20)
        took = asyncio.get_running_loop().time() - started
        print(f"{len(done)} streams ended after {took:.3f} s")
        assert len(done) == 2 * CROWD
        statuses = {error.code() for one in reading if isinstance(error := one.exception(), grpc.aio.AioRpcError)}
        assert statuses == {grpc.StatusCode.UNAUTHENTICATED}
        assert took < AT_ONCE_S
        await http.send("default/helper/s1", "still there?")
        assert (await asyncio.wait_for(theirs.read(), 10)).type == "message.received", "another's goes on"
        theirs.cancel()


async def test_tls_with_certificates_of_clients_renewed_without_a_restart(tmp_path: Path) -> None:
    authority = Authority()
    home = House(tmp_path)
    (tmp_path / "signer.pem").write_bytes(SIGNER.pem)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    authority.files(tmp_path, "server")
    cert, key = authority.files(tmp_path, "client")
    shown = {"TALON_CA_FILE": "ca.pem", "TALON_CERT_FILE": str(cert), "TALON_KEY_FILE": str(key)}
    files_of: Mapping[str, str] = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    args = [word for name, path in files_of.items() for word in (f"--gateway-tls-{name.replace('_', '-')}", path)]
    async with home.product(*args, TALON_GATEWAY_AUTH_BOOTSTRAP_KEY=FIRST) as product:
        assert product.url.startswith("https://127.0.0.1:")
        home.env |= {"TALON_SERVER": product.url, "TALON_API_KEY": FIRST}
        assert "key:first" in await home.says("auth", "whoami", **shown)
        assert "helper" in await home.says("get", "agents", **shown)
        for missing in ("TALON_CA_FILE", "TALON_CERT_FILE"):
            less = {name: value for name, value in shown.items() if name != missing}
            code, _, errors = await home.talon("auth", "whoami", **less)
            assert code == 1
            assert missing in errors
        port = int(product.url.rpartition(":")[2])

        def served() -> bytes:
            return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))

        before = await asyncio.to_thread(served)
        renewed = authority.issue("server")
        for name, data in zip(("server.pem", "server.key"), renewed, strict=True):
            (tmp_path / name).write_bytes(data)

        async def is_renewed() -> bool:
            return await asyncio.to_thread(served) != before

        await until(is_renewed, 10)
        assert "key:first" in await home.says("auth", "whoami", **shown)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--host", "0.0.0.0", "--gateway-auth-mode", "none"), "gateway.auth.mode"),
        (("--gateway-tls-cert", "none.pem", "--gateway-tls-key", "none.key"), "gateway.tls.cert"),
        (("--gateway-auth-jwt-key-file", "talon.yaml"), "gateway.auth.jwt.key_file"),
    ],
)
async def test_what_cannot_work_keeps_it_from_starting_and_is_named(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    home = House(tmp_path, **JWT, TALON_GATEWAY_AUTH_MODE="jwt")
    (tmp_path / "signer.pem").write_bytes(SIGNER.pem)
    code, out, errors = await home.talon("up", "--port", "0", *args)
    assert (code, out) == (2, "")
    assert words in errors
    assert "Traceback" not in errors


def test_the_tokens_of_these_tests_are_genuine() -> None:
    claims = jwt.decode(signed(), SIGNER.key.public_key(), ["EdDSA"], audience="talon")
    assert claims["sub"] == "ann"
