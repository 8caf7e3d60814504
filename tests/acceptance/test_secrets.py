"""Secrets through the booted product: a value works the moment it is set, is nowhere to be seen, and outlives every kill."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml

from support.canary import files, leaks
from support.postgres import PostgresServer, database_of
from support.product import Api, Product, session_path
from support.stage import talon
from support.vendor import Vendor, vending
from support.waiting import until
from talon.cli.system import SystemClock, SystemIds
from talon.store.sqlite import open_store
from talon.vault.keyfile import FileRing
from talon.vault.vault import Vault

AGENT = """
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: helper, namespace: acme}
definition:
  systemPrompt: You are a helper.
  modelPolicy: {profiles: [{name: first, model: {provider: far, name: one}}]}
"""


def key(word: str) -> str:
    """A key with everything in it that encodings treat in their own way."""
    return f'sk-{word}"\\/+%7Q<&>' + base64.b85encode(os.urandom(24)).decode()


class House:
    """A running product, everything that it ever answered, and the commands' output."""

    def __init__(self, directory: Path, vendor: Vendor, env: dict[str, str]) -> None:
        self.directory, self.vendor, self.env = directory, vendor, env
        self.products: list[Product] = []
        self.said: list[bytes] = []
        self._count = 0

    def product(self, role: str, *args: str) -> Product:
        here = (
            "--data-dir",
            str(self.directory / "data"),
            "--config",
            str(self.directory / "talon.yaml"),
            "--observe-log-level",
            "debug",
        )
        one = Product(self.directory / role, role=role, args=(*here, *args), env=self.env)
        self.products.append(one)
        return one

    @property
    def url(self) -> str:
        return self.products[0].url

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """One request, its answer kept whole, headers included."""
        async with Api(self.url) as api:
            headers = {"Content-Type": kind} if body is not None else {}
            async with (
                aiohttp.ClientSession() as http,
                http.request(
                    method,
                    api.url + path,
                    json=body if not isinstance(body, str) else None,
                    data=body if isinstance(body, str) else None,
                    headers=headers if isinstance(body, str) else None,
                ) as answer,
            ):
                raw = await answer.read()
                self.said += [raw, repr(answer.raw_headers).encode()]
                return answer.status, await answer.json(
                    content_type=None
                ) if "json" in answer.content_type and raw else raw.decode()

    async def cli(self, *args: str, stdin: str = "") -> tuple[int, str]:
        code, out, errors = await talon(*args, cwd=self.directory, env={"TALON_SERVER": self.url}, stdin=stdin.encode())
        self.said += [out.encode(), errors.encode()]
        return code, out + errors

    async def turn(self) -> dict[str, Any]:
        """A message on a session of its own; -> the turn's end. Journal and stream are kept."""
        self._count += 1
        where = f"acme/helper/s{self._count}"
        async with Api(self.url) as api:
            turn = (await api.send(where, "hello"))["turn_id"]
            end = await api.end_of(where, turn)
        self.said.append(repr(end).encode())
        assert (await self.call("GET", f"{session_path(where)}/journal?limit=500"))[0] == 200
        return end


@contextlib.asynccontextmanager
async def house(directory: Path, roles: tuple[str, ...], **env: str) -> AsyncGenerator[House]:
    """The product with the provider `far`, whose key is the secret `acme/openai`."""
    async with vending() as vendor:
        provider = {"kind": "openai", "base_url": vendor.url, "api_key": "secret:acme/openai"}
        (directory / "talon.yaml").write_text(yaml.safe_dump({"providers": {"far": provider}}))
        home = House(directory, vendor, env)
        async with contextlib.AsyncExitStack() as stack:
            for role in roles:
                await stack.enter_async_context(home.product(role))
            status, answer = await home.call("POST", "/v1/apply", AGENT, "application/yaml")
            assert status == 200, answer
            yield home


