"""Schedules through the booted product: whatever path made, changed, paused or removed one, it fires as it says, and only so."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

import grpc
import pytest
import yaml

from support.rpc import STUBS as RPC
from support.stage import Stage, call, calls, gate_of, path, say
from support.waiting import until
from talon.v1 import talon_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")
NS = "/v1/ns/default/schedules"
Manifest = dict[str, Any]


def manifest(name: str, session: str, message: str, every: str = "1s", **spec: Any) -> Manifest:
    target = (
        {"agent": "helper", "sessionMode": "named", "sessionId": session} if session else {"agent": "helper", "sessionMode": "new"}
    )
    body = {"kind": "every", "every": every, "target": target, "inputMessage": message, **spec}
    return {"apiVersion": "talon.dev/v1alpha1", "kind": "Schedule", "metadata": {"name": name}, "spec": body}


async def messages(stage: Stage, session: str) -> list[str]:
    """What the session was told, oldest first; nothing if it does not exist."""
    code, page = await stage.api.call("GET", path(f"default/helper/{session}", "journal?limit=500"))
    if code == 404:
        return []
    return [one["payload"]["content"] for one in page["items"] if one["type"] == "message.received"]


async def told(stage: Stage, session: str, text: str, times: int = 1) -> None:
    """Wait until the session was told `text` so often."""

    async def often() -> bool:
        return (await messages(stage, session)).count(text) >= times

    await until(often)


async def history(stage: Stage, name: str) -> list[dict[str, Any]]:
    return (await stage.api.get(f"{NS}/{name}/history?limit=500"))["items"]


async def status(stage: Stage, name: str) -> dict[str, Any]:
    return (await stage.api.get(f"{NS}/{name}"))["status"]


async def by_post(stage: Stage, one: Manifest) -> None:
    await stage.api.call("POST", NS, one, expect=201)


async def by_put(stage: Stage, one: Manifest) -> None:
    code, text = await stage.api.call("PUT", f"{NS}/{one['metadata']['name']}", one)
    assert code in (200, 201), text


async def by_patch(stage: Stage, one: Manifest) -> None:
    await stage.api.call("PATCH", f"{NS}/{one['metadata']['name']}", {"spec": one["spec"]}, expect=200)


async def by_apply(stage: Stage, one: Manifest) -> None:
    await stage.api.apply(yaml.safe_dump(one))


async def by_command(stage: Stage, one: Manifest) -> None:
    code, out, err = await stage.cli("apply", "-f", "-", stdin=yaml.safe_dump(one).encode())
    assert code == 0, err
    assert one["spec"].get("enabled") is False or "  fires 20" in out


async def by_patch_command(stage: Stage, one: Manifest) -> None:
    code, _, err = await stage.cli("patch", "schedule", one["metadata"]["name"], "-p", json.dumps({"spec": one["spec"]}))
    assert code == 0, err


async def gone_by_delete(stage: Stage, name: str) -> None:
    await stage.api.call("DELETE", f"{NS}/{name}", expect=204)


async def gone_by_command(stage: Stage, name: str) -> None:
    assert (await stage.cli("delete", "schedule", name, "--yes"))[0] == 0


async def gone_by_prune(stage: Stage, name: str) -> None:
    found = await stage.api.get(f"{NS}/{name}")
    await stage.api.call("PATCH", f"{NS}/{name}", {"metadata": {"labels": {"prune": name}}}, expect=200)
    assert found["metadata"]["name"] == name
    keep = yaml.safe_dump({"apiVersion": "talon.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "unlike"}, "spec": {}})
    target = f"/v1/apply?prune=true&label_selector=prune={name}"
    await stage.api.call("POST", target, keep, headers={"Content-Type": "application/yaml"}, expect=200)


async def enabled_by_route(stage: Stage, name: str, *, enabled: bool) -> None:
    await stage.api.call("POST", f"{NS}/{name}/{'resume' if enabled else 'pause'}", {}, expect=200)


async def enabled_by_command(stage: Stage, name: str, *, enabled: bool) -> None:
    code, out, _ = await stage.cli("schedule", "resume" if enabled else "pause", name)
    assert (code, out) == (0, f"Schedule default/{name} {'resumed' if enabled else 'paused'}\n")


async def enabled_by_apply(stage: Stage, name: str, *, enabled: bool) -> None:
    found = await stage.api.get(f"{NS}/{name}")
    found["spec"]["enabled"] = enabled
    await stage.api.apply(yaml.safe_dump(found))


@contextlib.asynccontextmanager
async def stubs(stage: Stage) -> AsyncGenerator[tuple[Any, Any]]:
    """Of the first gateway's resources and schedules, over gRPC."""
    async with grpc.aio.insecure_channel(await stage.gateways[0].grpc()) as channel:
        yield RPC.ResourcesStub(channel), RPC.SchedulesStub(channel)


