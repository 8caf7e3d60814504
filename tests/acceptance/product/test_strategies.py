"""The five strategies on a busy session: what the sender is told, what the journal says, and what the model is shown next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.product import Api
from support.stage import Entry, Stage, call, gate_of, path, said, say, set_stage, slowly, stalls

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def busy_with_a_tool(stage: Stage, where: str, gate: str) -> str:
    """A turn whose tool waits at `gate`; its model says "first done" afterwards. -> its id."""
    turn = await stage.turn(where, f"{where} first", call("look", what="x", gate=gate), say("first done"))
    await stage.began(where, "look")
    return turn


async def waiting_for_a_person(stage: Stage, where: str) -> tuple[str, str]:
    """A turn that waits for a decision on an uncertain call; its model says "first done" afterwards. -> (turn, approval)."""
    turn = await stage.turn(where, f"{where} first", call("wire", amount=5), say("first done"))
    await stage.entry(where, "turn.waiting", turn)
    (approval,) = await stage.approvals(where)
    return turn, approval["id"]


async def settle(stage: Stage, approval: str) -> None:
    await stage.api.call("POST", f"/v1/ns/default/approvals/{approval}", {"outcome": "done", "result": "sent"}, expect=200)


async def entries(stage: Stage, where: str, type_: str) -> list[Entry]:
    return [entry for entry in await stage.api.journal(where) if entry["type"] == type_]


def order(journal: list[Entry], *types: str) -> list[tuple[str, str]]:
    """(type, turn) of the entries of these types, in their order."""
    return [(entry["type"], entry["turn_id"]) for entry in journal if entry["type"] in types]


# --- enqueue ------------------------------------------------------------------------------------------------------------------


async def test_enqueue_runs_after_the_running_turn_and_after_those_queued_before(stage: Stage) -> None:
    where = stage.session()
    first = await busy_with_a_tool(stage, where, gate := gate_of(where))
    second = await stage.api.send(where, f"{where} second")
    third = await stage.api.send(where, f"{where} third", strategy="enqueue")
    assert (second["strategy"], third["strategy"]) == ("enqueue", "enqueue")
    assert len({first, second["turn_id"], third["turn_id"]}) == 3
    queued = {entry["turn_id"]: entry["payload"] for entry in await entries(stage, where, "turn.queued")}
    assert "behind" not in queued[first]
    assert queued[second["turn_id"]]["behind"] == {"turn_id": first, "state": "running"}
    assert queued[third["turn_id"]]["behind"] == {"turn_id": first, "state": "running", "turns": 2}
    assert (await stage.api.get(path(where)))["queued"] == 2
    stage.open(gate)
    await stage.done(where, third["turn_id"])
    ran = order(await stage.api.journal(where), "turn.started", "turn.completed")
    turns = (first, second["turn_id"], third["turn_id"])
    assert ran == [(type_, turn) for turn in turns for type_ in ("turn.started", "turn.completed")]
    (shown,) = stage.model.asked(f"{where} third")
    assert said(shown, "user") == [f"{where} first", f"{where} second", f"{where} third"]
    assert said(shown, "assistant")[-2:] == ["first done", f"You said: {where} second"]


async def test_enqueue_behind_a_waiting_turn_tells_the_sender_what_is_awaited(stage: Stage) -> None:
    where = stage.session()
    first, approval = await waiting_for_a_person(stage, where)
    second = await stage.api.send(where, f"{where} second")
    (_, queued) = await entries(stage, where, "turn.queued")
    assert queued["payload"]["behind"] == {"turn_id": first, "state": "waiting", "waiting_for": "approval"}
    assert (await stage.api.get(path(where, "turns", second["turn_id"])))["state"] == "queued"
    await settle(stage, approval)
    assert (await stage.done(where, second["turn_id"]))["type"] == "turn.completed"
    assert order(await stage.api.journal(where), "turn.completed") == [
        ("turn.completed", first),
        ("turn.completed", second["turn_id"]),
    ]


async def test_a_full_queue_refuses_with_queue_full_and_takes_messages_again_later(stage: Stage) -> None:
    where = stage.session()
    await busy_with_a_tool(stage, where, gate := gate_of(where))
    queue_max = stage.config["session"]["queue_max"]
    answers = await asyncio.gather(
        *(stage.api.call("POST", path(where, "message"), {"content": f"{where} {number}"}) for number in range(queue_max + 2))
    )
    assert sorted(status for status, _ in answers) == [202] * queue_max + [429] * 2
    problem = next(body for status, body in answers if status == 429)
    assert problem["code"] == "queue_full"
    assert f"has {queue_max} queued turns" in problem["detail"]
    stage.open(gate)
    last = max(body["seq"] for status, body in answers if status == 202)
    turn = next(body["turn_id"] for status, body in answers if status == 202 and body["seq"] == last)
    await stage.done(where, turn)
    assert (await stage.run(where, f"{where} afterwards"))["type"] == "turn.completed"


# --- steer --------------------------------------------------------------------------------------------------------------------


async def test_steer_joins_the_running_turn_before_its_next_model_call(stage: Stage) -> None:
    where = stage.session()
    first = await busy_with_a_tool(stage, where, gate := gate_of(where))
    queued = await stage.api.send(where, f"{where} queued before")
    stage.model.plan(f"{where} steer", say("as you like"))
    steered = await stage.api.send(where, f"{where} steer", strategy="steer")
    assert (steered["turn_id"], steered["strategy"]) == (first, "steer")
    stage.open(gate)
    end = await stage.done(where, first)
    assert end["type"] == "turn.completed"
    states = [
        (entry["payload"].get("state", "offered"), entry["payload"]["message_seq"])
        for entry in await entries(stage, where, "input.steered")
    ]
    assert states == [("offered", steered["seq"]), ("joined", steered["seq"])]
    (shown,) = stage.model.asked(f"{where} steer")[:1]
    assert said(shown)[-2:] == ["saw x", f"{where} steer"]
    assert f"{where} queued before" not in said(shown)
    await stage.done(where, queued["turn_id"])
    turns = (await stage.api.get(path(where, "turns")))["items"]
    assert {turn["turn_id"] for turn in turns} == {first, queued["turn_id"]}


async def test_steer_joins_a_waiting_turn_when_it_wakes(stage: Stage) -> None:
    where = stage.session()
    first, approval = await waiting_for_a_person(stage, where)
    stage.model.plan(f"{where} steer", say("as you like"))
    steered = await stage.api.send(where, f"{where} steer", strategy="steer")
    assert steered["turn_id"] == first
    assert (await stage.api.get(path(where)))["state"] == "waiting"
    await settle(stage, approval)
    assert (await stage.done(where, first))["type"] == "turn.completed"
    (shown,) = stage.model.asked(f"{where} steer")
    assert said(shown)[-2:] == ["sent", f"{where} steer"]


async def test_steer_after_the_last_model_call_becomes_a_turn_of_its_own_and_the_stream_says_so(stage: Stage) -> None:
    where = stage.session()
    first = await stage.turn(where, f"{where} first", slowly("This answer is the last thing that the turn will ever ask for."))
    await stage.entry(where, "text.delta")
    steered = await stage.api.send(where, f"{where} steer", strategy="steer")
    assert steered["turn_id"] == first
    assert (await stage.done(where, first))["type"] == "turn.completed"
    became = await stage.entry(where, "input.steered", after=steered["seq"] + 1)
    assert (became["payload"]["state"], became["payload"]["message_seq"]) == ("requeued", steered["seq"])
    own = became["payload"]["turn"]
    queued = await stage.entry(where, "turn.queued", own)
    assert queued["payload"]["requeued_from"] == first
    assert (await stage.done(where, own))["type"] == "turn.completed"
    (shown,) = stage.model.asked(f"{where} steer")
    assert said(shown, "user") == [f"{where} first", f"{where} steer"]
    assert said(shown, "assistant") == ["This answer is the last thing that the turn will ever ask for."]


# --- interrupt ----------------------------------------------------------------------------------------------------------------


async def test_interrupt_cuts_the_running_model_call_and_runs_before_those_queued_before(stage: Stage) -> None:
    where = stage.session()
    first = await stage.turn(where, f"{where} first", stalls())
    await stage.entry(where, "text.delta")
    queued = await stage.api.send(where, f"{where} queued before")
    urgent = await stage.api.send(where, f"{where} urgent", strategy="interrupt")
    assert urgent["turn_id"] not in (first, queued["turn_id"])
    end = await stage.done(where, first)
    assert (end["type"], end["payload"]["reason"]) == ("turn.cancelled", "interrupted")
    await stage.done(where, queued["turn_id"])
    assert [turn for _, turn in order(await stage.api.journal(where), "turn.started")] == [
        first,
        urgent["turn_id"],
        queued["turn_id"],
    ]
    (cut,) = stage.model.asked(f"{where} first")[:1]
    assert cut.ended == "disconnected"
    (shown,) = stage.model.asked(f"{where} urgent")[:1]
    assert said(shown, "user") == [f"{where} first", f"{where} urgent"]


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_interrupting_a_waiting_turn_cancels_it_with_its_approval(stage: Stage, strategy: str) -> None:
    where = stage.session()
    first, approval = await waiting_for_a_person(stage, where)
    urgent = await stage.api.send(where, f"{where} urgent", strategy=strategy)
    assert (await stage.done(where, urgent["turn_id"]))["type"] == "turn.completed"
    end = await stage.done(where, first)
    reason = {"interrupt": "interrupted", "rollback": "rolled_back"}[strategy]
    assert (end["type"], end["payload"]["reason"], end["payload"].get("rollback", False)) == (
        "turn.cancelled",
        reason,
        strategy == "rollback",
    )
    assert (await stage.api.get(f"/v1/ns/default/approvals/{approval}"))["state"] == "cancelled"
    status, problem = await stage.api.call("POST", f"/v1/ns/default/approvals/{approval}", {"outcome": "failed"})
    assert (status, problem["code"]) == (409, "approval_closed")
    (shown,) = stage.model.asked(f"{where} urgent")
    expected = [f"{where} urgent"] if strategy == "rollback" else [f"{where} first", f"{where} urgent"]
    assert said(shown, "user") == expected


# --- rollback -----------------------------------------------------------------------------------------------------------------


async def test_rollback_takes_the_turns_messages_out_of_every_later_context_but_not_out_of_the_journal(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} before", say("before done"))
    first = await busy_with_a_tool(stage, where, "never")
    instead = await stage.api.send(where, f"{where} instead", strategy="rollback")
    end = await stage.done(where, first)
    assert (end["payload"]["reason"], end["payload"]["rollback"]) == ("rolled_back", True)
    await stage.done(where, instead["turn_id"])
    await stage.run(where, f"{where} later")
    assert stage.effects(where, "look", "cancelled")
    shown = stage.model.asked(f"{where} instead")[0]
    assert said(shown)[1:] == [f"{where} before", "before done", f"{where} instead"]
    shown = stage.model.asked(f"{where} later")[0]
    assert said(shown, "user") == [f"{where} before", f"{where} instead", f"{where} later"]
    messages = [item["content"] for item in (await stage.api.get(path(where, "messages")))["items"]]
    assert f"{where} first" in messages


@pytest.mark.parametrize("state", ["running", "waiting"])
@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_steering_message_that_its_turn_never_saw_is_a_turn_of_its_own(stage: Stage, state: str, strategy: str) -> None:
    where = stage.session()
    if state == "running":
        first = await busy_with_a_tool(stage, where, "never")
    else:
        first, _ = await waiting_for_a_person(stage, where)
    steered = await stage.api.send(where, f"{where} steer", strategy="steer")
    instead = await stage.api.send(where, f"{where} instead", strategy=strategy)
    became = await stage.entry(where, "input.steered", after=steered["seq"] + 1)
    assert became["payload"]["state"] == "requeued"
    own = became["payload"]["turn"]
    assert (await stage.done(where, own))["type"] == "turn.completed"
    started = [turn for _, turn in order(await stage.api.journal(where), "turn.started")]
    assert started == [first, instead["turn_id"], own]
    shown = said(stage.model.asked(f"{where} steer")[-1], "user")
    assert shown == [f"{where} first"] * (strategy == "interrupt") + [f"{where} instead", f"{where} steer"]


# --- reject, and idle sessions ------------------------------------------------------------------------------------------------


async def test_reject_is_refused_while_the_session_is_busy_and_leaves_no_trace(stage: Stage) -> None:
    where = stage.session()
    assert (await stage.run(where, f"{where} idle", strategy="reject"))["type"] == "turn.completed"

    async def refused() -> None:
        before = await stage.types(where)
        status, problem = await stage.api.call("POST", path(where, "message"), {"content": "no", "strategy": "reject"})
        assert (status, problem["code"]) == (409, "session_busy")
        assert await stage.types(where) == before

    turn = await busy_with_a_tool(stage, where, gate := gate_of(where))
    await refused()
    stage.open(gate)
    await stage.done(where, turn)
    _, approval = await waiting_for_a_person(stage, other := stage.session())
    where = other
    await refused()
    await settle(stage, approval)


@pytest.mark.parametrize("strategy", ["enqueue", "steer", "interrupt", "rollback", "reject"])
async def test_on_an_idle_session_every_strategy_is_simply_a_turn(stage: Stage, strategy: str) -> None:
    where = stage.session()
    end = await stage.run(where, f"{where} hello", strategy=strategy)
    assert end["type"] == "turn.completed"
    assert await stage.types(where) == [
        "message.received",
        "turn.queued",
        "turn.started",
        "model.started",
        "model.finished",
        "message.completed",
        "turn.completed",
    ]


# --- queued, and nobody runs it -----------------------------------------------------------------------------------------------


async def test_strategies_on_a_session_whose_turn_is_queued_and_not_begun(tmp_path: Path, empty_database_url: str) -> None:
    """A gateway without any worker: everything waits until one comes."""
    async with set_stage(tmp_path, empty_database_url) as stage, stage.product("gateway", "g") as gateway, Api(gateway.url) as api:
        stage.apis, stage.gateways = [api], [gateway]
        await stage.agent()
        places = {strategy: stage.session() for strategy in ("enqueue", "steer", "interrupt", "rollback")}
        texts = {strategy: [f"{place} first", f"{place} second"] for strategy, place in places.items()}
        firsts = {strategy: (await api.send(place, texts[strategy][0]))["turn_id"] for strategy, place in places.items()}
        seconds: dict[str, str] = {}
        for strategy, place in places.items():
            seconds[strategy] = (await api.send(place, texts[strategy][1], strategy=strategy))["turn_id"]
            assert (await api.get(path(place)))["state"] == "queued"
        status, problem = await api.call("POST", path(places["enqueue"], "message"), {"content": "no", "strategy": "reject"})
        assert (status, problem["code"]) == (409, "session_busy")
        assert seconds["steer"] == firsts["steer"]
        for strategy, reason in (("interrupt", "interrupted"), ("rollback", "rolled_back")):
            turn = await api.get(path(places[strategy], "turns", firsts[strategy]))
            assert (turn["state"], turn["reason"]) == ("cancelled", reason)
        (queued,) = [e["payload"] for e in await api.journal(places["enqueue"]) if e["turn_id"] == seconds["enqueue"]][1:]
        assert queued["behind"] == {"turn_id": firsts["enqueue"], "state": "queued"}

        async with stage.product("worker", "late") as worker:
            stage.workers = [worker]
            for strategy, place in places.items():
                assert (await stage.done(place, seconds[strategy]))["type"] == "turn.completed"
            assert "Traceback" not in stage.log
        shown = {strategy: said(stage.model.asked(text)[-1], "user") for strategy, (_, text) in texts.items()}
        assert shown == {**texts, "rollback": texts["rollback"][1:]}
        assert [len(stage.model.asked(first)) for first, _ in texts.values()] == [2, 1, 1, 0]
