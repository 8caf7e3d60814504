"""A call that nobody knows the end of: a person decides, by HTTP or on the command line, once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.stage import Stage, call, calls, path, said, say

pytestmark = pytest.mark.asyncio(loop_scope="session")
APPROVALS = "/v1/ns/default/approvals"


async def asking(stage: Stage) -> tuple[str, str, dict[str, Any]]:
    """-> (session, turn, its open approval) of a turn whose transfer of 12 is uncertain."""
    where = stage.session()
    turn = await stage.turn(where, f"{where} send", calls(call("wire", amount=12), call("look", what="it")), say("all done"))
    await stage.entry(where, "turn.waiting", turn)
    (approval,) = await stage.approvals(where)
    return where, turn, approval


async def resolve(stage: Stage, approval: str, **decision: Any) -> tuple[int, Any]:
    return await stage.other.call("POST", f"{APPROVALS}/{approval}", decision)


async def test_the_question_names_the_call_and_its_exact_arguments(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    assert (approval["kind"], approval["name"], approval["turn_id"], approval["state"]) == ("uncertain", "wire", turn, "open")
    assert json.loads(approval["arguments"]) == {"amount": 12}
    assert len(approval["arguments_sha256"]) == 64
    shown = await stage.api.get(path(where, "turns", turn))
    assert (shown["state"], shown["waiting_for"]) == ("waiting", "approval")
    assert (await stage.api.get(f"{APPROVALS}/{approval['id']}")) == approval
    code, out, errors = await stage.cli("approval", "list")
    assert (code, errors) == (0, "")
    (line,) = [line for line in out.splitlines() if approval["id"] in line]
    assert "wire" in line
    assert (await resolve(stage, approval["id"], outcome="failed"))[0] == 200


async def test_retry_makes_the_call_again_under_the_same_key(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    status, decided = await resolve(stage, approval["id"], outcome="retry", note="asked the bank: nothing came")
    assert (status, decided["state"], decided["outcome"]) == (200, "resolved", "retry")
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    attempts = stage.effects(where, "wire")
    assert [line["attempt"] for line in attempts] == [1, 2]
    assert len({line["key"] for line in attempts}) == 1
    shown = stage.model.asked(f"{where} send")[-1]
    assert said(shown, "tool") == ["sent 12", "saw it"]
    (entry,) = [entry for entry in await stage.api.journal(where) if entry["type"] == "approval.resolved"]
    assert entry["payload"]["note"] == "asked the bank: nothing came"


async def test_done_gives_the_model_the_result_and_makes_no_call(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    assert (await resolve(stage, approval["id"], outcome="done", result="transfer 4711"))[0] == 200
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert said(stage.model.asked(f"{where} send")[-1], "tool") == ["transfer 4711", "saw it"]
    assert len(stage.effects(where, "wire")) == 1
    (receipt,) = [
        e["payload"] for e in await stage.api.journal(where) if e["type"] == "tool.finished" and e["payload"]["call"] == 1
    ]
    assert (receipt["source"], receipt["output"]) == ("human", "transfer 4711")


async def test_failed_tells_the_model_so_and_makes_no_call(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    assert (await resolve(stage, approval["id"], outcome="failed", result="the bank refused it"))[0] == 200
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert said(stage.model.asked(f"{where} send")[-1], "tool")[0] == "the bank refused it"
    assert len(stage.effects(where, "wire")) == 1


async def test_of_many_who_decide_at_once_one_wins_and_the_others_are_told(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    answers = await asyncio.gather(*(resolve(stage, approval["id"], outcome="done", result=f"by {n}") for n in range(6)))
    assert sorted(status for status, _ in answers) == [200] + [409] * 5
    assert {body["code"] for status, body in answers if status == 409} == {"approval_closed"}
    await stage.done(where, turn)
    journal = await stage.api.journal(where)
    assert len([entry for entry in journal if entry["type"] == "approval.resolved"]) == 1
    status, problem = await resolve(stage, approval["id"], outcome="retry")
    assert (status, problem["code"]) == (409, "approval_closed")
    assert "resolved (done)" in problem["detail"]


async def test_a_wrong_decision_is_refused_and_the_question_stays_open(stage: Stage) -> None:
    where, turn, approval = await asking(stage)
    for wrong, field in (
        ({"outcome": "done"}, "result"),
        ({"outcome": "retry", "result": "x"}, "result"),
        ({"outcome": "approve"}, "outcome"),
        ({}, "outcome"),
        ({"outcome": "failed", "by": "me"}, "by"),
        ({"outcome": "failed", "note": "x" * 5000}, "note"),
    ):
        status, problem = await resolve(stage, approval["id"], **wrong)
        assert (status, problem["code"], problem["errors"][0]["field"]) == (422, "invalid", field), wrong
    for unknown in ("nothing", "00000000-0000-7000-8000-000000000000", "%00", "..%2F.."):
        status, problem = await stage.api.call("POST", f"{APPROVALS}/{unknown}", {"outcome": "failed"})
        assert status == 404, unknown
        assert problem["code"] in ("approval_not_found", "route_not_found"), unknown
    assert len(await stage.approvals(where)) == 1
    assert (await resolve(stage, approval["id"], outcome="done", result="x\0y"))[0] == 200
    assert (await stage.done(where, turn))["type"] == "turn.completed"


async def test_the_command_line_decides_and_says_why_it_may_not(embedded: Stage) -> None:
    stage = embedded
    where, turn, approval = await asking(stage)
    resolving = ("approval", "resolve", approval["id"], "--outcome")
    code, out, errors = await stage.cli(*resolving, "done")
    assert (code, out) == (2, "")
    assert "--result" in errors
    code, out, errors = await stage.cli(*resolving, "done", "--result", "receipt 7", "--note", "called them")
    assert (code, out) == (0, ""), errors
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert said(stage.model.asked(f"{where} send")[-1], "tool")[0] == "receipt 7"
    code, out, errors = await stage.cli(*resolving, "failed")
    assert (code, out) == (3, "")
    assert "[approval_closed]" in errors
    assert "Traceback" not in errors
