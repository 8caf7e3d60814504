"""Cancelling a turn, whatever it is doing, and what stays behind."""

from __future__ import annotations

import pytest

from support.stage import Entry, Stage, call, calls, gate_of, path, said, say, stalls
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
UNKNOWN = "It is not known whether this call took effect"


async def cancel(stage: Stage, where: str, turn: str) -> None:
    await stage.api.call("POST", path(where, "turns", turn, "cancel"), expect=202)


async def cancelled(stage: Stage, where: str, turn: str) -> Entry:
    end = await stage.done(where, turn)
    assert (end["type"], end["payload"]["reason"]) == ("turn.cancelled", "cancelled")
    return end


async def test_a_queued_turn_is_cancelled_at_once_and_never_runs(stage: Stage) -> None:
    where = stage.session()
    gate = gate_of(where)
    first = await stage.turn(where, f"{where} first", call("look", gate=gate), say("done"))
    queued = await stage.turn(where, f"{where} queued")
    await cancel(stage, where, queued)
    assert (await stage.api.get(path(where, "turns", queued)))["state"] == "cancelled"
    await cancelled(stage, where, queued)
    status, problem = await stage.api.call("POST", path(where, "turns", queued, "cancel"))
    assert (status, problem["code"]) == (409, "turn_ended")
    stage.open(gate)
    assert (await stage.done(where, first))["type"] == "turn.completed"
    assert (await stage.run(where, f"{where} next"))["type"] == "turn.completed"
    assert "turn.started" not in await stage.types(where, queued)


async def test_a_running_model_call_is_cut_and_its_server_sees_the_disconnect(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} endless", stalls())
    await stage.entry(where, "text.delta")
    await cancel(stage, where, turn)
    await cancelled(stage, where, turn)
    (seen,) = stage.model.asked(f"{where} endless")
    await until(lambda: seen.ended == "disconnected", 5)
    assert "model.failed" in await stage.types(where, turn)
    assert (await stage.run(where, f"{where} next"))["type"] == "turn.completed"


async def test_a_running_tool_that_only_reads_is_stopped_and_nobody_is_asked(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} look", call("look", gate="never"))
    await stage.began(where, "look")
    await cancel(stage, where, turn)
    await cancelled(stage, where, turn)
    assert [line["event"] for line in stage.effects(where)] == ["began", "cancelled"]
    assert (await stage.types(where, turn))[-2:] == ["tool.failed", "turn.cancelled"]
    assert await stage.approvals(where, "") == []


async def test_an_unsafe_call_without_receipt_is_uncertain_before_the_end_and_the_next_context_says_so(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} pay", calls(call("pay", amount=7, gate="never"), call("look", what="it")))
    await stage.began(where, "pay")
    await cancel(stage, where, turn)
    await cancelled(stage, where, turn)
    types = await stage.types(where, turn)
    assert types.index("tool.uncertain") < types.index("approval.requested") < types.index("turn.cancelled")
    (approval,) = await stage.approvals(where)
    assert (approval["name"], approval["turn_id"], approval["state"]) == ("pay", turn, "open")
    assert await stage.run(where, f"{where} next") is not None
    (shown,) = stage.model.asked(f"{where} next")
    pay, look = said(shown, "tool")
    assert pay.startswith(UNKNOWN)
    assert look == "saw it"

    decided = {"outcome": "done", "result": "receipt 4711"}
    await stage.api.call("POST", f"/v1/ns/default/approvals/{approval['id']}", decided, expect=200)
    await stage.run(where, f"{where} after the decision")
    (shown,) = stage.model.asked(f"{where} after the decision")
    assert "receipt 4711" in said(shown, "tool")[0]
    assert len(stage.effects(where, "pay", "began")) == 1


async def test_a_waiting_turn_is_cancelled_at_once_and_its_question_stays_open(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} send", call("wire", amount=1), say("done"))
    await stage.entry(where, "turn.waiting", turn)
    await cancel(stage, where, turn)
    await cancelled(stage, where, turn)
    (approval,) = await stage.approvals(where)
    assert approval["state"] == "open"
    await stage.run(where, f"{where} next")
    assert said(stage.model.asked(f"{where} next")[0], "tool")[0].startswith(UNKNOWN)
    await stage.api.call("POST", f"/v1/ns/default/approvals/{approval['id']}", {"outcome": "failed"}, expect=200)
    assert (await stage.api.get(path(where)))["state"] == "idle"


async def test_a_back_off_is_cancelled_at_once(stage: Stage) -> None:
    # A model of its own: all turns on a model wait as long as it asks for.
    rests = [{"name": "only", "model": {"provider": "model", "name": "rests"}}]
    where = stage.session(await stage.agent("limited", modelPolicy={"profiles": rests}))
    limited = {"fault": {"kind": "status", "status": 429, "retry_after_s": 60}}
    turn = await stage.turn(where, f"{where} hello", limited)
    waiting = await stage.entry(where, "turn.waiting", turn)
    assert waiting["payload"]["kind"] == "backoff"
    await cancel(stage, where, turn)
    await cancelled(stage, where, turn)
    assert (await stage.api.get(path(where)))["state"] == "idle"


async def test_deleting_a_session_cancels_what_runs_and_what_is_queued(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} look", call("look", gate="never"))
    await stage.began(where, "look")
    await stage.turn(where, f"{where} queued")
    await stage.api.call("DELETE", path(where), expect=204)
    await until(lambda: bool(stage.effects(where, "look", "cancelled")))
    assert (await stage.api.call("GET", path(where)))[0] == 404
    assert (await stage.api.call("GET", path(where, "turns", turn)))[0] == 404
    assert len(stage.model.asked(f"{where} queued")) == 0