async def by_rpc(stage: Stage, one: Manifest) -> None:
    async with stubs(stage) as (resources, _):
        await resources.Create(pb.WriteResourceRequest(namespace="default", kind="Schedule", manifest_json=json.dumps(one)))


async def by_rpc_apply(stage: Stage, one: Manifest) -> None:
    async with stubs(stage) as (resources, _):
        await resources.Apply(pb.ApplyRequest(manifests=json.dumps(one)))


async def enabled_by_rpc(stage: Stage, name: str, *, enabled: bool) -> None:
    async with stubs(stage) as (_, schedules):
        found = await (schedules.Resume if enabled else schedules.Pause)(pb.ScheduleRef(namespace="default", name=name))
        assert json.loads(found.manifest_json)["spec"]["enabled"] is enabled


async def gone_by_rpc(stage: Stage, name: str) -> None:
    async with stubs(stage) as (resources, _):
        assert (await resources.Delete(pb.DeleteResourceRequest(namespace="default", kind="Schedule", name=name))).gone


@dataclass(frozen=True)
class Path:
    """One way to make, change (and change back), pause, resume and remove a schedule."""

    name: str
    create: Callable[[Stage, Manifest], Awaitable[None]]
    change: Callable[[Stage, Manifest], Awaitable[None]]
    enable: Any
    delete: Callable[[Stage, str], Awaitable[None]]


PATHS = (
    Path("http", by_post, by_put, enabled_by_route, gone_by_delete),
    Path("patch", by_put, by_patch, enabled_by_route, gone_by_delete),
    Path("apply", by_apply, by_apply, enabled_by_apply, gone_by_prune),
    Path("cli", by_command, by_patch_command, enabled_by_command, gone_by_command),
    Path("grpc", by_rpc, by_rpc_apply, enabled_by_rpc, gone_by_rpc),
)


async def test_each_path_has_the_same_effect_on_what_fires(stage: Stage) -> None:
    """All at once: each has a schedule and a session of its own."""
    async with asyncio.TaskGroup() as group:
        for one in PATHS:
            group.create_task(goes_through(stage, one))


async def goes_through(stage: Stage, by: Path) -> None:
    """Make, change, undo, pause, resume, delete: each is seen by what fires, and by what does not."""
    name, session, one, two = by.name, f"path-{by.name}", f"one of {by.name}", f"two of {by.name}"
    await by.create(stage, manifest(name, session, one))
    await told(stage, session, one, 2)
    await by.change(stage, manifest(name, session, two))
    await told(stage, session, two, 2)
    await by.change(stage, manifest(name, session, one))
    await told(stage, session, one, (await messages(stage, session)).count(one) + 1)
    # Nothing of what was changed after the change.
    assert [text for text, _ in groupby(await messages(stage, session))] == [one, two, one], name

    await by.enable(stage, name, enabled=False)
    paused = len(await messages(stage, session))
    stands = await status(stage, name)
    assert (stands["schedule"]["nextAt"], stands["schedule"]["fired"]) == (None, paused), name
    assert [c["reason"] for c in stands["conditions"]] == ["Resolved", "Paused"], name
    assert (await stage.api.get(f"{NS}/{name}/next"))["items"] == []
    await asyncio.sleep(1.5)  # it would have fired
    assert len(await messages(stage, session)) == paused, name

    await by.enable(stage, name, enabled=True)
    await told(stage, session, one, (await messages(stage, session)).count(one) + 1)
    assert len((await stage.api.get(f"{NS}/{name}/next?count=10"))["items"]) == 10

    async def completed() -> bool:
        return any(record["outcome"] == "completed" for record in await history(stage, name))

    await until(completed)
    records = await history(stage, name)
    assert {record["outcome"] for record in records} <= {"completed", "running", "queued"}, name
    assert len({record["at"] for record in records}) == len(records), name
    await by.delete(stage, name)
    after = len(await messages(stage, session))
    assert (await stage.api.call("GET", f"{NS}/{name}/history"))[0] == 404
    await asyncio.sleep(1.5)
    assert len(await messages(stage, session)) == after, name


