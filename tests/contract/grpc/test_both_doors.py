"""Every operation through both doors: the same answers, codes, fields, pages, versions and words, whatever the transport."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support.bootedgateway import Booted, booted
from support.doors import Case, Door, HttpDoor, Outcome, RpcDoor
from support.rpc import rpc
from talon.domain.models import ModelInfo, Prices
from talon.manifest.catalogue import Catalogue, encode

S1 = ("acme", "helper", "s1")
NOBODY = "0192aaaa-0000-7000-8000-000000000000"
#: What each transport reads in its own way is refused in its own words; the code and the field are the same.
OTHER_WORDS = {
    *("limit", "state", "outcome", "config.thinkingLevel", "config.model", "precondition_failed"),
    *("count", "type", "complexity", "inputTokens", "model", "data_tier"),
}

AGENT = """\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}
definition:
  customSpec:
    modelPolicy:
      profiles:
        - {{name: primary, model: {{provider: scripted, name: one}}}}
    systemPrompt: {prompt}
"""


async def sessions(door: Door, gateway: Booted) -> None:
    big = {"order": 12345678901234567890, "deep": [[[[[[[[[[{"x": None}]]]]]]]]]], "text": "é🙂\u2028"}
    await door.call("create_session", ns="acme", agent="helper", id="s1", metadata=big, features={"tone": "warm"}, profile="second")
    await door.call("create_session", ns="acme", agent="helper", id="s1", metadata={"ignored": 1})
    for number in range(3):
        await door.call("create_session", ns="acme", agent="helper", id=f"t{number}")
    await door.call("create_session", ns="acme", agent="helper", key="a-key")
    await door.call("create_session", ns="acme", agent="helper", key="a-key")
    config = {"model": "second", "thinkingLevel": "low", "verboseLevel": False}
    await door.call("create_session", ns="acme", agent="helper", id="own", config=config)
    await door.call("create_session", ns="acme", agent="helper", id="none", config={"thinkingLevel": "deep"})
    await door.call("create_session", ns="acme", agent="helper", id="none", config={"model": "x" * 300})
    await door.call("get_session", session=S1)
    page = await door.call("list_sessions", ns="acme", agent="helper", limit=2)
    await door.call("list_sessions", ns="acme", agent="helper", limit=2, cursor=page.value["next_cursor"])
    await door.call("list_sessions", ns="acme", agent="helper", cursor="nonsense")
    for limit in (501, -1):
        await door.call("list_sessions", ns="acme", agent="helper", limit=limit)
    await door.call("list_sessions", ns="acme", agent="nobody")
    for where in (("nowhere", "helper", "s1"), ("acme", "nobody", "s1"), ("acme", "helper", "s9"), ("Acme!", "helper", "s1")):
        await door.call("get_session", session=where)
        await door.call("send", session=where, content="hello")
        await door.call("state", session=where)
    for wrong in ({"id": "No!"}, {"profile": "third"}, {"features": {"tone": "loud"}}, {"features": {"other": 1}}):
        await door.call("create_session", ns="acme", agent="helper", **wrong)
    await door.call("create_session", ns="acme", agent="strict", id="x")
    await door.call("create_session", ns="acme", agent="strict", id="x", features={"customer_id": "c1"})
    await door.call("create_session", ns="acme", agent="helper", metadata={"x": "y" * 70_000})
    await door.call("create_session", ns="acme", agent="helper", key="a b")


async def messages(door: Door, gateway: Booted) -> None:
    await door.call("send", session=S1, content="hello", create=True, metadata={"from": "x"}, key="k1")
    await door.call("send", session=S1, content="hello", create=True, metadata={"from": "x"}, key="k1")
    await door.call("send", session=S1, content="other", key="k1")
    await door.call("send", session=S1, content="hello", key="a b")
    for content in ("", " \n", "a\0b", "x" * 1_100_000):
        await door.call("send", session=S1, content=content)
    await door.call("send", session=S1, content="x", strategy="loudly")
    await door.call("send", session=S1, content="x", metadata={"x": "y" * 70_000})
    await door.call("send", session=S1, content="x", strategy="reject")
    await door.call("send", session=("acme", "helper", "N!"), content="x", create=True)
    await door.call("send", session=("acme", "strict", "new"), content="x", create=True)
    queued = await door.call("send", session=S1, content="second")
    await door.call("send", session=S1, content="third")
    await door.call("send", session=S1, content="fourth")
    await door.call("cancel", session=S1, turn=queued.value["turn_id"], key="c1")
    await door.call("cancel", session=S1, turn=queued.value["turn_id"], key="c1")
    await door.call("cancel", session=S1, turn=queued.value["turn_id"])
    await door.call("cancel", session=S1, turn=NOBODY)
    await door.call("cancel", session=S1, turn="nonsense")
    await door.call("state", session=S1)
    await door.call("get_session", session=S1)


async def turns(door: Door, gateway: Booted) -> None:
    sent = await door.call("send", session=S1, content="hello", create=True)
    turn = sent.value["turn_id"]
    held = await gateway.hand.claim()
    model = await gateway.hand.start(held)
    await gateway.hand.say(held, model, 0, "Hel")
    await gateway.hand.say(held, model, 3, "lo ")
    await door.call("stream", session=S1, after="0", count=6)
    await door.call("stream", session=S1, after="4.2", count=1)
    await door.call("stream", session=S1, after="4.99")
    await door.call("stream", session=S1, after="99")
    for cursor in ("nonsense", "1.2.3.4", "-1"):
        await door.call("stream", session=S1, after=cursor)
    await door.call("stream", session=S1, turn=NOBODY)
    await door.call("state", session=S1)
    await gateway.hand.finish(held, model, "Hello you")
    await door.call("stream", session=S1, after="4.6", turn=turn)
    await door.call("stream", session=S1, after="0", turn=turn)
    await door.call("stream", session=S1, turn=turn)
    await door.call("cancel", session=S1, turn=turn)
    await door.call("state", session=S1)


async def approvals(door: Door, gateway: Booted) -> None:
    await door.call("send", session=S1, content="hello", create=True)
    held = await gateway.hand.claim()
    await gateway.hand.start(held)
    approval = gateway.hand.ids.uuid7()
    await gateway.hand.ask(held, approval)
    await door.call("list_approvals", ns="acme")
    await door.call("list_approvals", ns="acme", state="resolved")
    await door.call("list_approvals", ns="acme", state="strange")
    await door.call("list_approvals", ns="nowhere")
    await door.call("get_approval", ns="acme", id=approval)
    await door.call("get_approval", ns="acme", id=NOBODY)
    await door.call("get_approval", ns="acme", id="nonsense")
    for wrong in ({"outcome": "done"}, {"outcome": "retry", "result": "x"}, {"outcome": "maybe"}):
        await door.call("resolve", ns="acme", id=approval, **wrong)
    await door.call("resolve", ns="acme", id=NOBODY, outcome="retry")
    await door.call("resolve", ns="acme", id=approval, outcome="done", result="it was", note="seen", key="r1")
    await door.call("resolve", ns="acme", id=approval, outcome="done", result="it was", note="seen", key="r1")
    await door.call("resolve", ns="acme", id=approval, outcome="failed", key="r1")
    await door.call("resolve", ns="acme", id=approval, outcome="failed")
    await door.call("list_approvals", ns="acme", state="open")


async def namespaces(door: Door, gateway: Booted) -> None:
    await door.call("create", kind="Namespace", manifest={"metadata": {"name": "beta", "labels": {"app": "x"}}})
    await door.call("create", kind="Namespace", manifest={"metadata": {"name": "beta", "labels": {"app": "x"}}})
    await door.call("create", kind="Namespace", manifest={"metadata": {"name": "beta", "labels": {"app": "y"}}})
    await door.call("create", kind="Namespace", manifest={"metadata": {"name": "beta:sub"}})
    await door.call("create", kind="Namespace", manifest={"metadata": {"name": "No!"}})
    await door.call("get", kind="Namespace", name="beta")
    await door.call("get", kind="Namespace", name="gone")
    page = await door.call("list", kind="Namespace", limit=2)
    await door.call("list", kind="Namespace", limit=2, cursor=page.value["next_cursor"])
    await door.call("list", kind="Namespace", label_selector="app=x")
    await door.call("list", kind="Namespace", label_selector="app=(")
    await door.call("delete", kind="Namespace", name="beta")
    await door.call("delete", kind="Namespace", name="beta", cascade=True)
    await door.call("delete", kind="Namespace", name="gone")


async def resources(door: Door, gateway: Booted) -> None:
    await door.call("apply", text=AGENT.format(name="one", namespace="acme", app="x", prompt="You help."))
    await door.call("apply", text=AGENT.format(name="one", namespace="acme", app="x", prompt="You help more."), dry_run=True)
    await door.call("apply", text=AGENT.format(name="one", namespace="acme", app="x", prompt="You help more."))
    await door.call("apply", text=AGENT.format(name="two", namespace="fresh", app="x", prompt="You help."))
    for text in ("", "{", "kind: Strange\nmetadata: {name: x}", "kind: Agent\nmetadata: {name: No!}\nextra: 1", "a: &a [*a]"):
        await door.call("apply", text=text)
    await door.call("apply", text="kind: Namespace\nmetadata: {name: acme}", prune=True)
    await door.call("apply", text="kind: Namespace\nmetadata: {name: fresh}", prune=True, label_selector="app=x", dry_run=True)
    await door.call("get", kind="Agent", ns="acme", name="one")
    await door.call("get", kind="Agent", ns="acme", name="one", effective=True)
    await door.call("get", kind="Agent", ns="acme", name="gone")
    await door.call("get", kind="Agent", ns="nowhere", name="one")
    schedule: dict[str, Any] = {"metadata": {"name": "daily"}, "spec": {"agentRef": "one", "cron": "0 9 * * *"}}
    await door.call("create", kind="Schedule", ns="acme", manifest=schedule)
    await door.call("create", kind="Agent", ns="acme", manifest={"metadata": {"name": "three"}, "strange": 1})
    await door.call("create", kind="Agent", ns="nowhere", manifest={"metadata": {"name": "three"}})
    await door.call("create", kind="Agent", ns="acme", manifest=[1])
    first = await door.call("list", kind="Agent", ns="acme", limit=2)
    await door.call("list", kind="Agent", ns="acme", limit=2, cursor=first.value["next_cursor"])
    await door.call("list", kind="Agent", ns="acme", cursor="x.y")
    await door.call("list", kind="Agent", ns="nowhere")
    await door.call("delete", kind="Agent", ns="acme", name="one", version="1")
    await door.call("delete", kind="Agent", ns="acme", name="one")
    await door.call("delete", kind="Agent", ns="acme", name="one")
    await door.call("delete", kind="Agent", ns="acme", name="helper", version="99999")


async def watches(door: Door, gateway: Booted) -> None:
    start = (await door.call("list", kind="Agent", ns="acme")).value["resource_version"]
    for prompt in ("first", "second"):
        await door.call("apply", text=AGENT.format(name="one", namespace="acme", app="x", prompt=prompt))
    await door.call("apply", text=AGENT.format(name="one", namespace="acme", app="y", prompt="second"))
    await door.call("delete", kind="Agent", ns="acme", name="one")
    seen = await door.call("watch", kind="Agent", ns="acme", version=start, count=4)
    await door.call("watch", kind="Agent", ns="acme", version=seen.value[1]["cursor"], count=2)
    await door.call("watch", kind="Agent", ns="acme", version=start, selector="app=x", count=3)
    await door.call("watch", kind="Agent", ns="acme", count=1)
    await door.call("watch", kind="Agent", ns="acme", version="99999")
    await door.call("watch", kind="Agent", ns="acme", version="x")
    await door.call("watch", kind="Agent", ns="nowhere")
    await door.call("watch", kind="Namespace", version="0", count=2)


def schedule(name: str, agent: str = "helper", **spec: Any) -> dict[str, Any]:
    """The manifest of one that fires on New Year's morning in Los Angeles."""
    target = {"agent": agent, "sessionMode": "named", "sessionId": name}
    times = {"kind": "cron", "cron": "0 9 1 1 *", "timezone": "America/Los_Angeles"}
    return {"metadata": {"name": name}, "spec": {**times, "target": target, "inputMessage": "Happy new year.", **spec}}


