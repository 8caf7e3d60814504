"""`http_request` and `current_time` through a whole turn, against a real server, with the operator's lists in force."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from support.stage import Stage, call, calls, embedded_stage, said, say

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Shop:
    """A real HTTP server that remembers what came. `/drop` closes the connection without an answer, the first time."""

    def __init__(self) -> None:
        self.came: list[tuple[str, str, str, str]] = []
        self.port = 0
        self._dropped: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key", "")
        self.came.append((request.method, request.path, key, await request.text()))
        if request.path == "/drop" and key not in self._dropped and request.transport is not None:
            self._dropped.add(key)
            request.transport.abort()
            return web.Response()
        if request.path == "/elsewhere":
            return web.Response(status=302, headers={"Location": request.query["to"]})
        return web.json_response({"path": request.path, "stock": 3})

    def of(self, path: str) -> list[tuple[str, str, str, str]]:
        return [one for one in self.came if one[1] == path]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop() -> AsyncGenerator[Shop]:
    made = Shop()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def booted(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stage]:
    """The shop may be called, under two names, of which one honours keys; nothing else of this machine."""
    allowed = {"allow_hosts": [f"127.0.0.1:{shop.port}", f"localhost:{shop.port}"], "idempotent_hosts": [f"localhost:{shop.port}"]}
    directory: Path = tmp_path_factory.mktemp("tools")
    async with embedded_stage(directory, tools={"http_request": allowed}, worker={"sweep_s": 0.25}) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(booted: Stage) -> str:
    return await booted.agent("clerk", mcpServerRefs=[], capabilities={"allowed_tools": ["http_request", "current_time"]})


async def results(stage: Stage, agent: str, *asked: dict[str, Any]) -> list[str]:
    """What the model is told about its calls."""
    where = stage.session(agent)
    assert (await stage.run(where, f"{where} go", calls(*asked), say("done")))["type"] == "turn.completed"
    return said(stage.model.asked(f"{where} go")[-1], "tool")


async def test_only_the_tools_that_an_agent_may_use_are_offered(booted: Stage, agent: str) -> None:
    where = booted.session(agent)
    await booted.run(where, f"{where} hello")
    (seen,) = booted.model.asked(f"{where} hello")
    tools = json.loads(bytes(seen.body))["tools"]
    assert [tool["function"]["name"] for tool in tools] == ["current_time", "http_request"]
    bare = await booted.agent("bare", mcpServerRefs=[])
    where = booted.session(bare)
    await booted.run(where, f"{where} hello")
    (seen,) = booted.model.asked(f"{where} hello")
    assert not json.loads(bytes(seen.body)).get("tools")


async def test_current_time_tells_the_time_of_a_zone(booted: Stage, agent: str) -> None:
    utc, berlin, nowhere = await results(
        booted, agent, call("current_time"), call("current_time", zone="Europe/Berlin"), call("current_time", zone="Mars/Olympus")
    )
    told = datetime.fromisoformat(json.loads(utc)["time"])
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=1)
    assert datetime.fromisoformat(json.loads(berlin)["time"]).utcoffset() in (timedelta(hours=1), timedelta(hours=2))
    assert "Mars/Olympus" in nowhere


async def test_a_get_reads_and_a_post_carries_the_key_of_its_call(booted: Stage, agent: str, shop: Shop) -> None:
    here = f"http://127.0.0.1:{shop.port}"
    order = call("http_request", method="POST", url=f"{here}/order", body='{"n": 1}')
    where = booted.session(agent)
    await booted.run(where, f"{where} go", calls(call("http_request", url=f"{here}/stock"), order), say("done"))
    got, posted = said(booted.model.asked(f"{where} go")[-1], "tool")
    assert '"stock": 3' in got
    assert "200" in got
    assert '"path": "/order"' in posted
    ((method, _, key, _),) = shop.of("/stock")
    assert (method, key) == ("GET", "")
    ((method, _, key, body),) = shop.of("/order")
    assert (method, body) == ("POST", '{"n": 1}')
    journal = await booted.api.journal(where)
    started = {
        entry["payload"]["key"]: entry["payload"].get("effect", "unsafe") for entry in journal if entry["type"] == "tool.started"
    }
    assert started[key] == "unsafe"
    assert sorted(started.values()) == ["read", "unsafe"]


async def test_addresses_of_this_machine_are_refused_also_by_redirect_and_by_name(booted: Stage, agent: str, shop: Shop) -> None:
    model = booted.model.server.base_url
    for number, url in enumerate(
        (
            f"{model}/models",
            model.replace("127.0.0.1", "localhost") + "/models",
            model.replace("127.0.0.1", "2130706433") + "/models",
            model.replace("127.0.0.1", "[::ffff:127.0.0.1]") + "/models",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            f"http://127.0.0.1:{shop.port}/elsewhere?to={model}/models",
        )
    ):
        (told,) = await results(booted, agent, call("http_request", url=url, headers={"X-Number": str(number)}))
        assert "refused" in told, (url, told)
    assert len(shop.of("/elsewhere")) == 1


async def test_a_lost_answer_of_a_post_is_a_question_to_a_person_and_is_repeated_only_on_their_word(
    booted: Stage, agent: str, shop: Shop
) -> None:
    where = booted.session(agent)
    asked = call("http_request", method="POST", url=f"http://127.0.0.1:{shop.port}/drop", body="pay")
    turn = await booted.turn(where, f"{where} go", asked, say("done"))
    await booted.entry(where, "turn.waiting", turn)
    (approval,) = await booted.approvals(where)
    assert approval["name"] == "http_request"
    assert len(shop.of("/drop")) == 1, "nobody repeats it"
    await booted.api.call("POST", f"/v1/ns/default/approvals/{approval['id']}", {"outcome": "retry"}, expect=200)
    assert (await booted.done(where, turn))["type"] == "turn.completed"
    first, second = shop.of("/drop")
    assert first[2] == second[2] != ""


async def test_a_host_that_honours_keys_makes_a_post_idempotent(booted: Stage, agent: str, shop: Shop) -> None:
    where = booted.session(agent)
    asked = call("http_request", method="POST", url=f"http://localhost:{shop.port}/drop", body="pay")
    assert (await booted.run(where, f"{where} go", asked, say("done")))["type"] == "turn.completed"
    journal = await booted.api.journal(where)
    assert [entry["payload"]["effect"] for entry in journal if entry["type"] == "tool.started"] == ["idempotent"]
    assert await booted.approvals(where, "") == []
    (told,) = said(booted.model.asked(f"{where} go")[-1], "tool")
    assert "answer" in told