async def test_going_back_is_a_change_as_any_other(stage: Stage) -> None:
    """A schedule is undone by applying what it was; an agent's rollback is seen by the next occurrence."""
    definition: dict[str, Any] = {
        "features": [{"name": "tone", "type": "string", "default": "kind"}],
        "systemPrompt": "You are moody.",
    }
    profiles = {"modelPolicy": {"profiles": [{"name": "first", "model": {"provider": "model", "name": "one"}}]}}

    def agent(tone: str) -> str:
        features = [{**definition["features"][0], "default": tone}]
        body = {**definition, **profiles, "features": features}
        head = {"apiVersion": "talon.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "moody"}}
        return yaml.safe_dump({**head, "definition": {"customSpec": body}})

    await stage.api.apply(agent("kind"))
    await stage.api.apply(agent("stern"))
    one = manifest("undo", "undo", "Be {{ tone }}, at {{ scheduled_at }}.")
    one["spec"]["target"]["agent"] = "moody"
    await stage.api.apply(yaml.safe_dump(one))

    async def newest() -> str:
        code, page = await stage.api.call("GET", "/v1/ns/default/agents/moody/sessions/undo/journal?limit=500")
        texts = [e["payload"]["content"] for e in page["items"] if e["type"] == "message.received"] if code == 200 else []
        return texts[-1] if texts else ""

    async def says(text: str) -> None:
        async def so() -> bool:
            return (await newest()).startswith(text)

        await until(so)

    await says("Be stern, at 20")
    await stage.api.call("POST", "/v1/ns/default/agents/moody/rollback", {}, expect=200)
    await says("Be kind, at 20")
    before = await stage.api.get(f"{NS}/undo")
    await stage.api.call("PATCH", f"{NS}/undo", {"spec": {"inputMessage": "Something else."}}, expect=200)
    await says("Something else.")
    await stage.api.apply(yaml.safe_dump(before))
    await says("Be kind, at 20")
    await gone_by_delete(stage, "undo")


async def test_an_edit_in_every_moment_of_a_firing_neither_loses_nor_doubles(stage: Stage) -> None:
    await by_post(stage, manifest("edited", "edited", "edit 0"))
    await told(stage, "edited", "edit 0")
    for edit in range(1, 25):
        await by_patch(stage, manifest("edited", "edited", f"edit {edit}"))
        await asyncio.sleep(0.13)
    await enabled_by_route(stage, "edited", enabled=False)
    records = [one for one in await history(stage, "edited") if one["outcome"] != "missed"]
    assert not [one for one in await history(stage, "edited") if one["outcome"] == "missed"]
    times = sorted(one["at"] for one in records)
    assert len(times) == len(set(times)) == len(await messages(stage, "edited"))
    seconds = [int(at[17:19]) for at in times]
    assert all((later - earlier) % 60 == 1 for earlier, later in pairwise(seconds)), times
    await gone_by_delete(stage, "edited")


async def test_what_happens_when_the_session_is_at_work(stage: Stage) -> None:
    for overlap in ("queue", "skip", "cancel_running"):
        session = f"busy-{overlap.replace('_', '-')}"
        where = f"default/helper/{session}"
        work = stage.model.plan(f"work of {session}", call("look", gate=gate_of(where)), say("done"))
        running = await stage.turn(where, work)
        await stage.began(where, "look")
        name = session
        await by_post(stage, manifest(name, session, f"wake {session}", overlap=overlap))

        async def decided(name: str = name) -> bool:
            return len(await history(stage, name)) > 0

        await until(decided)
        await enabled_by_route(stage, name, enabled=False)
        first = (await history(stage, name))[-1]
        if overlap == "skip":
            assert (first["outcome"], first["turn_id"]) == ("skipped", "")
            assert "still at work" in first["reason"]
            assert await messages(stage, session) == [work]
        elif overlap == "queue":
            assert first["outcome"] == "queued"
        else:
            assert (await stage.done(where, running))["type"] == "turn.cancelled"
        stage.open(gate_of(where))
        await gone_by_delete(stage, name)


async def test_what_cannot_be_fired_is_told_and_fires_when_it_can(stage: Stage) -> None:
    one = manifest("early", "early", "at last", every="1h", kind="at", at="2001-01-01T00:00:00Z")
    del one["spec"]["every"]
    code, problem = await stage.api.call("POST", NS, one)
    assert code == 422
    assert "never fires: that is over" in problem["errors"][0]["message"]

    one = manifest("early", "early", "at last")
    one["spec"]["target"]["agent"] = "late-comer"
    await by_post(stage, one)

    async def failing() -> bool:
        return (await status(stage, "early"))["schedule"]["failures"] > 0

    await until(failing)
    stands = await status(stage, "early")
    reasons = {c["type"]: c for c in stands["conditions"]}
    assert reasons["ReferencesResolved"]["status"] == "False"
    assert reasons["Active"]["reason"] == "CannotFire"
    assert "late-comer" in reasons["Active"]["message"]
    assert await history(stage, "early") == []
    await stage.agent("late-comer")

    async def fired() -> bool:
        return any(record["outcome"] == "completed" for record in await history(stage, "early"))

    await until(fired)
    await gone_by_delete(stage, "early")


async def test_an_agent_wakes_its_own_session_and_no_other(stage: Stage) -> None:
    agent = await stage.agent("dreamer", mcpServerRefs=["wakeups"])
    where, other = f"default/{agent}/one", f"default/{agent}/other"
    at = (datetime.now(UTC) + timedelta(seconds=4)).isoformat(timespec="seconds")
    await stage.run(where, "sleep", call("schedule_wakeup", message="good {{ morning }}", at=at), say("asleep"))
    made = [json.loads(e["payload"]["output"]) for e in await stage.api.journal(where) if e["type"] == "tool.finished"]
    name = made[0]["name"]
    assert made[0]["message"] == "good {{ morning }}"
    metadata = (await stage.api.get(f"{NS}/{name}"))["metadata"]
    assert metadata["labels"] == {"talon.dev/wakeup-agent": agent, "talon.dev/wakeup-session": "one"}

    await stage.run(other, "snoop", calls(call("list_wakeups"), call("cancel_wakeup", name=name)), say("nothing"))
    seen = [json.loads(e["payload"]["output"]) for e in await stage.api.journal(other) if e["type"] == "tool.finished"]
    assert sorted(map(str, seen)) == sorted(map(str, [[], {"name": name, "cancelled": False}]))

    async def woken() -> bool:
        told = [e["payload"] for e in await stage.api.journal(where) if e["type"] == "message.received"]
        return any((one["content"], one.get("source")) == ("good {{ morning }}", "schedule") for one in told)

    await until(woken)
    assert [c["reason"] for c in (await status(stage, name))["conditions"]] == ["Resolved", "Over"]
    code, _, err = await stage.cli("schedule", "next", name)
    assert (code, "fired for the last time" in err) == (0, True)
    await stage.run(where, "enough", call("cancel_wakeup", name=name), call("list_wakeups"), say("awake"))
    outputs = [json.loads(e["payload"]["output"]) for e in await stage.api.journal(where) if e["type"] == "tool.finished"]
    assert outputs[1:] == [{"name": name, "cancelled": True}, []]
    wrong = call("schedule_wakeup", message="x", every="5s")
    await stage.run(where, "hurry", wrong, say("no"))
    failed = [e["payload"] for e in await stage.api.journal(where) if e["type"] == "tool.failed"]
    assert "at least a minute" in str(failed[-1])

    await stage.run(other, "again", call("schedule_wakeup", message="still there?", every="1h"), say("asleep"))
    mine = f"{NS}?label_selector=talon.dev/wakeup-agent={agent}"
    assert [one["spec"]["target"]["sessionId"] for one in (await stage.api.get(mine))["items"]] == ["other"]
    await stage.api.call("DELETE", path(other), expect=204)
    assert (await stage.api.get(mine))["items"] == []


async def test_a_trigger_fires_once_under_its_key_and_a_new_session_each_time_without(stage: Stage) -> None:
    await by_post(stage, manifest("by-hand", "", "go", every="1d", enabled=False))
    fired = [
        (await stage.api.call("POST", f"{NS}/by-hand/trigger", {}, headers={"Idempotency-Key": key} if key else {}, expect=202))[1]
        for key in ("k1", "k1", "", "")
    ]
    assert fired[0] == fired[1]
    assert len({one["session_id"] for one in fired}) == len({one["turn_id"] for one in fired}) == 3
    assert all(one["session_id"].startswith("by-hand-20") for one in fired)
    await asyncio.gather(*(stage.done(f"default/helper/{one['session_id']}", one["turn_id"]) for one in fired))
    code, out, _ = await stage.cli("schedule", "history", "by-hand", "-o", "json")
    records = json.loads(out)
    assert (code, [one["manual"] for one in records], {one["outcome"] for one in records}) == (0, [True] * 3, {"completed"})
    code, out, _ = await stage.cli("schedule", "list", "-A")
    assert ["  false  " in line for line in out.splitlines() if "by-hand" in line] == [True], out
    code, out, _ = await stage.cli("schedule", "describe", "by-hand")
    assert code == 0
    assert out.count("(by hand)") == 3
    code, _, err = await stage.cli("schedule", "next", "by-hand")
    assert (code, "paused" in err) == (0, True)
    await gone_by_delete(stage, "by-hand")
