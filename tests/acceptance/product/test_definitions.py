"""What an agent's definition says is what its turns do: pinned revisions, limits, features, profiles, references."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from support.product import Api
from support.stage import Entry, Stage, call, calls, path, said, say, set_stage, slowly
from support.waiting import BOUND_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
AGENTS = "/v1/ns/default/agents"


async def journal(stage: Stage, where: str, type_: str) -> list[dict[str, Any]]:
    return [entry["payload"] for entry in await stage.api.journal(where) if entry["type"] == type_]


def failed(end: Entry) -> str:
    assert end["type"] == "turn.failed", end
    return end["payload"]["reason"]


# --- K12 ----------------------------------------------------------------------------------------------------------------------


async def test_an_agent_changed_while_its_turn_waits_changes_the_next_turn_only(stage: Stage) -> None:
    agent = await stage.agent("pinned", systemPrompt="You are the old one.")
    before = (await stage.api.get(f"{AGENTS}/{agent}"))["status"]["revision"]
    where = stage.session(agent)
    turn = await stage.turn(where, f"{where} send", call("wire", amount=1), call("look"), say("done"))
    await stage.entry(where, "turn.waiting", turn)
    await stage.agent(
        agent, systemPrompt="You are the new one.", mcpServerRefs=[], capabilities={"allowed_tools": ["current_time"]}
    )
    after = (await stage.api.get(f"{AGENTS}/{agent}"))["status"]["revision"]
    assert after == before + 1
    (approval,) = await stage.approvals(where)
    await stage.api.call("POST", f"/v1/ns/default/approvals/{approval['id']}", {"outcome": "retry"}, expect=200)
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    for shown in stage.model.asked(f"{where} send"):
        assert said(shown, "system") == ["You are the old one."]
        assert b'"name":"wire"' in bytes(shown.body).replace(b'": "', b'":"')
    await stage.run(where, f"{where} next")
    (shown,) = stage.model.asked(f"{where} next")
    assert said(shown, "system") == ["You are the new one."]
    started = await journal(stage, where, "turn.started")
    assert [one["revision"] for one in started] == [before, after]
    assert started[0]["definition"] != started[1]["definition"]
    revisions = (await stage.api.get(f"{AGENTS}/{agent}/revisions"))["items"]
    assert [one["revision"] for one in revisions][:2] == [after, before]


# --- limits -------------------------------------------------------------------------------------------------------------------


async def test_each_limit_of_a_turn_ends_it_with_its_own_reason_and_the_session_goes_on(stage: Stage) -> None:
    limits: dict[str, tuple[dict[str, Any], list[Any], str]] = {
        "model-calls": (
            {"model_calls_max": 2},
            [call("look", what="1"), call("look", what="2"), say("late")],
            "model_calls_exceeded",
        ),
        "iterations": ({"max_iterations": 1}, [call("look", what="1"), say("late")], "model_calls_exceeded"),
        "tool-calls": (
            {"tool_calls_max": 2},
            [call("look", what="1"), calls(call("look", what="2"), call("look", what="3"))],
            "tool_calls_exceeded",
        ),
        "wall-time": ({"wall_time_max_s": 0.3}, [call("look", gate="never")], "wall_time_exceeded"),
        "tokens": (
            {"tokens_max": 100},
            [{**call("look"), "usage": {"input_tokens": 90, "output_tokens": 10}}, say("late")],
            "tokens_exceeded",
        ),
    }
    for name, (bounds, steps, reason) in limits.items():
        agent = await stage.agent(f"limited-{name}", limits=bounds)
        where = stage.session(agent)
        end = await stage.run(where, f"{where} go", *steps)
        assert failed(end) == reason, name
        assert str(next(iter(bounds.values()))).rstrip("0").rstrip(".") in end["payload"]["detail"] or name == "wall-time", end
        assert "late" not in [one["content"] for one in await journal(stage, where, "message.completed")]
        assert (await stage.run(where, f"{where} again"))["type"] == "turn.completed", name
    assert len(stage.effects("", "look", "cancelled")) >= 1


async def test_a_model_that_talks_past_the_wall_time_is_cut(stage: Stage) -> None:
    agent = await stage.agent("brief", limits={"wall_time_max_s": 0.4})
    where = stage.session(agent)
    end = await stage.run(where, f"{where} talk", slowly("la " * 400))
    assert failed(end) == "wall_time_exceeded"
    (seen,) = stage.model.asked(f"{where} talk")
    await until(lambda: seen.ended == "disconnected", 5)
    assert "stream.reset" in await stage.types(where) or "model.failed" in await stage.types(where)


# --- K13 ----------------------------------------------------------------------------------------------------------------------


async def test_a_tool_that_kills_the_process_is_given_up_and_harms_no_other_session(tmp_path: Path) -> None:
    """The first attempt makes progress (the model answers); five more make none. Each time nine other turns are in the middle of a
    tool that lasts longer than the process; once they are let go on, they come to their ends, though they were tried as often."""
    async with set_stage(tmp_path) as stage:
        poisoned, healthy = "default/helper/poisoned", [f"default/helper/healthy{number}" for number in range(9)]
        turns: dict[str, str] = {}
        for boot in range(1, 9):
            async with stage.product() as up, Api(up.url) as api:
                assert up.process is not None
                stage.apis, stage.gateways, stage.workers = [api], [up], [up]
                if boot == 1:
                    await stage.agent()
                    answers = call("note", text="x", gate="late"), say("healthy")
                    for one in healthy:
                        turns[one] = await stage.turn(one, f"{one} be patient", *answers)
                    for one in healthy:
                        await stage.began(one, "note")
                    turns[poisoned] = await stage.turn(poisoned, "poison", call("die"), say("unlikely"))
                elif boot == 5:
                    stage.open("late")
                died = asyncio.create_task(up.process.wait())
                ended = asyncio.create_task(has_ended(stage, poisoned, turns[poisoned]))
                await asyncio.wait({died, ended}, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
                if died.done():
                    assert died.result() == 9
                    ended.cancel()
                    await asyncio.gather(ended, return_exceptions=True)
                    continue
                assert failed(await ended) == "attempts_exhausted"
                for one in healthy:
                    assert (await stage.done(one, turns[one]))["type"] == "turn.completed"
                assert (await stage.run(poisoned, "and now"))["type"] == "turn.completed"
                await up.kill()
                await died
                break
        assert len(stage.effects(poisoned, "die")) == 6
        assert {len({line["key"] for line in stage.effects(one, "note")}) for one in healthy} == {1}


async def has_ended(stage: Stage, where: str, turn: str) -> Entry:
    """The turn's end; waits through a server that goes away."""
    async with asyncio.timeout(2 * BOUND_S):
        while True:
            try:
                return await stage.done(where, turn)
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


