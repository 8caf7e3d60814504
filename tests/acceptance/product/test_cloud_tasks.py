"""Schedules with Cloud Tasks as their clock, through booted processes: it calls, the database decides, and is enough without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from support.cloudtasks import ACCOUNT, FakeCloudTasks, cloud_tasks
from support.idp import Idp, Signer, provider
from support.postgres import PostgresServer, database_of
from support.product import Api, Product
from support.stage import Stage, path, set_stage
from support.tasksemulator import Looking
from support.waiting import BOUND_S, until
from talon.access.tokens import signed

pytestmark = pytest.mark.asyncio(loop_scope="session")
NS = "/v1/ns/default/schedules"
ROUTE = "/v1/callbacks/schedules"
SECRET = "a secret that all processes of these tests have"
LATE_S = 4.0
Bodies = list[dict[str, Any]]


@dataclass
class World:
    """A stage with the fake beside it. `called` is the whole URL for which tokens are made, `ports` where calls are taken."""

    stage: Stage
    fake: FakeCloudTasks
    called: str
    ports: list[str]

    async def schedule(self, name: str, **spec: Any) -> str:
        """Apply a schedule that wakes a session of its name; -> its uid."""
        target = {"agent": "helper", "sessionMode": "named", "sessionId": name}
        body = {"kind": "at", "target": target, "inputMessage": f"wake {name}", **spec}
        one = {"apiVersion": "talon.dev/v1alpha1", "kind": "Schedule", "metadata": {"name": name}, "spec": body}
        await self.stage.api.apply(yaml.safe_dump(one))
        return (await self.stage.api.get(f"{NS}/{name}"))["metadata"]["uid"]

    async def task(self, uid: str) -> str:
        """Wait until Cloud Tasks was told of its occurrence; -> the task's name."""
        await until(lambda: len(self.fake.of(uid)) > 0)
        (name,) = self.fake.of(uid)
        return name

    async def told(self, name: str) -> int:
        """How often its session was woken."""
        code, page = await self.stage.api.call("GET", path(f"default/helper/{name}", "journal?limit=500"))
        return 0 if code == 404 else sum(one["type"] == "message.received" for one in page["items"])

    async def woken(self, name: str) -> dict[str, Any]:
        """Wait until it has fired; -> the newest record of its history."""

        async def fired() -> bool:
            return await self.told(name) > 0

        await until(fired)
        return (await self.stage.api.get(f"{NS}/{name}/history"))["items"][0]

    async def call(self, token: str, body: Any, port: int = 0) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Call as Cloud Tasks would; -> (status, answer, headers)."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.ports[port] + ROUTE, data=json.dumps(body), headers=headers) as answer,
        ):
            return answer.status, await answer.json(), dict(answer.headers)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def calls_at(up: Product) -> str:
    """Where `talon up` takes calls: a line behind that of gRPC."""
    await up.grpc()
    assert up.process is not None
    assert up.process.stdout is not None
    line = await asyncio.wait_for(up.process.stdout.readline(), BOUND_S)
    return line.decode().strip().removeprefix("talon callbacks ")


