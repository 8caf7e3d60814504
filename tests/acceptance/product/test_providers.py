"""A model's server that goes wrong: each way has its own journal entry, the turn ends or goes on, and nobody else notices."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from support.planted import STAGE_KEY, marks
from support.stage import Entry, Stage, Step, call, fault, path, said, say

pytestmark = pytest.mark.asyncio(loop_scope="session")
FINE = say("fine after all")
#: What goes wrong once -> the error class of its `model.failed`. The provider `hasty` waits 0.3 s for a silent server.
ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "429 with Retry-After": (fault("status", status=429, retry_after_s=1), "rate_limit"),
    "500": (fault("status", status=500), "server"),
    "529": (fault("status", status=529), "overloaded"),
    "nothing": (fault("empty"), "empty"),
    "a web page": (fault("garbage"), "malformed"),
    "half a JSON": (fault("half_json", after=1), "malformed"),
    "closes at once": (fault("cut", after=0), "connection"),
    "closes in the middle": (fault("cut", after=2), "connection"),
    "stalls at once": (fault("stall", after=0), "timeout"),
    "stalls in the middle": (fault("stall", after=2), "timeout"),
}
#: What no repetition mends -> the error class.
FOR_GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "401": (fault("status", status=401, message=f"the key {STAGE_KEY} is wrong"), "authentication"),
    "403": (fault("status", status=403), "authentication"),
    "400": (fault("status", status=400, message="no such parameter"), "bad_request"),
    "a context too long": (fault("status", status=400, message="maximum context length is 8192 tokens"), "context_overflow"),
}


def profile(provider: str, name: str = "first", model: str = "one") -> dict[str, Any]:
    return {"name": name, "model": {"provider": provider, "name": model}}


async def failures(stage: Stage, where: str) -> list[dict[str, Any]]:
    return [entry["payload"] for entry in await stage.api.journal(where) if entry["type"] == "model.failed"]


async def test_what_goes_wrong_once_is_told_and_the_turn_is_answered_all_the_same(stage: Stage) -> None:
    async def one(nth: int, name: str, step: Step) -> tuple[Entry, str]:
        # A model of its own: who was told to wait makes every other turn of the same model wait too.
        agent = await stage.agent(f"hasty-{nth}", modelPolicy={"profiles": [profile("hasty", model=f"hasty-{nth}")]})
        where = stage.session(agent)
        return await stage.run(where, f"{where} {name}", step), where

    ran = await asyncio.gather(*(one(nth, name, [wrong, FINE]) for nth, (name, (wrong, _)) in enumerate(ONCE.items())))
    at: dict[str, list[str]] = {"turn.started": [], "turn.completed": []}
    for (name, (_, error)), (end, where) in zip(ONCE.items(), ran, strict=True):
        assert end["type"] == "turn.completed", (name, end)
        (failed,) = await failures(stage, where)
        assert (failed["error"], failed["retryable"]) == (error, True), name
        assert failed["detail"], name
        journal = await stage.api.journal(where)
        types = [entry["type"] for entry in journal]
        for type_, times in at.items():
            times += [entry["at"] for entry in journal if entry["type"] == type_]
        # Text that a client has seen is taken back before it is said again.
        assert ("stream.reset" in types) == ("middle" in name or name == "half a JSON"), (name, types)
        waits = [entry["payload"] for entry in journal if entry["type"] == "turn.waiting"]
        assert [wait["kind"] for wait in waits] == ["backoff"], name
        answer = next(entry["payload"]["content"] for entry in journal if entry["type"] == "message.completed")
        assert answer == "fine after all"
        assert (await stage.run(where, f"{where} and now"))["type"] == "turn.completed"
    ended = sorted(at["turn.completed"])
    assert max(at["turn.started"]) < ended[len(ended) // 2], "they waited for each other"


async def test_what_no_repetition_mends_ends_the_turn_at_once_and_the_next_message_is_answered(stage: Stage) -> None:
    async def one(name: str, wrong: dict[str, Any]) -> tuple[Entry, str]:
        where = stage.session()
        return await stage.run(where, f"{where} {name}", wrong), where

    ran = await asyncio.gather(*(one(name, wrong) for name, (wrong, _) in FOR_GOOD.items()))
    for (name, (wrong, error)), (end, where) in zip(FOR_GOOD.items(), ran, strict=True):
        assert (end["type"], end["payload"]["reason"]) == ("turn.failed", "model_failed"), name
        assert end["payload"]["detail"].startswith(f"{error}: providers.model answered {wrong['fault']['status']}"), end
        (failed,) = await failures(stage, where)
        assert (failed["error"], failed["status"]) == (error, wrong["fault"]["status"]), name
        assert not marks(str(await stage.api.journal(where)).encode()), "a key is in no journal"
        assert (await stage.run(where, f"{where} and now"))["type"] == "turn.completed"
    assert not marks(stage.log.encode())


async def test_a_server_that_stays_broken_fails_the_turn_after_some_rounds_and_others_do_not_notice(embedded: Stage) -> None:
    stage = embedded
    broken = stage.session()
    turn = await stage.turn(broken, f"{broken} hello", fault("status", status=500))
    waiting = await stage.entry(broken, "turn.waiting", turn)
    for _ in range(5):
        other = stage.session()
        assert (await stage.run(other, f"{other} hello", call("look"), say("fine")))["type"] == "turn.completed"
    assert (await stage.api.get(path(broken)))["state"] != "idle"
    end = await stage.done(broken, turn)
    assert (end["type"], end["payload"]["reason"]) == ("turn.failed", "model_failed")
    assert end["payload"]["detail"].startswith("server after 4 attempts")
    journal = await stage.api.journal(broken)
    pauses = [entry["payload"]["until_ms"] for entry in journal if entry["type"] == "turn.waiting"]
    assert len(pauses) == 3
    assert pauses[0] == waiting["payload"]["until_ms"]
    assert (await stage.run(broken, f"{broken} and now"))["type"] == "turn.completed"


async def test_retry_after_is_waited_for_as_a_row(stage: Stage) -> None:
    where = stage.session()
    began = time.monotonic()
    turn = await stage.turn(where, f"{where} hello", [fault("status", status=429, retry_after_s=2), FINE])
    waiting = await stage.entry(where, "turn.waiting", turn)
    assert "rate_limit" in waiting["payload"]["detail"]
    shown = await stage.api.get(f"/v1/ns/default/agents/helper/sessions/{where.rpartition('/')[2]}/turns/{turn}")
    assert (shown["state"], shown["waiting_for"]) == ("waiting", "backoff")
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert 2 <= time.monotonic() - began < 5


async def test_the_next_profile_takes_over_at_once(stage: Stage) -> None:
    profiles = [profile("model", "first", "one"), profile("second", "spare", "two")]
    agent = await stage.agent("failing-over", modelPolicy={"profiles": profiles})
    for wrong in (fault("status", status=401), fault("status", status=500), fault("cut", after=2)):
        where = stage.session(agent)
        text = f"{where} hello"
        stage.model.plan(text, say("from the spare"), model="two")
        stage.model.plan(text, wrong, model="one")
        assert (await stage.run(where, text))["type"] == "turn.completed"
        journal = await stage.api.journal(where)
        started = [entry["payload"] for entry in journal if entry["type"] == "model.started"]
        assert [(one["profile"], one["provider"], one["model"]) for one in started] == [
            ("first", "model", "one"),
            ("spare", "second", "two"),
        ]
        assert "turn.waiting" not in [entry["type"] for entry in journal]
        assert next(entry["payload"]["content"] for entry in journal if entry["type"] == "message.completed") == "from the spare"


async def test_a_profile_chosen_by_name_is_the_only_one_that_is_asked(stage: Stage) -> None:
    profiles = [profile("model", "first", "one"), profile("second", "spare", "two")]
    agent = await stage.agent("choosing", modelPolicy={"profiles": profiles})
    where = stage.session(agent)
    session = where.rpartition("/")[2]
    sessions = f"/v1/ns/default/agents/{agent}/sessions"
    await stage.api.call("POST", sessions, {"id": session, "profile": "spare"}, expect=201)
    await stage.run(where, f"{where} hello")
    assert [entry["payload"]["model"] for entry in await stage.api.journal(where) if entry["type"] == "model.started"] == ["two"]
    status, problem = await stage.api.call("PATCH", f"{sessions}/{session}", {"profile": "frist"})
    assert (status, problem["errors"][0]["field"]) == (422, "profile")
    assert "first" in problem["detail"]
    await stage.api.call("PATCH", f"{sessions}/{session}", {"profile": "first"}, expect=200)
    await stage.run(where, f"{where} again")
    assert said(stage.model.asked(f"{where} again")[0], "user") == [f"{where} hello", f"{where} again"]
    assert [entry["payload"]["model"] for entry in await stage.api.journal(where) if entry["type"] == "model.started"] == [
        "two",
        "one",
    ]