# --- what a definition refers to ----------------------------------------------------------------------------------------------


async def test_a_reference_that_nobody_serves_is_a_condition_and_refuses_the_turn(stage: Stage) -> None:
    agent = await stage.agent("dangling", mcpServerRefs=["toolbox", "stripe-readonly"])
    shown = await stage.api.get(f"{AGENTS}/{agent}")
    conditions = {one["type"]: one for one in shown["status"]["conditions"]}
    resolved = conditions["ReferencesResolved"]
    assert (resolved["status"], resolved["reason"]) == ("False", "UnresolvedReference")
    assert "stripe-readonly" in resolved["message"]
    assert conditions["Ready"]["status"] == "False"
    code, out, _ = await stage.cli("get", "agents")
    assert code == 0
    assert "ReferencesResolved=False (UnresolvedReference)" in next(line for line in out.splitlines() if "dangling" in line)
    where = stage.session(agent)
    end = await stage.run(where, f"{where} hello")
    assert (end["type"], end["payload"]["reason"]) == ("turn.denied", "unresolved_reference")
    assert "stripe-readonly" in end["payload"]["detail"]
    assert stage.model.asked(f"{where} hello") == []
    await stage.agent(agent)
    assert (await stage.run(where, f"{where} now"))["type"] == "turn.completed"