async def schedules(door: Door, gateway: Booted) -> None:
    yearly, second, lost = ("acme", "yearly"), ("acme", "second"), ("acme", "lost")
    for one in (schedule("yearly", overlap="skip"), schedule("second"), schedule("lost", agent="nobody")):
        await door.call("create", kind="Schedule", ns="acme", manifest=one)
    await door.call("next", schedule=yearly)
    assert len((await door.call("next", schedule=yearly, count=3)).value["items"]) == 3
    for count in (101, -1):
        await door.call("next", schedule=yearly, count=count)
    await door.call("pause", schedule=yearly)
    await door.call("pause", schedule=yearly)
    await door.call("next", schedule=yearly)
    await door.call("trigger", schedule=yearly, key="t1")
    await door.call("trigger", schedule=yearly, key="t1")
    await door.call("trigger", schedule=second, key="t1")
    await door.call("trigger", schedule=yearly, key="a b")
    assert (await door.call("trigger", schedule=yearly)).value["outcome"] == "skipped"
    await door.call("trigger", schedule=second)
    await door.call("trigger", schedule=lost)
    await door.call("resume", schedule=yearly)
    await door.call("next", schedule=yearly)
    page = await door.call("history", schedule=yearly, limit=1)
    await door.call("history", schedule=yearly, limit=1, cursor=page.value["next_cursor"])
    assert len((await door.call("history", schedule=yearly)).value["items"]) == 2
    await door.call("history", schedule=yearly, cursor="nonsense")
    await door.call("history", schedule=yearly, limit=501)
    await door.call("history", schedule=lost)
    await door.call("get", kind="Schedule", ns="acme", name="yearly")
    for missing in (("acme", "ghost"), ("nowhere", "yearly"), ("acme", "No!"), ("No!", "yearly")):
        for operation in ("pause", "resume", "trigger", "next", "history"):
            await door.call(operation, schedule=missing)


