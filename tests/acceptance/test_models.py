"""What goes with a model's call, what it costs, and which model is asked: from manifest, session and API to the vendor's wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
import yaml

from support.product import Api, Product
from support.recorder import Recorder, asks_then_answers, billed, breaks_off, recording, refuses
from support.stage import talon
from support.vendors.openai_chat import SCHEMA
from support.vendors.table import VENDORS

pytestmark = pytest.mark.asyncio(loop_scope="module")
CATALOGUE = {
    "currency": "EUR",
    "exchange": {"USD": 0.5},
    "vendors": {
        "priced": {"date": "2026-01-31", "models": {"m": {"tier": "mid", "input": 2, "output": "10.00", "cache_read": 0.5}}},
        "small": {"models": {"m": {"tier": "cheap", "context_window": 100, "input": 1, "output": 1}}},
        "wide": {"models": {"m": {"tier": "premium", "context_window": 100_000, "input": 9, "output": 9}}},
    },
}
#: A field of a profile's model -> what it says, and the field of the vendor's table that has the wire.
FIELDS: dict[str, tuple[Any, str]] = {
    "temperature": (0.0, "temperature"),
    "maxTokens": (77, "max_output_tokens"),
    "topP": (0.5, "top_p"),
    "topK": (9, "top_k"),
    "stop": (["END", "\n\n"], "stop"),
    "seed": (0, "seed"),
    "thinkingLevel": (None, "thinking"),
    "toolChoice": (None, "tool_choice"),
    "parallelToolCalls": (False, "parallel_tool_calls"),
    "answerSchema": ({"name": "place", "schema": SCHEMA}, "answer_schema"),
}


class Scene:
    """The booted product, its client, and the vendor that it asks."""

    def __init__(self, directory: Path, vendor: Recorder, api: Api) -> None:
        self.directory, self.vendor, self.api = directory, vendor, api
        self._count = 0

    async def agent(self, *profiles: dict[str, Any], **definition: Any) -> str:
        """An agent of its own name; a profile is a model's mapping."""
        self._count += 1
        return await self.api.agent(f"a{self._count}", *profiles, **definition)

    async def run(self, agent: str, session: str = "s", text: str = "hello", **config: Any) -> list[dict[str, Any]]:
        """One turn; -> the session's journal."""
        where = f"default/{agent}/{session}"
        if config:
            body = {"id": session, "config": config}
            await self.api.call("POST", f"/v1/ns/default/agents/{agent}/sessions", body, expect=201)
        turn = (await self.api.send(where, text))["turn_id"]
        await self.api.end_of(where, turn)
        return await self.api.journal(where)