async def test_a_provider_that_nobody_has_refuses_the_turn_by_name(stage: Stage) -> None:
    agent = await stage.agent("homeless", modelPolicy={"profiles": [{"name": "p", "model": {"provider": "nobody", "name": "m"}}]})
    where = stage.session(agent)
    end = await stage.run(where, f"{where} hello")
    assert (end["type"], end["payload"]["reason"]) == ("turn.denied", "unresolved_reference")
    assert "nobody" in end["payload"]["detail"]


FEATURES = """
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata: {name: featured}
definition:
  customSpec:
    features:
      - {name: customer_id, type: string, required: true}
      - {name: seats, type: number}
      - {name: tone, type: enum, values: [plain, warm], default: plain}
    systemPrompt: "For {{ customer_id }}, {{ seats }} seats, {{ tone }}."
    modelPolicy: {profiles: [{name: first, model: {provider: model, name: one}}]}
"""


def featured(**features: Any) -> str:
    spec = {"templateRef": {"name": "featured"}, "features": features}
    return yaml.safe_dump({"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "featured"}, "spec": spec})


async def test_missing_and_wrong_features_are_named_and_right_ones_reach_the_prompt(stage: Stage) -> None:
    yaml_type = {"Content-Type": "application/yaml"}
    await stage.api.apply(FEATURES)
    wrong = featured(seats="many", tone="rude", colour="red")
    status, problem = await stage.api.call("POST", "/v1/apply", wrong, headers=yaml_type)
    assert status == 422
    assert {error["field"].rpartition("features.")[2] for error in problem["errors"]} == {"seats", "tone", "colour"}
    await stage.api.apply(featured(tone="warm"))
    session = stage.session("featured").rpartition("/")[2]
    status, problem = await stage.api.call("POST", f"{AGENTS}/featured/sessions", {"id": session, "features": {"seats": 1}})
    assert (status, problem["code"]) == (422, "invalid")
    assert "customer_id" in problem["detail"]
    await stage.api.call(
        "POST",
        f"{AGENTS}/featured/sessions",
        {"id": session, "features": {"customer_id": "acme {{ tone }}", "seats": 3}},
        expect=201,
    )
    where = f"default/featured/{session}"
    await stage.run(where, f"{where} hello")
    (shown,) = stage.model.asked(f"{where} hello")
    assert said(shown, "system") == ["For acme {{ tone }}, 3 seats, warm."]
    await stage.api.call("PATCH", path(where), {"features": {"customer_id": "globex"}}, expect=200)
    await stage.run(where, f"{where} again")
    assert said(stage.model.asked(f"{where} again")[0], "system") == ["For globex,  seats, warm."]


# --- tools that fail ----------------------------------------------------------------------------------------------------------


async def test_what_is_wrong_with_a_call_is_told_to_the_model_and_the_turn_goes_on(stage: Stage) -> None:
    where = stage.session()
    asked = calls(
        call("refuse"),
        call("look", what=7),
        call("pay"),
        call("unheard_of"),
        {"calls": [{"tool": "look", "arguments": '{"what": "half'}]},
        call("look", what="right"),
    )
    assert (await stage.run(where, f"{where} go", asked, say("done")))["type"] == "turn.completed"
    results = said(stage.model.asked(f"{where} go")[-1], "tool")
    assert results[0] == "the shop is closed"
    assert "what" in results[1]
    assert "amount" in results[2]
    assert "unheard_of" in results[3]
    assert "JSON" in results[4]
    assert results[5] == "saw right"
    assert [line["tool"] for line in stage.effects(where)].count("pay") == 0
    types = await stage.types(where)
    assert (types.count("tool.denied"), types.count("tool.failed"), types.count("tool.finished")) == (4, 1, 1)