#: What the workers of `models` know: a price, none, and every other model of a provider.
KNOWN = Catalogue(
    providers=("scripted", "local"),
    models=(
        ModelInfo("scripted", "one", "cheap", 200_000, 8_192, vision=True, prices=Prices(Decimal("0.25"), Decimal("1.25"))),
        ModelInfo("scripted", "two", "premium", 1_000_000, prices=Prices(Decimal(3), Decimal(15), "EUR", Decimal("0.3"))),
        ModelInfo("local", "small", "mid", tools=False),
        ModelInfo("local", "*", "cheap"),
    ),
)


async def models(door: Door, gateway: Booted) -> None:
    await gateway.store.register("knower", gateway.hand.ids.uuid7(), 3_600_000, encode(KNOWN))
    assert len((await door.call("list_models")).value["items"]) == 4
    page = await door.call("list_models", limit=3)
    await door.call("list_models", limit=3, cursor=page.value["next_cursor"])
    await door.call("list_models", limit=501)
    await door.call("tiers")
    for task in (
        {},
        {"type": "reasoning", "complexity": "high", "inputTokens": 1_000},
        {"type": "orchestration", "inputTokens": 10**12},
    ):
        await door.call("select", **task)
        await door.call("estimate", **task)
    for wrong in ({"type": "poetry"}, {"complexity": "Low"}, {"inputTokens": -1}, {"inputTokens": 10**12 + 1}):
        await door.call("select", **wrong)
        await door.call("estimate", **wrong)
    for model in ("scripted/one", "local/small", "local/other", "strange/one", "one", "x" * 600):
        await door.call("estimate", model=model, inputTokens=12_345, complexity="low")
    await door.call("create_session", ns="acme", agent="helper", id="s1", config={"model": "second"})
    for query in ({}, {"session": "s1"}, {"session": "s9"}, {"data_tier": 2}, {"data_tier": 3}, {"data_tier": -1}):
        await door.call("explain", ns="acme", agent="helper", **query)
    for ns, agent in (("acme", "nobody"), ("nowhere", "helper"), ("No!", "helper")):
        await door.call("explain", ns=ns, agent=agent)