def of(journal: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [entry["payload"] for entry in journal if entry["type"] == type_]


def contains(whole: Any, part: Any) -> bool:
    """Whether `part` is in `whole`: of mappings each field, in any depth; which tools there are is the test's own affair."""
    if isinstance(part, dict) and isinstance(whole, dict):
        inner, outer = cast("dict[str, Any]", part), cast("dict[str, Any]", whole)
        return all(key == "tools" or (key in outer and contains(outer[key], value)) for key, value in inner.items())
    if isinstance(part, str) and isinstance(whole, str) and part.startswith("{"):  # JSON in a text, in whatever order
        return json.loads(whole) == json.loads(part)
    return whole == part


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    directory = tmp_path_factory.mktemp("models")
    async with recording() as vendor:
        names = ("priced", "small", "wide", "other", "broken", "down", "refusing", "tooling")
        providers = {name: vendor.provider(name) for name in names}
        providers |= {f"by-{one.kind.replace('_', '-')}": vendor.provider(one.kind, one.kind, one.path) for one in VENDORS}
        providers["by-bedrock"] |= {"region": "us-east-1", "api_key": "AKIDEXAMPLE:secret"}
        providers["billed"] = vendor.provider("billed", "openrouter", "/api/v1")
        providers["limited"] = vendor.provider("limited", requests_per_minute=60)
        (directory / "catalogue.yaml").write_text(yaml.safe_dump(CATALOGUE))
        config = {"providers": providers, "models": {"catalogue": "catalogue.yaml"}, "worker": {"sweep_s": 0.25}}
        (directory / "talon.yaml").write_text(yaml.safe_dump(config))
        args = ("--config", "talon.yaml", "--gateway-grpc", "false")
        async with Product(directory, args=args) as product, Api(product.url) as api:
            yield Scene(directory, vendor, api)
            assert "Traceback" not in product.log, product.log


async def test_every_declared_field_of_a_model_is_on_the_wire_of_every_vendor(scene: Scene) -> None:
    async def one(vendor: Any, field: str, value: Any, sent: Any) -> None:
        provider = f"by-{vendor.kind.replace('_', '-')}"
        wanted = sent.value if value is None else value
        wanted = "current_time" if wanted == "get_weather" else wanted
        model = {"provider": provider, "name": sent.model or vendor.model, field: wanted}
        agent = await scene.agent(model, capabilities={"allowed_tools": ["current_time"]})
        prompt = f"{field} by {agent}"
        await scene.run(agent, text=prompt)
        bodies = [body for body in scene.vendor.calls[vendor.kind] if prompt in json.dumps(body)]
        expected = json.loads(json.dumps(sent.body).replace("get_weather", "current_time"))
        assert contains(bodies[0], expected), (vendor.kind, field, bodies[0])

    for vendor in VENDORS:
        scene.vendor.behaviours[vendor.kind] = refuses(400)
    known = [
        (vendor, field, value, vendor.sent[name])
        for vendor in VENDORS
        for field, (value, name) in FIELDS.items()
        if name in vendor.sent
    ]
    assert {field for _, field, _, _ in known} == set(FIELDS), "each field has a vendor that has a word for it"
    await asyncio.gather(*(one(*case) for case in known))


async def test_a_forced_tool_is_forced_once_and_must_be_there(scene: Scene) -> None:
    scene.vendor.behaviours["tooling"] = asks_then_answers("current_time")
    model = {"provider": "tooling", "name": "m", "toolChoice": "required"}
    journal = await scene.run(await scene.agent(model, capabilities={"allowed_tools": ["current_time"]}))
    assert "turn.completed" in [entry["type"] for entry in journal]
    assert [body["tool_choice"] for body in scene.vendor.calls["tooling"]] == ["required", "auto"]
    agent = await scene.agent(
        {"provider": "other", "name": "m", "toolChoice": "nothing-here"}, capabilities={"allowed_tools": ["current_time"]}
    )
    (denied,) = of(await scene.run(agent), "turn.denied")
    assert "nothing-here" in denied["detail"]
    assert "current_time" in denied["detail"]


async def test_each_call_has_its_cost_and_the_turn_the_sum(scene: Scene) -> None:
    agent = await scene.agent({"provider": "priced", "name": "m-2026-01-31"})
    journal = await scene.run(agent)
    (finished,) = of(journal, "model.finished")
    # 600 plain at 2, 400 from the cache at 0.5, 50 out at 10, per million.
    assert finished["cost"] == {"amount": "0.0019", "currency": "EUR"}
    assert of(journal, "turn.completed")[0]["costs"] == [finished["cost"]]
    turn = next(entry["turn_id"] for entry in journal if entry["turn_id"])
    shown = await scene.api.get(f"/v1/ns/default/agents/{agent}/sessions/s/turns/{turn}")
    assert shown["loop"]["totalCost"] == pytest.approx(0.0019)
    unknown = await scene.run(await scene.agent({"provider": "other", "name": "m"}))
    assert "cost" not in of(unknown, "model.finished")[0], "a price that nobody knows is not 0"


async def test_what_the_vendor_says_that_a_call_costs_is_its_cost(scene: Scene) -> None:
    agent = await scene.agent({"provider": "billed", "name": "m"})
    scene.vendor.behaviours["billed"] = billed("stop", cost=0.00012, is_byok=True, cost_details={"upstream_inference_cost": 0.0024})
    journal = await scene.run(agent)
    assert scene.vendor.calls["billed"][0]["usage"] == {"include": True}
    finished = of(journal, "model.finished")[0]
    assert (finished["cost"], finished["cost_source"]) == ({"amount": "0.00252", "currency": "USD"}, "reported")
    assert of(journal, "turn.completed")[0]["costs"] == [finished["cost"]]
    scene.vendor.behaviours["billed"] = billed("content_filter", cost=0.5, cost_details={"upstream_inference_cost": 0.4})
    failed = of(await scene.run(agent, "filtered"), "model.failed")[0]
    assert (failed["cost"], failed["cost_source"]) == ({"amount": "0.5", "currency": "USD"}, "reported")


async def test_a_session_says_which_model_how_much_it_thinks_and_whether_it_shows_it(scene: Scene) -> None:
    agent = await scene.agent({"provider": "other", "name": "m"}, {"provider": "wide", "name": "m"})
    journal = await scene.run(agent, "quiet", model="wide/m", thinkingLevel="high", verboseLevel=False)
    assert [one["provider"] for one in of(journal, "model.started")] == ["wide"]
    assert scene.vendor.calls["wide"][-1]["reasoning_effort"] == "high"
    assert "reasoning" not in of(journal, "model.finished")[0]
    plain = await scene.run(agent, "plain")
    assert [one["provider"] for one in of(plain, "model.started")] == ["other"]
    assert of(plain, "model.finished")[0]["reasoning"] == "I think."
    path = f"/v1/ns/default/agents/{agent}/sessions/plain"
    await scene.api.call("PATCH", path, {"config": {"model": "p1"}}, expect=200)
    assert of(await scene.run(agent, "plain"), "model.started")[-1]["provider"] == "wide"
    status, problem = await scene.api.call("PATCH", path, {"config": {"thinkingLevel": "deep"}})
    assert (status, problem["errors"][0]["field"]) == (422, "config.thinkingLevel")
    manifest = {"id": "from-file", "agent": agent, "config": {"model": "wide/m", "verboseLevel": False}}
    await scene.api.apply(yaml.safe_dump(manifest))
    shown = await scene.api.get(f"/v1/ns/default/agents/{agent}/sessions/from-file")
    assert shown["config"] == {"model": "wide/m", "verboseLevel": False}
    assert of(await scene.run(agent, "from-file"), "model.started")[0]["provider"] == "wide"
    (denied,) = of(await scene.run(agent, "lost", model="no-such-model"), "turn.denied")
    assert "no-such-model" in denied["detail"]


async def test_an_answer_that_breaks_off_goes_on_elsewhere_and_half_a_tool_call_is_dropped(scene: Scene) -> None:
    scene.vendor.behaviours["broken"] = breaks_off
    agent = await scene.agent({"provider": "broken", "name": "m"}, {"provider": "priced", "name": "m"})
    journal = await scene.run(agent)
    types = [entry["type"] for entry in journal]
    assert "tool.requested" not in types
    (failed,) = of(journal, "model.failed")
    assert (failed["error"], failed["usage"]["estimated"]) == ("connection", True)
    assert types.index("stream.reset") < types.index("model.finished")
    assert [one["attempt"] for one in of(journal, "model.started")] == [1, 2]
    assert of(journal, "message.completed")[0]["content"] == "fine"
    used = of(journal, "model.finished")[0]["usage"]["input_tokens"] + failed["usage"]["input_tokens"]
    assert of(journal, "turn.completed")[0]["usage"]["input_tokens"] == used, "each attempt is counted once"


async def test_what_follows_from_each_class_of_error_over_the_wire(scene: Scene) -> None:
    wrong = {"small": refuses(400, "maximum context length is 100 tokens"), "refusing": refuses(400, "content_filter: no")}
    scene.vendor.behaviours |= wrong
    too_long = await scene.agent(
        {"provider": "small", "name": "m"}, {"provider": "small", "name": "m-2026-01-01"}, {"provider": "wide", "name": "m"}
    )
    assert [one["profile"] for one in of(await scene.run(too_long), "model.started")] == ["p0", "p2"]
    filtered = ({"provider": "refusing", "name": "m"}, {"provider": "wide", "name": "m"})
    (end,) = of(await scene.run(await scene.agent(*filtered)), "turn.failed")
    assert (end["reason"], end["detail"].partition(":")[0]) == ("model_failed", "content_filter")
    asked_on = await scene.agent(*filtered, policy={"onRefusal": "next"})
    assert "turn.completed" in [entry["type"] for entry in await scene.run(asked_on)]


async def test_a_route_holds_and_is_explained(scene: Scene) -> None:
    routing = {"tier_0": {"primary": "wide/m", "fallback": ["p0"]}, "tier_2": {"primary": "p0"}}
    agent = await scene.agent({"provider": "other", "name": "m"}, policies={"model_routing": routing})
    assert of(await scene.run(agent), "model.started")[0]["provider"] == "wide"
    path = f"/v1/ns/default/agents/{agent}/models"
    explained = await scene.api.get(path)
    assert [(one["provider"], one["known"] and one["known"]["tier"]) for one in explained["candidates"]] == [
        ("wide", "premium"),
        ("other", None),
    ]
    assert "model_routing.tier_0" in explained["rules"][0]
    assert [one["provider"] for one in (await scene.api.get(path + "?data_tier=1"))["candidates"]] == ["other"]
    await scene.run(agent, "elsewhere", model="priced/m")
    denied = await scene.api.get(path + "?session=elsewhere")
    assert denied["candidates"] == []
    assert "not one of the route" in denied["problem"]
    routed = await scene.agent(policies={"model_routing": {"tier_0": {"primary": "wide/m"}}})
    journal = await scene.run(routed)
    assert (of(journal, "model.started")[0]["provider"], journal[-1]["type"]) == ("wide", "turn.completed")


async def test_a_sessions_wishes_are_flags_of_the_command_line(scene: Scene) -> None:
    env = {"TALON_SERVER": scene.api.url}
    agent = await scene.agent({"provider": "other", "name": "m"}, {"provider": "wide", "name": "m"})
    flags = ("--model", "wide/m", "--thinking-level", "low", "--no-verbose-level")
    code, _, errors = await talon("session", "create", agent, "s", *flags, cwd=scene.directory, env=env)
    assert code == 0, errors
    path = f"/v1/ns/default/agents/{agent}/sessions"
    assert (await scene.api.get(f"{path}/s"))["config"] == {"model": "wide/m", "thinkingLevel": "low", "verboseLevel": False}
    one = ("session", "send", agent, "s", "as I wish", "--thinking-level", "high", "--wait")
    code, _, errors = await talon(*one, cwd=scene.directory, env=env)
    assert code == 0, errors
    assert (await scene.api.get(f"{path}/s"))["config"] == {"model": "wide/m", "thinkingLevel": "high", "verboseLevel": False}
    (asked,) = [call for call in scene.vendor.calls["wide"] if call["messages"][-1]["content"] == "as I wish"]
    assert asked["reasoning_effort"] == "high"
    new = ("session", "send", agent, "t", "hello", "--create", "--model", "wide/m")
    code, _, errors = await talon(*new, cwd=scene.directory, env=env)
    assert code == 0, errors
    assert (await scene.api.get(f"{path}/t"))["config"] == {"model": "wide/m"}


async def test_models_by_api_and_command(scene: Scene) -> None:
    api = scene.api
    models = (await api.get("/v1/models?limit=500"))["items"]
    found = next(one for one in models if one["id"] == "priced/m")
    assert {key: found[key] for key in ("provider", "tier", "contextWindow", "supportsTools", "supportsVision")} == {
        "provider": "priced",
        "tier": "mid",
        "contextWindow": 0,
        "supportsTools": True,
        "supportsVision": False,
    }
    assert (found["costPer1kInput"], found["costPer1kOutput"]) == (0.002, 0.01)
    assert found["prices"] == {
        "input": "2", "output": "10", "cacheRead": "0.5", "cacheWrite": "2", "currency": "EUR", "date": "2026-01-31"
    }  # fmt: skip
    built_in = next(one for one in models if one["id"] == "by-openai/gpt-4o")
    assert built_in["prices"]["input"] == "1.25", "2.50 USD at 0.5"
    prefilled = {one["id"]: one["prefill"] for one in models if one["provider"] == "by-anthropic"}
    assert (prefilled["by-anthropic/claude-haiku-4-5"], prefilled["by-anthropic/claude-sonnet-5"]) == (True, False)
    first = await api.get("/v1/models?limit=1")
    second = await api.get(f"/v1/models?limit=1&cursor={first['next_cursor']}")
    assert [first["items"][0]["id"], second["items"][0]["id"]] == [one["id"] for one in models[:2]]
    tiers = await api.get("/v1/models/tiers")
    assert {tier: {one["tier"] for one in tiers[tier]} for tier in tiers} == {
        "cheap": {"cheap"},
        "mid": {"mid"},
        "premium": {"premium"},
    }
    task = {"type": "orchestration", "complexity": "low", "inputTokens": 1000}
    _, selected = await api.call("POST", "/v1/models/select", task, expect=200)
    assert selected["model"]["tier"] == "mid"
    assert selected["rules"][-1].startswith(f"3 {selected['model']['id']} is the cheapest of tier mid")
    _, estimate = await api.call("POST", "/v1/models/estimate", {**task, "model": "priced/m"}, expect=200)
    assert estimate == {
        "inputTokens": 1000,
        "outputTokens": 256,
        "estimatedCost": 0.00456,
        "model": "priced/m",
        "amount": "0.00456",
        "currency": "EUR",
    }
    status, problem = await api.call("POST", "/v1/models/estimate", {"model": "priced/nothing"})
    assert (status, problem["code"]) == (404, "model_not_found")
    env = {"TALON_SERVER": api.url}
    _, out, _ = await talon("model", "list", "--tier", "mid", cwd=scene.directory, env=env)
    assert "priced/m" in out
    assert "wide/m" not in out
    _, out, _ = await talon("model", "explain", "--task", "reasoning", "--input-tokens", "10", cwd=scene.directory, env=env)
    assert "wants tier premium" in out
    of_one = ("model", "explain", "--task", "orchestration", "--complexity", "low", "--input-tokens", "1000", "--model", "priced/m")
    _, out, _ = await talon(*of_one, cwd=scene.directory, env=env)
    assert out.strip() == "priced/m: about 0.00456 EUR for 1000 tokens in, 256 out"
    code, out, _ = await talon("model", "test", "priced/m", "--config", "talon.yaml", cwd=scene.directory)
    assert (code, "priced/m: answered" in out, "EUR" in out) == (0, True, True)
    scene.vendor.behaviours["down"] = refuses(401, "wrong key sk-fake")
    code, out, errors = await talon("model", "test", "down/m", "--config", "talon.yaml", cwd=scene.directory)
    assert (code, "authentication" in out, "sk-fake" in out + errors) == (1, True, False)


async def test_a_quota_is_kept_and_its_queue_is_fair_by_namespace(scene: Scene) -> None:
    await scene.api.call("POST", "/v1/namespaces", {"name": "late"}, expect=None)
    await scene.api.apply(yaml.safe_dump({"apiVersion": "talon.dev/v1alpha1", "kind": "Namespace", "metadata": {"name": "late"}}))
    for namespace in ("default", "late"):
        await scene.api.agent("queued", {"provider": "limited", "name": "m"}, namespace=namespace)
    places = [f"default/queued/s{number}" for number in range(66)]
    turns = [(where, (await scene.api.send(where, "hello"))["turn_id"]) for where in places]
    late = "late/queued/s"
    turns.append((late, (await scene.api.send(late, "hello"))["turn_id"]))
    began = asyncio.get_running_loop().time()
    for where, turn in turns:
        assert (await scene.api.end_of(where, turn))["type"] == "turn.completed"
    took_s = asyncio.get_running_loop().time() - began
    journals = {where: await scene.api.journal(where) for where in (*places, late)}
    waited = [where for where, journal in journals.items() if any(w["kind"] == "quota" for w in of(journal, "turn.waiting"))]
    assert 1 <= len(waited) <= 8, waited
    (said, *_) = of(journals[waited[0]], "turn.waiting")
    assert said["detail"] == "the quota of providers.limited is used up: 60 requests a minute"
    assert took_s < 20
    ends = {where: journal[-1]["at"] for where, journal in journals.items()}
    assert ends[late] < max(ends[where] for where in places), "one namespace's queue does not stand before another's first call"
    assert len(scene.vendor.calls["limited"]) == 67
