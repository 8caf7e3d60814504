"""A provider that is dead, hangs, or throttles, under many running turns, on both stores, with workers killed at random: every turn
ends, on the next candidate, with what happened in its journal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from support.postgres import PostgresServer
from support.product import ENDS, Api, Product, session_path
from support.recorder import Recorder, answers, hangs, recording, refuses

#: Turns of each kind of outage.
TURNS = int(os.environ.get("OUTAGE_TURNS", "15"))
KILLS = int(os.environ.get("OUTAGE_KILLS", "3"))
#: The first candidate's trouble -> the classes of error that journals may tell of it.
OUTAGES = {"dead": {"connection"}, "hung": {"timeout"}, "throttled": {"rate_limit"}}
ENDED_S = 120.0


async def slowly(number: int, request: web.Request) -> web.StreamResponse:
    """The plain answer, late enough for kills to land in the middle of calls."""
    await asyncio.sleep(0.3)
    return await answers(number, request)


def config(vendor: Recorder) -> dict[str, Any]:
    vendor.behaviours |= {"hung": hangs, "throttled": refuses(429, "slow down", retry_after_s=300), "good": slowly}
    providers = {name: vendor.provider(name) for name in ("throttled", "good")}
    providers["hung"] = vendor.provider("hung", first_token_timeout_s=0.5)
    providers["dead"] = {**vendor.provider("dead"), "base_url": "http://127.0.0.1:9/v1"}  # nobody listens there
    return {"providers": providers, "worker": {"sweep_s": 0.25, "lease_ttl_s": 5}}


def agents() -> str:
    documents = [
        {
            "apiVersion": "talon.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": outage},
            "definition": {
                "modelPolicy": {
                    "profiles": [{"name": name, "model": {"provider": name, "name": "m"}} for name in (outage, "good")],
                }
            },
        }
        for outage in OUTAGES
    ]
    return yaml.safe_dump_all(documents)


class House:
    """Where clients go, and the processes that may be killed."""

    def __init__(self, entrance: Product, workers: list[Product]) -> None:
        self.entrance, self.workers = entrance, workers

    async def kill_one(self, rng: random.Random) -> None:
        """SIGKILL one that runs turns, and start it again."""
        worker = rng.choice(self.workers)
        await worker.kill()
        await worker.start()


@contextlib.asynccontextmanager
async def house(store: str, directory: Path, vendor: Recorder, database: str) -> AsyncGenerator[House]:
    """`talon up` on SQLite; a gateway and two workers on PostgreSQL."""
    (directory / "talon.yaml").write_text(yaml.safe_dump(config(vendor)))

    def product(role: str, name: str) -> Product:
        here = ("--config", str(directory / "talon.yaml"), "--data-dir", str(directory / "data"), "--name", name)
        grpc = () if role == "worker" else ("--gateway-grpc", "false")
        env = {"DATABASE_URL": database, "TALON_SECRETS_KEY": base64.b64encode(bytes(32)).decode()} if database else {}
        return Product(directory / name, role=role, args=(*here, *grpc), env=env)

    async with contextlib.AsyncExitStack() as stack:
        if store == "sqlite":
            up = await stack.enter_async_context(product("up", "up"))
            yield House(up, [up])
        else:
            gateway = await stack.enter_async_context(product("gateway", "g"))
            workers = [await stack.enter_async_context(product("worker", f"w{n}")) for n in range(2)]
            yield House(gateway, workers)


async def ended(home: House, where: str, turn: str) -> None:
    """Wait for the turn's end; the entrance may be away meanwhile."""
    async with asyncio.timeout(ENDED_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError, AssertionError):
                async with Api(home.entrance.url) as api:
                    row = await api.get(f"{session_path(where)}/turns/{turn}")
                    if row["state"] in ("completed", "failed", "cancelled", "denied"):
                        return
            await asyncio.sleep(0.3)


def check(outage: str, journal: list[dict[str, Any]]) -> Counter[str]:
    """What every journal must say; -> how often the first candidate failed, and how."""
    types = [entry["type"] for entry in journal]
    assert [type_ for type_ in types if type_ in ENDS] == ["turn.completed"], (outage, journal[-3:])
    started = [entry["payload"] for entry in journal if entry["type"] == "model.started"]
    finished = [entry["payload"] for entry in journal if entry["type"] == "model.finished"]
    failed = [entry["payload"] for entry in journal if entry["type"] == "model.failed"]
    lost = [
        entry["payload"] for entry in journal if entry["type"] == "stream.reset" and entry["payload"]["reason"] == "worker_lost"
    ]
    assert (started[-1]["provider"], len(finished)) == ("good", 1)
    assert len(started) == len(finished) + len(failed) + len(lost), "every attempt has an outcome, and one"
    assert {one["error"] for one in failed} <= OUTAGES[outage]
    end = next(entry["payload"] for entry in journal if entry["type"] == "turn.completed")
    attempts = [*finished, *failed, *lost]
    for field in ("input_tokens", "output_tokens"):
        assert end["usage"].get(field, 0) == sum(one.get("usage", {}).get(field, 0) for one in attempts), "each is counted once"
    return Counter(one["error"] for one in failed)


@pytest.mark.slow
@pytest.mark.timeout(3 * ENDED_S)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_every_turn_ends_on_the_next_candidate_with_what_happened_in_its_journal(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbits(32)
    print(f"SOAK_SEED={seed}")
    rng = random.Random(seed)
    server: PostgresServer | None = request.getfixturevalue("postgres") if store == "postgres" else None
    database = server.create_database() if server else ""
    async with recording() as vendor, house(store, tmp_path, vendor, database) as home:
        async with Api(home.entrance.url) as api:
            await api.apply(agents())
            places = [(outage, f"default/{outage}/s{number}") for number in range(TURNS) for outage in OUTAGES]
            sent = [(outage, where, (await api.send(where, "hello"))["turn_id"]) for outage, where in places]
        waiting = asyncio.gather(*(ended(home, where, turn) for _, where, turn in sent))
        for _ in range(KILLS):
            await asyncio.sleep(0.2 + rng.random())
            await home.kill_one(rng)
        await waiting
        failures: dict[str, Counter[str]] = {outage: Counter() for outage in OUTAGES}
        async with Api(home.entrance.url) as api:
            for outage, where, _ in sent:
                failures[outage] += check(outage, await api.journal(where))
            resting = {outage: await _resting(api, outage) for outage in OUTAGES}
        print(f"failures: {failures}; resting: {resting}")
        for outage, counted in failures.items():
            assert counted.total() >= 1, f"nobody met the outage {outage}"
        # A vendor that asks for five minutes is left alone by all workers, whoever was told.
        assert resting["throttled"], resting
        logs = [product.log for product in {id(one): one for one in (home.entrance, *home.workers)}.values()]
        assert all("Traceback" not in log for log in logs)
    if server:
        server.drop_database(database)


async def _resting(api: Api, agent: str) -> bool:
    """Whether an agent's first candidate is passed over now, as the API explains it."""
    explained = await api.get(f"/v1/ns/default/agents/{agent}/models")
    return any(f"{agent} is passed over now" in rule for rule in explained["rules"])