def inside(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def settings(fake: FakeCloudTasks, url: str, **more: Any) -> dict[str, Any]:
    where = {"project": "p", "location": "europe-west3", "queue": "wakeups", "callback_url": url, "endpoint": fake.endpoint}
    account = {"service_account": ACCOUNT, "issuer": fake.idp.url, "jwks_url": f"{fake.idp.url}/jwks", "secret": SECRET}
    tasks = {**where, **account, **more}
    return {"scheduler": {"backend": "cloud_tasks", "hold_s": 1, "cloud_tasks": {"late_s": LATE_S, **tasks}}}


@contextlib.asynccontextmanager
async def embedded(directory: Path, fake: FakeCloudTasks, **tasks: Any) -> AsyncGenerator[World]:
    """`talon up` on SQLite, whose own port takes the calls."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = settings(fake, url, port=port, **tasks)
    async with set_stage(directory, control_plane=config) as stage, stage.product() as up, Api(up.url) as api:
        stage.gateways, stage.workers, stage.apis = [up], [up], [api]
        assert await calls_at(up) == url
        await stage.agent()
        yield World(stage, fake, url + ROUTE, [url])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fake() -> AsyncGenerator[FakeCloudTasks]:
    """The fake, whose tokens an identity provider on a port of its own signs."""
    async with provider() as idp, cloud_tasks(idp) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sqlite(fake: FakeCloudTasks, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """`talon up` on SQLite."""
    async with embedded(tmp_path_factory.mktemp("tasks"), fake) as world:
        yield world
        assert "Traceback" not in world.stage.log, world.stage.log


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def spread(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> AsyncGenerator[World]:
    """A gateway and two workers on PostgreSQL; calls go to the workers' own ports, and the fake calls the first."""
    database, url = postgres.create_database(), "https://wakeups.talon.example"
    async with provider() as idp, cloud_tasks(idp) as fake:
        config = settings(fake, url)
        async with (
            set_stage(tmp_path_factory.mktemp("spread-tasks"), database, control_plane=config) as stage,
            stage.product("gateway", "gateway") as gateway,
            stage.product("worker", "worker0") as first,
            stage.product("worker", "worker1") as second,
            Api(gateway.url) as api,
        ):
            stage.gateways, stage.workers, stage.apis = [gateway], [first, second], [api]
            fake.deliver_to = first.url
            await stage.agent()
            yield World(stage, fake, url + ROUTE, [first.url, second.url])
            assert "Traceback" not in stage.log, stage.log
    postgres.drop_database(database)


@pytest.fixture(params=["sqlite", "spread"])
def world(request: pytest.FixtureRequest) -> World:
    """Either of them."""
    found: World = request.getfixturevalue(request.param)
    found.fake.mute = found.fake.down = False
    return found


def forged(world: World, task: str) -> dict[str, str]:
    """Tokens that must not count, by what is wrong with them."""
    idp, called, now = world.fake.idp, world.called, int(time.time())
    good = {"iss": "talon", "aud": called, "sub": task, "iat": now, "exp": now + 60}
    stranger = Idp(url=idp.url, signer=Signer("RS256", "k1"), client_id=called)
    account = {"aud": called, "email": ACCOUNT, "email_verified": True}
    return {
        "none": "",
        "no token": "x.y.z",
        "expired": signed({**good, "iat": now - 900, "exp": now - 600}, SECRET.encode()),
        "for another audience": signed({**good, "aud": "https://elsewhere.example"}, SECRET.encode()),
        "by another secret": signed(good, b"another secret, of which nobody knows here"),
        "for another task": signed({**good, "sub": "another"}, SECRET.encode()),
        "account's, expired": world.fake.token(aud=called, iat=now - 900, exp=now - 600),
        "account's, for another audience": world.fake.token(aud="https://elsewhere.example"),
        "account's, of another issuer": world.fake.token(aud=called, iss="https://elsewhere.example"),
        "another account's": world.fake.token(aud=called, email="other@p.iam.gserviceaccount.com"),
        "account's, not verified": world.fake.token(aud=called, email_verified=False),
        "account's, by another key": stranger.token(**account),
    }


async def test_a_call_fires_an_occurrence_once_and_only_when_it_is_due(world: World) -> None:
    """Early, forged, a hundred at once, late: one message."""
    name, fake = "once", world.fake
    fake.mute = True
    uid = await world.schedule(name, at=inside(2.0))
    task = await world.task(uid)
    body, due_s = fake.body(task), fake.tasks[task].schedule_time.timestamp()
    genuine = fake.token(aud=world.called)

    status, answer, headers = await world.call(genuine, body)
    assert (status, answer) == (425, {"outcome": "early"})
    assert 1 <= int(headers["Retry-After"]) <= 2
    await until(lambda: time.time() > due_s + 0.05)
    for why, token in forged(world, task).items():
        status, answer, headers = await world.call(token, body)
        assert (status, answer["code"]) == (401, "unauthenticated"), why
        assert headers["WWW-Authenticate"].startswith("Bearer"), why
    wrongs: list[Any] = [{}, [], {**body, "more": 1}, {**body, "occurrence_ms": "now"}]
    for wrong in wrongs:
        assert (await world.call(genuine, wrong))[0] == 400
    assert (await world.call(genuine, {**body, "uid": "x" * 5000}))[0] == 413
    assert (await world.call(genuine, {**body, "occurrence_ms": body["occurrence_ms"] - 1}))[1] == {"outcome": "moved_on"}
    assert (await world.call(genuine, {**body, "uid": "nobody"}))[1] == {"outcome": "moved_on"}
    assert await world.told(name) == 0
    assert time.time() < due_s + LATE_S, "too slow to tell a call from the sweep"

    answers = await asyncio.gather(*(world.call(genuine, body, number % len(world.ports)) for number in range(100)))
    assert {status for status, _, _ in answers} == {200}
    assert "taken" in {answer["outcome"] for _, answer, _ in answers}
    own = signed({"iss": "talon", "aud": world.called, "sub": task, "exp": int(due_s) + 600}, SECRET.encode())
    assert (await world.call(own, body))[:2] == (200, {"outcome": "moved_on"})
    fake.mute = False
    await until(lambda: fake.outcomes(uid) == [(200, "moved_on")])  # its own call comes late
    assert await world.told(name) == 1
    (record,) = (await world.stage.api.get(f"{NS}/{name}/history"))["items"]
    assert record["lag_ms"] < LATE_S * 1000
    assert fake.tasks == {}


async def test_each_occurrence_of_a_schedule_is_called_for_and_fires_once(world: World) -> None:
    name = "often"
    uid = await world.schedule(name, kind="every", every="1s")

    async def often() -> bool:
        return await world.told(name) >= 3

    await until(often)
    await world.stage.api.call("POST", f"{NS}/{name}/pause", {}, expect=200)
    records = (await world.stage.api.get(f"{NS}/{name}/history"))["items"]
    assert len({one["at"] for one in records}) == len(records) == await world.told(name)
    assert max(one["lag_ms"] for one in records) < LATE_S * 1000
    assert world.fake.outcomes(uid).count((200, "taken")) == len(records)
    found = (await world.stage.api.get(f"{NS}/{name}"))["status"]
    assert [one["reason"] for one in found["conditions"]] == ["Resolved", "Paused"]


async def test_what_is_changed_paused_or_deleted_takes_its_task_with_it_and_old_calls_fire_nothing(world: World) -> None:
    name, fake = "changed", world.fake
    uid = await world.schedule(name, at=inside(3600))
    first = await world.task(uid)
    olds: Bodies = [fake.body(first)]

    await world.schedule(name, at=inside(3600), inputMessage="another message")  # another `at`: another occurrence
    await until(lambda: first not in fake.tasks and len(fake.of(uid)) == 1)
    (second,) = fake.of(uid)
    olds.append(fake.body(second))
    await world.stage.api.call("POST", f"{NS}/{name}/pause", {}, expect=200)
    await until(lambda: fake.of(uid) == [])
    await world.stage.api.call("POST", f"{NS}/{name}/resume", {}, expect=200)
    third = await world.task(uid)  # the same occurrence, under a name that was never used
    assert fake.body(third)["occurrence_ms"] == olds[-1]["occurrence_ms"]
    await world.stage.api.call("PATCH", f"{NS}/{name}", {"spec": {"inputMessage": "yet another"}}, expect=200)
    await until(lambda: fake.asked.count(third) > 1)
    assert fake.of(uid) == [third]  # its times are as they were, and so is its task
    await world.stage.api.call("DELETE", f"{NS}/{name}", expect=204)
    await until(lambda: fake.of(uid) == [])
    for body in olds:
        assert (await world.call(fake.token(aud=world.called), body))[1] == {"outcome": "moved_on"}
    assert await world.told(name) == 0


async def test_without_cloud_tasks_the_database_fires_at_the_time_and_what_it_lost_a_stated_while_later(world: World) -> None:
    fake = world.fake
    fake.mute = True
    uid = await world.schedule("lost", at=inside(1.0))
    await world.task(uid)
    fake.down = True
    await world.schedule("untold", at=inside(1.5))
    untold, lost = await asyncio.gather(world.woken("untold"), world.woken("lost"))
    assert untold["lag_ms"] < 2000
    assert LATE_S * 1000 <= lost["lag_ms"] < LATE_S * 1000 + 2000
    assert (await world.told("lost"), await world.told("untold")) == (1, 1)
    assert "Cloud Tasks cannot be told of occurrences (ServiceUnavailable" in world.stage.log
    assert (await world.stage.api.call("GET", "/readyz"))[0] == 200


async def test_while_the_database_is_away_a_call_is_to_come_again(spread: World, postgres: PostgresServer) -> None:
    fake, name = spread.fake, "away"
    fake.mute, fake.down = True, False
    uid = await spread.schedule(name, at=inside(1.0))
    task = await spread.task(uid)
    body, due_s = fake.body(task), fake.tasks[task].schedule_time.timestamp()
    database = database_of(spread.stage.env["DATABASE_URL"])

    postgres.sql(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false")
    try:
        postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        await until(lambda: time.time() > due_s)
        status, answer, headers = await spread.call(fake.token(aud=spread.called), body)
        assert (status, answer["code"]) == (503, "database_unavailable")
        assert int(headers["Retry-After"]) >= 1
    finally:
        postgres.sql(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true")
    fake.mute = False
    await until(lambda: len(fake.of(uid)) == 0)
    await spread.woken(name)
    assert await spread.told(name) == 1


async def test_what_is_too_far_ahead_for_cloud_tasks_is_told_later(sqlite: World) -> None:
    sqlite.fake.mute = sqlite.fake.down = False
    far = await sqlite.schedule("far", at=inside(40 * 86_400))
    near = await sqlite.schedule("near", at=inside(29 * 86_400))
    await until(lambda: len(sqlite.fake.of(near)) == 1)
    assert not [name for name in sqlite.fake.asked if far in name]


async def test_a_process_killed_right_after_a_task_was_made_fires_it_once(fake: FakeCloudTasks, tmp_path: Path) -> None:
    """Whether it is told again, called for, or found due when it starts again: that is the machine's pace."""
    fake.mute = fake.down = False
    async with embedded(tmp_path, fake) as world:
        (up,) = world.stage.gateways
        made: list[str] = []

        async def kill(name: str) -> None:
            fake.created = None
            made.append(name)
            await up.kill()

        fake.created = kill
        with contextlib.suppress(aiohttp.ClientError):  # whether it still answers is chance
            await world.schedule("killed", at=inside(3.0))
        await until(lambda: len(made) == 1 and up.process is not None and up.process.returncode is not None)
        await up.start()
        async with Api(up.url) as api:
            world.stage.apis = [api]
            await world.woken("killed")
            await until(lambda: made[0] not in fake.tasks)
            assert await world.told("killed") == 1
            assert set(fake.asked[fake.asked.index(made[0]) :]) == set(made)


async def test_the_emulator_calls_with_talons_own_token(tasks_emulator: str, tmp_path: Path, fake: FakeCloudTasks) -> None:
    """The official client at a server of somebody else's. It takes names twice and deletes nothing: so it calls in vain."""
    async with embedded(tmp_path, fake, endpoint=tasks_emulator, service_account="") as world:
        await world.schedule("emulated", at=inside(3.0))
        await world.schedule("withdrawn", at=inside(3.0))
        async with Looking(tasks_emulator) as queue:
            await until(lambda: queue.waits(2))
        await world.stage.api.call("PATCH", f"{NS}/emulated", {"spec": {"inputMessage": "told again"}}, expect=200)
        await world.stage.api.call("DELETE", f"{NS}/withdrawn", expect=204)
        record = await world.woken("emulated")
        assert record["lag_ms"] < LATE_S * 1000  # it was called: the database would have waited for that
        assert "cannot be told" not in world.stage.log
        code, page = await world.stage.api.call("GET", f"{NS}/emulated/history")
        assert (code, len(page["items"]), await world.told("emulated"), await world.told("withdrawn")) == (200, 1, 1, 0)