CASES: tuple[Case, ...] = (sessions, messages, turns, approvals, namespaces, resources, watches, schedules, models)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_both_doors_answer_the_same(case: Case, tmp_path: Path) -> None:
    homes = [tmp_path / "http", tmp_path / "grpc"]
    for home in homes:
        home.mkdir()
    async with booted(homes[0]) as gateway:
        http = HttpDoor(gateway)
        await case(http, gateway)
    async with booted(homes[1]) as gateway, rpc(gateway) as client:
        other = RpcDoor(client)
        await case(other, gateway)
    assert [operation for operation, _ in other.log] == [operation for operation, _ in http.log]
    wrong = [
        f"{number}: {operation}: {ours}\n   is not {expected}"
        for number, ((operation, expected), (_, ours)) in enumerate(zip(http.log, other.log, strict=True))
        if not same(ours, expected)
    ]
    assert not wrong, "\n".join(wrong)


def same(ours: Outcome, expected: Outcome) -> bool:
    """Whether two doors answered the same."""
    words = bool({expected.code, *expected.fields} & OTHER_WORDS) or ours.detail == expected.detail
    answered = ours.value == expected.value and ours.retry == expected.retry
    return words and answered and (ours.code, ours.fields) == (expected.code, expected.fields)


async def test_a_message_sent_again_through_the_other_door_is_the_same_message(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        http, other = HttpDoor(gateway), RpcDoor(client)
        sent = await http.call("send", session=S1, content="hello", create=True, key="k1")
        again = await other.call("send", session=S1, content="hello", create=True, key="k1")
        assert again.value == sent.value
        made = await other.call("create_session", ns="acme", agent="helper", key="k2")
        assert (await http.call("create_session", ns="acme", agent="helper", key="k2")).value["id"] == made.value["id"]
        turn = sent.value["turn_id"]
        cancelled = await other.call("cancel", session=S1, turn=turn, key="k3")
        assert (await http.call("cancel", session=S1, turn=turn, key="k3")).value["ended_at"] == cancelled.value["ended_at"]
        for door in (http, other):
            assert (await door.call("send", session=S1, content="other", key="k1")).code == "idempotency_conflict"