@contextlib.asynccontextmanager
async def watching(home: House) -> AsyncGenerator[None]:
    """Keeps what a watch of the secrets and one of everything else tells."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{home.url}/v1/ns/acme/secrets?watch=true") as answer:
        assert answer.status == 200, await answer.text()

        async def keep() -> None:
            with contextlib.suppress(aiohttp.ClientError):
                async for chunk in answer.content.iter_any():
                    home.said.append(chunk)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def denied_then_answered(home: House, wrong: str, right: str) -> None:
    """No call without a key; a wrong one is refused by the vendor; the right one counts from the next call on."""
    end = await home.turn()
    assert (end["type"], end["payload"]["reason"]) == ("turn.denied", "unresolved_reference")
    assert "secret 'openai' of namespace 'acme'" in end["payload"]["detail"]
    assert home.vendor.keys == []
    code, words = await home.cli("secret", "set", "openai", "-n", "acme", stdin=wrong + "\n")
    assert (code, words.strip()) == (0, "Secret acme/openai created")
    end = await home.turn()
    assert (end["type"], end["payload"]["reason"]) == ("turn.failed", "model_failed"), end
    assert "authentication" in end["payload"]["detail"]
    code, words = await home.cli("secret", "set", "openai", "-n", "acme", stdin=right)
    assert (code, words.strip()) == (0, "Secret acme/openai set")
    assert (await home.turn())["type"] == "turn.completed"
    assert home.vendor.keys == [wrong, right]


async def everything_is_asked(home: House, value: str) -> None:
    """Each way in which something of a secret could be shown, mistakes included."""
    secrets = "/v1/ns/acme/secrets"
    for path in (
        secrets,
        f"{secrets}/openai",
        f"{secrets}/openai/uses",
        f"{secrets}/openai/users",
        "/v1/ns/acme/export",
        "/v1/ns/acme/graph",
    ):
        assert (await home.call("GET", path))[0] == 200, path
    manifest = {"apiVersion": "talon.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "openai", "namespace": "acme"}}
    assert (await home.call("PUT", f"{secrets}/openai", {**manifest, "spec": {"value": value}}))[0] == 200, "the same value again"
    wrong: list[Any] = [
        {"spec": {"value": [value]}},
        {"spec": {"value": {"it": value}}},
        {"spec": {"value": value, "vlaue": value}},
        {"spec": {"value": value * 2000}},
        {"spec": value},
        {"spec": {"value": value, "description": ["x"]}},
        {"spec": {"value": value}, "metadata": {"name": "no name"}},
        {"value": value},
    ]
    for one in wrong:
        status, _ = await home.call("PUT", f"{secrets}/openai", {**manifest, **one})
        assert 400 <= status < 500, one
        status, _ = await home.call("PATCH", f"{secrets}/openai", {key: one[key] for key in one if key != "metadata"} or one)
    document = yaml.safe_dump({**manifest, "spec": {"value": value}})
    for text in (
        f"{document}---\n{AGENT.replace('provider: far', 'provider: [far]')}",
        document.replace("spec:", "spec: &a"),
        f"{document}spec: *nowhere\n",
        f"{document}  value: {value!r}\n",
        f"kind: Secret\nspec:\n  value: !!binary {value!r}\n",
        f"{document}\x07",
    ):
        status, answer = await home.call("POST", "/v1/apply", text, "application/yaml")
        assert 400 <= status < 500 or status == 200, answer
    assert (await home.call("POST", "/v1/apply?dry_run=true", document, "application/yaml"))[0] == 200
    assert 400 <= (await home.call("PUT", f"{secrets}/openai", f'{{"spec": {{"value": "{value}"'))[0] < 500
    _, words = await home.cli("secret", "uses", "openai", "-n", "acme", "-o", "json")
    assert "providers.far.api_key" in words
    assert '"worker/' in words


async def every_command_shows_it(home: House, value: str) -> None:
    """The same at the command line."""
    for args in (
        ("secret", "list"),
        ("secret", "uses", "openai"),
        ("get", "secret", "openai", "-o", "yaml"),
        ("describe", "secret", "openai"),
    ):
        code, words = await home.cli(*args, "-n", "acme")
        assert code == 0, words
    manifest = f"apiVersion: talon.dev/v1alpha1\nkind: Secret\nmetadata: {{name: openai}}\nspec: {{value: {value!r}}}\n"
    (home.directory / "both.yaml").write_text(f"{manifest}---\nkind: Nothing\n")
    assert (await home.cli("apply", "-f", "both.yaml"))[0] in (2, 3)
    (home.directory / "both.yaml").unlink()


def nothing_of(values: tuple[str, ...], home: House, *directories: Path) -> None:
    """Neither in anything that was said nor in any file."""
    told = b"\n".join(home.said)
    assert b"openai" in told
    assert leaks(told, *values) == []
    seen = 0
    for path, data in files(home.directory, *directories):
        seen += b"acme" in data
        assert leaks(data, *values) == [], path
    assert seen >= 3, "the database and the log are among the files that were looked at"


def test_the_search_finds_what_was_left_in_any_form(tmp_path: Path) -> None:
    """The control: a search that cannot find proves nothing."""
    planted = key("planted")
    data = planted.encode()
    shown = (planted, json.dumps(planted), repr(planted), data.hex(), quote(planted), base64.b64encode(b"u:" + data).decode())
    for text in shown:
        (tmp_path / "left").write_text(f"before {text} after")
        assert [path for path, found in files(tmp_path) if leaks(found, planted)] == [tmp_path / "left"], text
    connection = sqlite3.connect(tmp_path / "left.db")
    connection.execute("pragma journal_mode=wal")
    with connection:
        connection.execute("create table t (v text)")
        connection.execute("insert into t values (?)", (planted,))
    assert leaks((tmp_path / "left.db-wal").read_bytes(), planted)
    connection.close()
    assert not leaks(b"before " + data[:-1] + b" after", planted)


@pytest.mark.timeout(180)
async def test_on_sqlite_a_value_works_at_once_and_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    wrong, right = key("wrong"), key("right")
    async with house(tmp_path, ("up",)) as home:
        home.vendor.accepted.add(right)
        async with watching(home):
            await denied_then_answered(home, wrong, right)
            await everything_is_asked(home, right)
            await every_command_shows_it(home, right)
            code, words = await home.cli("secret", "rotate-key")
            assert code == 0, words
            assert "1 value moved to a new key" in words
            assert (await home.turn())["type"] == "turn.completed"
        assert (tmp_path / "data" / "secrets.key").stat().st_mode & 0o777 == 0o600
        await home.products[0].kill()
        assert (tmp_path / "data" / "talon.db-wal").exists(), "what was just written stands in the WAL"
        nothing_of((wrong, right), home)
        await home.products[0].start()
        assert (await home.turn())["type"] == "turn.completed", "the value survives a kill"
        code, words = await home.cli("secret", "delete", "openai", "-n", "acme", "--yes")
        assert code == 0, words
        assert (await home.turn())["payload"]["reason"] == "unresolved_reference", "a revoked value is used no more"
        nothing_of((wrong, right), home)


@pytest.mark.timeout(180)
async def test_on_postgres_a_value_works_at_once_and_is_nowhere_to_be_seen(
    tmp_path: Path, postgres: PostgresServer, database_url: str
) -> None:
    wrong, right = key("wrong"), key("right")
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    ring = tmp_path / "ring"
    ring.touch(0o600)
    ring.write_text(old)
    env = {"DATABASE_URL": database_url, "TALON_SECRETS_KEY_FILE": str(ring)}
    async with house(tmp_path, ("gateway", "worker"), **env) as home:
        home.vendor.accepted.add(right)
        async with watching(home):
            await denied_then_answered(home, wrong, right)
            await everything_is_asked(home, right)
            assert "no value had another key" in (await home.cli("secret", "rotate-key"))[1]
            fresh = tmp_path / "fresh"
            fresh.touch(0o600)
            fresh.write_text(f"{new}\n{old}\n")
            fresh.rename(ring)
            code, words = await home.cli("secret", "rotate-key")
            assert code == 0, words
            assert "1 value moved to the newest key" in words
            assert (await home.turn())["type"] == "turn.completed", "the worker reads the file again"
        for product in home.products:
            await product.kill()
        postgres.sql("checkpoint", database_of(database_url))
        nothing_of((wrong, right), home, postgres.directory / "data")
        for text in (old, new):
            told = b"\n".join((*home.said, *(one.log.encode() for one in home.products)))
            assert leaks(told, text, base64.b64decode(text).hex()) == []


async def test_on_postgres_without_a_key_storing_is_refused_and_everything_else_works(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path, ("gateway", "worker"), DATABASE_URL=database_url) as home:
        for args in (("set", "openai", "-n", "acme"), ("rotate-key",)):
            code, words = await home.cli("secret", *args, stdin="sk-1")
            assert code == 3, words
            assert "TALON_SECRETS_KEY" in words
            assert "[secret_key_missing]" in words
        assert (await home.call("GET", "/v1/ns/acme/secrets/openai"))[0] == 404, "nothing was written"
        assert (await home.turn())["payload"]["reason"] == "unresolved_reference"


async def test_a_key_file_that_others_may_read_keeps_the_program_from_starting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "secrets.key"
    file.write_text(base64.b64encode(bytes(32)).decode())
    file.chmod(0o640)
    code, out, errors = await talon("up", "--port", "0", "--data-dir", "data", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert f"run `chmod 600 {file}`" in errors
    assert "AAAA" not in errors


@pytest.mark.timeout(180)
async def test_a_rotation_that_is_killed_at_any_moment_loses_nothing_and_is_gone_on_with(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    values = {f"s{number}": key(str(number)) for number in range(60)}
    kills = moved = 0
    async with house(tmp_path, ("up",)) as home:
        home.vendor.accepted.add("sk-fine")
        values["openai"] = "sk-fine"
        documents = [
            {
                "apiVersion": "talon.dev/v1alpha1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": "acme"},
                "spec": {"value": value},
            }
            for name, value in values.items()
        ]
        status, answer = await home.call("POST", "/v1/apply", yaml.safe_dump_all(documents), "application/yaml")
        assert status == 200, answer
        up = home.products[0]
        for _ in range(3):
            before = key_ids(tmp_path)
            rotating = asyncio.create_task(home.call("POST", "/v1/secrets/rotate-key"))
            reading = asyncio.create_task(home.turn())
            share = chance.random()
            await until(lambda task=rotating, share=share, before=before: task.done() or moved_share(tmp_path, before) >= share)
            await up.kill()
            rotated, read = await asyncio.gather(rotating, reading, return_exceptions=True)
            kills += isinstance(rotated, BaseException)
            assert isinstance(read, BaseException) or read["type"] == "turn.completed"
            moved += key_ids(tmp_path) != before
            await up.start()
            await until(lambda: len(key_ids(tmp_path)) == 1)
            assert (await home.turn())["type"] == "turn.completed"
        assert kills > 0
        assert moved > 0
        await up.stop()
        store = await open_store(tmp_path / "data" / "talon.db", SystemClock(), SystemIds())
        try:
            vault = Vault(store, FileRing(tmp_path / "data" / "secrets.key", owned=True), SystemClock(), hide=lambda _: None)
            vault_read = {name: await vault.read("acme", name, "test", "looking") for name in values}
        finally:
            await store.close()
        assert vault_read == values


def key_ids(directory: Path) -> dict[str, int]:
    """How many values are under each key, as the database says."""
    connection = sqlite3.connect(f"file:{directory / 'data' / 'talon.db'}?mode=ro", uri=True, timeout=10)
    try:
        return dict(connection.execute("select key_id, count(*) from sealed_values group by key_id").fetchall())
    finally:
        connection.close()


def moved_share(directory: Path, before: dict[str, int]) -> float:
    """The part of the values that is under a key of which there was none before."""
    now = key_ids(directory)
    return sum(count for key_id, count in now.items() if key_id not in before) / max(1, sum(now.values()))
