"""Answers that break in the middle, anywhere: gone on with where the model can, else begun again; no text is lost or repeated."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from support.postgres import PostgresServer
from support.product import Api, Product
from support.recorder import Recorder, recording
from support.sse import Event, Reading
from support.vendors.anthropic import ANTHROPIC
from support.vendors.base import Says
from support.vendors.table import VENDORS
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = (
    "First,  the contract is due on Monday.\n\nSecond — and this is what matters — it was signed twice: \n"
    "  · once by Zoë, 東京;\n  · once by nobody.  🦅 Let me say more of that, \t at some length, so that it can break anywhere. "
) * 3
ROUTER = next(vendor for vendor in VENDORS if vendor.kind == "openrouter")
SEED = 20261120


@dataclass
class Cut:
    """How one call ends: after so many bytes behind the first text, or with an error, or not at all."""

    after: int
    how: str = "cut"  # cut | stalls | overloaded


class Vendor:
    """A model that goes on with what it is given, and breaks off as planned. `plans`: the user's text -> the ends of its calls."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.plans: dict[str, list[Cut]] = {}
        self.begun = asyncio.Event()

    def said(self, name: str) -> list[list[dict[str, Any]]]:
        """The messages of each call to that model."""
        return [body["messages"] for body in self._recorder.calls.get(name, [])]

    def calls(self, text: str) -> list[str]:
        """For each call whose turn has that message: the beginning of the answer that it was given."""
        return [_given(messages) for name in ("claude", "router") for messages in self.said(name) if text in json.dumps(messages)]

    def behaviour(self, name: str, fake: Any) -> Any:
        async def answer(number: int, request: web.Request) -> web.StreamResponse:
            messages = self._recorder.calls[name][number - 1]["messages"]
            given = _given(messages)
            if not TEXT.startswith(given) or given != given.rstrip():
                return web.json_response({"error": {"message": f"cannot go on with {given!r}"}}, status=400)
            plan = self.plans.get(_question(messages), [])
            events = fake.stream(Says(text=TEXT[len(given) :], piece=5))
            response = web.StreamResponse(headers={"Content-Type": fake.content_type})
            await response.prepare(request)
            if not plan:
                await response.write(b"".join(events))
                return response
            cut = plan.pop(0)
            first = next(at for at, event in enumerate(events, 1) if b"text_delta" in event or b'"content":"' in event)
            head, rest = b"".join(events[:first]), b"".join(events[first:])
            place = cut.after % max(1, len(rest) - len(events[-1]) - len(events[-2]))
            await response.write(head)
            await asyncio.sleep(0.06)  # the first text is seen, and what follows waits for the next beat
            await response.write(rest[:place] if cut.how != "overloaded" else b"".join(events[first : first + place // 150]))
            if cut.how == "overloaded":
                await response.write(fake.error_event("overloaded") or b"")
                return response
            if cut.how == "stalls":
                self.begun.set()
                await asyncio.Event().wait()
            assert request.transport is not None
            request.transport.close()
            return response

        return answer


def _given(messages: list[dict[str, Any]]) -> str:
    last = messages[-1]
    return _text(last) if last["role"] == "assistant" else ""


def _question(messages: list[dict[str, Any]]) -> str:
    return next(_text(message) for message in reversed(messages) if message["role"] == "user")


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@dataclass
class Scene:
    """The booted product, and the models that it asks."""

    product: Product
    vendor: Vendor
    api: Api

    async def restart(self) -> None:
        """SIGKILL, and again on the same data."""
        await self.product.kill()
        await self.api.__aexit__(None, None, None)
        await self.product.start()
        self.api = Api(self.product.url)


HAIKU = {"provider": "claude", "name": "claude-haiku-4-5", "maxTokens": 4000}
SONNET = {"provider": "claude", "name": "claude-sonnet-4-6"}
ROUTED = {"provider": "router", "name": "anthropic/claude-haiku-4.5"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    directory = tmp_path_factory.mktemp(f"broken-{request.param}")
    env: dict[str, str] = {}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        env = {"DATABASE_URL": server.create_database(), "TALON_SECRETS_KEY": base64.b64encode(bytes(range(32))).decode()}
    async with recording() as recorder:
        vendor = Vendor(recorder)
        recorder.behaviours["claude"] = vendor.behaviour("claude", ANTHROPIC.fake)
        recorder.behaviours["router"] = vendor.behaviour("router", ROUTER.fake)
        providers = {
            "claude": recorder.provider("claude", "anthropic", ANTHROPIC.path),
            "router": recorder.provider("router", "openrouter", ROUTER.path),
        }
        (directory / "talon.yaml").write_text(yaml.safe_dump({"providers": providers, "worker": {"sweep_s": 0.25}}))
        product = Product(directory, args=("--config", "talon.yaml", "--gateway-grpc", "false"), env=env)
        async with product:
            made = Scene(product, vendor, Api(product.url))
            yield made
            await made.api.__aexit__(None, None, None)
            assert "Traceback" not in product.log, product.log


async def told(scene: Scene, where: str, turn: str) -> tuple[list[dict[str, Any]], Reading]:
    """The stream of a turn from its beginning, as one client reads it."""
    reading, events = Reading(0), list[dict[str, Any]]()
    async with asyncio.timeout(30):
        async for event in scene.api.events(where, turn=turn):
            reading.take(Event(event["id"], event["type"], event))
            events.append(event)
    return events, reading


def of(journal: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [{"seq": entry["seq"], **entry["payload"]} for entry in journal if entry["type"] == type_]


async def test_wherever_an_answer_breaks_it_goes_on_there(scene: Scene) -> None:
    agent = await scene.api.agent("teller", HAIKU)
    print(f"seed {SEED}")
    random = Random(SEED)

    async def one(number: int) -> None:
        text, where = f"case {number}.", f"default/{agent}/s{number}"
        cuts = scene.vendor.plans[text] = [Cut(random.randrange(8000)) for _ in range(random.randint(1, 3))]
        planned = len(cuts)
        turn = (await scene.api.send(where, text))["turn_id"]
        _, reading = await told(scene, where, turn)
        journal = await scene.api.journal(where)
        types = [entry["type"] for entry in journal]
        assert types[-1] == "turn.completed", journal[-3:]
        assert "stream.reset" not in types, journal
        first, *others = of(journal, "model.started")
        failures = of(journal, "model.failed")
        assert len(others) == len(failures) == planned, (number, failures)
        (answer,) = of(journal, "message.completed")
        assert (answer["content"], answer["model_seq"]) == (TEXT, first["seq"])
        # The client has one text, under the call that began it, and every character of it once.
        assert reading.texts == {(first["seq"], "text.delta"): TEXT}
        for started, failed in zip(others, failures, strict=True):
            assert (started["continues"], started["offset"]) == (first["seq"], failed["kept"])
            assert (failed["error"], failed["usage"]["output_tokens"] > 0) == ("connection", True)
        asked = scene.vendor.calls(text)
        assert asked == ["", *(TEXT[: failed["kept"]].rstrip() for failed in failures)]

    for number in range(8):  # one after the other: failures of several in a row would open the model's circuit
        await one(number)


async def test_a_client_that_comes_back_anywhere_goes_on_there(scene: Scene) -> None:
    agent = await scene.api.agent("returning", HAIKU)
    where, text = f"default/{agent}/s1", "come and go."
    scene.vendor.plans[text] = [Cut(1500), Cut(2500)]
    turn = (await scene.api.send(where, text))["turn_id"]
    events, whole = await told(scene, where, turn)
    (first, *_) = of(await scene.api.journal(where), "model.started")
    for at, event in enumerate(events[:-1]):
        reading = Reading(0)
        for seen in events[: at + 1]:
            reading.take(Event(seen["id"], seen["type"], seen))
        reading.resumed()
        async with asyncio.timeout(30):
            async for more in scene.api.events(where, after=event["id"], turn=turn):
                reading.take(Event(more["id"], more["type"], more))
        assert reading.seqs == whole.seqs
        assert reading.texts in ({(first["seq"], "text.delta"): TEXT}, {}), event  # who had seen nothing finds it in the entry


async def test_a_worker_that_is_killed_in_the_middle_is_gone_on_with(scene: Scene) -> None:
    agent = await scene.api.agent("killed", HAIKU)
    where, text = f"default/{agent}/s1", "die and live."
    scene.vendor.plans[text] = [Cut(900, "stalls"), Cut(700)]
    scene.vendor.begun.clear()
    turn = (await scene.api.send(where, text))["turn_id"]
    await asyncio.wait_for(scene.vendor.begun.wait(), 30)
    seen = Reading(0)
    async with asyncio.timeout(30):
        async for event in scene.api.events(where, turn=turn):
            seen.take(Event(event["id"], event["type"], event))
            if len("".join(seen.texts.values())) > 20:
                break
    await scene.restart()
    async with asyncio.timeout(30):
        async for event in scene.api.events(where, after=seen.last_id, turn=turn):
            seen.take(Event(event["id"], event["type"], event))
    journal = await scene.api.journal(where)
    assert [entry["type"] for entry in journal if entry["type"] in ("stream.reset", "turn.completed")] == ["turn.completed"]
    lost, broken = of(journal, "model.failed")
    assert (lost["error"], lost["usage"]["estimated"], broken["error"]) == ("worker_lost", True, "connection")
    first = of(journal, "model.started")[0]["seq"]
    assert seen.texts == {(first, "text.delta"): TEXT}
    assert of(journal, "message.completed")[0]["content"] == TEXT


@pytest.mark.parametrize(
    ("name", "models", "how", "goes_on"),
    [
        ("elsewhere", (HAIKU, ROUTED), "overloaded", True),
        ("unwilling", ({**HAIKU, "onBrokenStream": "reset"},), "cut", False),
        ("thinking", ({**HAIKU, "thinkingLevel": "low"},), "cut", False),
        ("newer", (SONNET,), "cut", False),
        ("newer-next", (HAIKU, SONNET), "overloaded", False),
    ],
)
async def test_who_goes_on_and_who_begins_again(
    scene: Scene, name: str, models: tuple[dict[str, Any], ...], how: str, goes_on: bool
) -> None:
    agent = await scene.api.agent(name, *models)
    where, text = f"default/{agent}/s1", f"{name}?"
    scene.vendor.plans[text] = [Cut(2000, how)]
    turn = (await scene.api.send(where, text))["turn_id"]
    await scene.api.end_of(where, turn)
    journal = await scene.api.journal(where)
    assert of(journal, "message.completed")[0]["content"] == TEXT
    assert ("stream.reset" not in [entry["type"] for entry in journal]) is goes_on, journal
    models_asked = [one["model"] for one in of(journal, "model.started")]
    assert models_asked == [models[0]["name"], models[-1]["name"]]
    assert bool(of(journal, "model.started")[1].get("continues")) is goes_on
    await until(lambda: not scene.vendor.plans[text])


async def test_an_answer_that_breaks_behind_its_last_word_is_whole(scene: Scene) -> None:
    agent = await scene.api.agent("late", HAIKU)
    where, text = f"default/{agent}/s1", "nearly done."
    end = sum(map(len, ANTHROPIC.fake.stream(Says(text=TEXT, piece=5))[:-2]))
    scene.vendor.plans[text] = [Cut(end - 1 - sum(map(len, ANTHROPIC.fake.stream(Says(text=TEXT, piece=5))[:4])))]
    turn = (await scene.api.send(where, text))["turn_id"]
    await scene.api.end_of(where, turn)
    journal = await scene.api.journal(where)
    assert of(journal, "message.completed")[0]["content"] == TEXT
    assert "stream.reset" not in [entry["type"] for entry in journal]
