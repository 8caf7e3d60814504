"""The example's toolsets and its counter service, as the demo uses them: real processes, real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.waiting import until
from talon.tools import gate
from talon.tools.protocol import ToolContext
from talon.tools.registry import Granted, load_toolsets

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "renewals"
MODULES = ["toolsets.stripe_readonly", "toolsets.hubspot_readonly"]
BOUND_S = 20.0
DRAFT = {"company": "globex", "to": "mara@globex.example", "subject": "Your renewal", "body": "Dear Mara, …"}


class CounterProcess:
    """`counter.py` as a process of its own."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, str(EXAMPLE / "counter.py"), "--port", "0", "--state", str(state)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def effects(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/effects", timeout=BOUND_S) as answer:
            return json.load(answer)["effects"]

    def post(self, body: bytes) -> int:
        try:
            with urllib.request.urlopen(f"{self.url}/effects", body, timeout=BOUND_S) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(BOUND_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def start_counter(tmp_path: Path) -> Iterator[Callable[[], CounterProcess]]:
    started: list[CounterProcess] = []

    def start() -> CounterProcess:
        started.append(CounterProcess(tmp_path / "effects.jsonl"))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture
def granted() -> Iterator[Granted]:
    path = list(sys.path)
    yield load_toolsets(MODULES, [EXAMPLE]).resolve(["stripe-readonly", "hubspot-readonly"])
    sys.path[:] = path


def context(call: int, attempt: int = 1) -> ToolContext:
    return ToolContext(f"tk_{call:044d}", "acme", "customer-support", "enterprise-renewals", "t1", call, attempt)


async def call(granted: Granted, name: str, args: dict[str, Any], where: ToolContext) -> gate.Result:
    verdict = gate.check(granted.specs, name, json.dumps(args), (), granted.tools)
    assert isinstance(verdict, gate.Ok), verdict
    return await gate.run(granted.tools[name], verdict.args, where)


def test_the_toolsets_have_the_names_that_the_template_refers_to(granted: Granted) -> None:
    assert {name: (pin.toolset, pin.spec.effect) for name, pin in granted.pinned.items()} == {
        "draft_follow_up": ("hubspot-readonly", "idempotent"),
        "get_subscription": ("stripe-readonly", "read"),
        "list_contacts": ("hubspot-readonly", "read"),
        "list_renewals": ("stripe-readonly", "read"),
        "recent_notes": ("hubspot-readonly", "read"),
    }
    assert all(spec.description for spec in granted.specs.values())


async def test_the_same_question_has_the_same_answer(granted: Granted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RENEWALS_COUNTER_URL", raising=False)
    answers = [(await call(granted, "list_renewals", {"days": 14}, context(n))).output for n in (1, 2)]
    assert answers[0] == answers[1]
    found = json.loads(answers[0])
    assert [renewal["company"] for renewal in found["renewals"]] == ["vandelay", "globex", "initech", "umbrella"]
    assert found["renewals"][1]["amount"] == "57600.00"
    assert (
        json.loads((await call(granted, "list_renewals", {"days": 1}, context(3))).output)["renewals"][0]["company"] == "vandelay"
    )
    subscription = json.loads((await call(granted, "get_subscription", {"customer": "cus_initech"}, context(4))).output)
    assert (subscription["seats"], subscription["seats_used"]) == (80, 31)
    notes = json.loads((await call(granted, "recent_notes", {"company": "Globex", "limit": 1}, context(5))).output)
    assert [note["written_on"] for note in notes] == ["2026-11-12"]


async def test_wrong_questions_are_answered_with_what_there_is(granted: Granted) -> None:
    assert "known companies: globex, initech" in (await call(granted, "list_contacts", {"company": "acme"}, context(1))).message
    stranger = await call(granted, "draft_follow_up", {**DRAFT, "to": "eve@evil.example"}, context(2))
    assert stranger.message == "'eve@evil.example' is no contact of globex; use list_contacts"
    assert isinstance(gate.check(granted.specs, "list_renewals", '{"days":0}'), gate.Denied)


async def test_an_effect_that_is_delivered_twice_under_one_key_happened_once(
    granted: Granted, start_counter: Callable[[], CounterProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = start_counter()
    monkeypatch.setenv("RENEWALS_COUNTER_URL", counter.url)
    first = await call(granted, "draft_follow_up", DRAFT, context(7))
    again = await call(granted, "draft_follow_up", DRAFT, context(7, attempt=2))
    assert first.error == ""
    assert first.output == again.output
    await call(granted, "list_renewals", {}, context(8))
    rows = counter.effects()
    assert [(row["tool"], row["effect"], row["happened"], row["delivered"]) for row in rows] == [
        ("draft_follow_up", "idempotent", 1, 2),
        ("list_renewals", "read", 1, 1),
    ]
    assert rows[0]["key"] == context(7).key


async def test_an_effect_under_two_keys_is_found_out(
    granted: Granted, start_counter: Callable[[], CounterProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = start_counter()
    monkeypatch.setenv("RENEWALS_COUNTER_URL", counter.url)
    for number in (1, 2):
        await call(granted, "draft_follow_up", DRAFT, context(number))
    assert [row["happened"] for row in counter.effects()] == [2]


async def test_the_effect_happens_before_the_slow_receipt(
    granted: Granted, start_counter: Callable[[], CounterProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the demo's kill relies on: the call is under way, its effect is done, its receipt is not written."""
    counter = start_counter()
    monkeypatch.setenv("RENEWALS_COUNTER_URL", counter.url)
    monkeypatch.setenv("RENEWALS_SLOW_S", "60")
    running = asyncio.create_task(gate.run(granted.tools["draft_follow_up"], dict(DRAFT), context(1)))
    await until(lambda: asyncio.to_thread(counter.effects))
    assert not running.done()
    running.cancel()
    await asyncio.wait([running], timeout=BOUND_S)
    assert running.cancelled()
    assert [row["happened"] for row in counter.effects()] == [1]


async def test_a_counter_that_is_not_there_fails_the_call(granted: Granted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENEWALS_COUNTER_URL", "http://127.0.0.1:9")
    assert "RENEWALS_COUNTER_URL did not take it" in (await call(granted, "list_renewals", {}, context(1))).message


def test_what_the_counter_answered_survives_its_kill(start_counter: Callable[[], CounterProcess], tmp_path: Path) -> None:
    told = {"key": "k", "tool": "t", "effect": "read", "subject": "s", "session": "x"}
    counter = start_counter()
    assert counter.post(json.dumps(told).encode()) == 200
    counter.stop(signal.SIGKILL)
    with (tmp_path / "effects.jsonl").open("a") as file:
        file.write('{"key": "cut sh')
    counter = start_counter()
    assert counter.post(json.dumps(told).encode()) == 200
    assert [(row["happened"], row["delivered"]) for row in counter.effects()] == [(1, 2)]
    assert counter.stop() == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"key":"k"}', b"\xff", b'{"key":1,"tool":"t","effect":"e","subject":"s","session":"x"}']
)
def test_the_counter_refuses_what_it_cannot_count(start_counter: Callable[[], CounterProcess], body: bytes) -> None:
    counter = start_counter()
    assert counter.post(body) == 400
    assert counter.effects() == []


def test_the_example_needs_nothing_of_the_environment() -> None:
    """A fresh process imports the toolsets with `talon` alone."""
    code = (
        f"from talon.tools.registry import load_toolsets; print(sorted(load_toolsets({MODULES!r}, [{str(EXAMPLE)!r}]).catalogue()))"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("RENEWALS_")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=BOUND_S, check=True)
    assert done.stdout == "['hubspot-readonly', 'stripe-readonly']\n"
