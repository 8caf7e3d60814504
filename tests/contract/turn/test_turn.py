"""Whole turns by a real worker over a real store: what is committed when, and what the model is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.turnworld import (
    NAMESPACE,
    Act,
    FunctionTool,
    Held,
    World,
    asks,
    four,
    one_tool,
    results,
    says,
    world,
)
from support.waiting import until
from talon.domain import entries as e
from talon.domain.inbox import Message
from talon.domain.models import Models
from talon.domain.session import SessionRow
from talon.manifest.effective import Limits
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, ProviderError, TextDelta
from talon.tools.protocol import Effect, EffectUnknown, Outcome, ToolContext, ToolError
from talon.turn.context import UNCERTAIN, ContextCache
from talon.worker.worker import Worker

USAGE = e.Usage(10, 5)


def shown(request: ChatRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


async def test_a_turn_with_a_tool_from_the_message_to_the_end(tmp_path: Path) -> None:
    look = FunctionTool("look", four)
    async with world(tmp_path, one_tool("look"), look) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session, "How many?")
        turn = await around.reaches(session, turn_id)
        assert (turn.state, turn.reason, turn.attempts) == ("completed", "answered", 0)
        assert (turn.input_tokens, turn.output_tokens) == (20, 10)
        assert await around.types(session) == [
            "message.received",
            "turn.queued",
            "turn.started",
            "model.started",
            "model.finished",
            "tool.requested",
            "tool.started",
            "tool.finished",
            "model.started",
            "model.finished",
            "message.completed",
            "turn.completed",
        ]
        (answer,) = await around.payloads(session, e.MessageCompleted)
        assert (answer.content, answer.model_seq) == ("found: 4", 9)
        (end,) = await around.payloads(session, e.TurnCompleted)
        assert (end.iterations, end.tool_calls, end.usage) == (2, 1, e.Usage(20, 10))
        (started,) = await around.payloads(session, e.ToolStarted)
        (context,) = look.calls
        assert (context.key, context.turn_id, context.session, context.attempt) == (started.key, turn_id, "s1", 1)
        assert shown(around.model.requests[1]) == [
            ("system", "You help."),
            ("user", "How many?"),
            ("assistant", ""),
            ("tool", "4"),
        ]
        row = await around.store.get_session_by_sid(session.sid)
        assert (row.state, row.owner, row.turn_id) == ("idle", None, None)


async def test_a_turn_is_one_claim_and_four_commits(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        await around.reaches(session, await around.send(session, "the first pins the definition"))
        around.store.reset()
        await around.reaches(session, await around.send(session))
        commits = [[entry.type for entry in append.entries] for append in around.store.appends]
        assert commits == [
            ["turn.started", "model.started"],
            ["model.finished", "tool.requested", "tool.started"],
            ["tool.finished", "model.started"],
            ["model.finished", "message.completed", "turn.completed"],
        ]
        assert around.store.calls["commit"] == 4
        assert around.store.calls["put_definition"] == 0


async def test_calls_of_one_answer_run_together_and_results_stand_in_their_order(tmp_path: Path) -> None:
    slow, quick = Held(), Held()

    def script(request: ChatRequest) -> list[Act]:
        return says(" ".join(found)) if (found := results(request)) else asks("slow", "quick", "look")

    tools = (FunctionTool("slow", slow), FunctionTool("quick", quick), FunctionTool("look", four))
    async with world(tmp_path, script, *tools) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await asyncio.wait_for(asyncio.gather(slow.started.wait(), quick.started.wait()), 10)
        await until(lambda: around.store.appends[-1].entries[-1].type == "tool.finished")
        assert [p.call for p in await around.payloads(session, e.ToolFinished)] == [3], "a receipt does not wait for the others"
        quick.go.set()
        await until(lambda: len(around.store.appends) >= 4)
        slow.go.set()
        await around.reaches(session, turn_id)
        assert [p.call for p in await around.payloads(session, e.ToolStarted)] == [1, 2, 3]
        assert [p.call for p in await around.payloads(session, e.ToolFinished)] == [3, 2, 1]
        (answer,) = await around.payloads(session, e.MessageCompleted)
        assert answer.content == "let go let go 4"


async def test_calls_that_end_together_are_one_commit(tmp_path: Path) -> None:
    def script(request: ChatRequest) -> list[Act]:
        return says() if results(request) else asks(*["look"] * 5)

    async with world(tmp_path, script, FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        await around.reaches(session, await around.send(session))
        assert len(around.store.appends) <= 5


async def test_text_is_seen_while_it_is_written_and_once_at_the_end(tmp_path: Path) -> None:
    go = asyncio.Event()

    def script(request: ChatRequest) -> Sequence[Act]:
        return [TextDelta("Hel"), go, TextDelta("lo"), Finished("stop", USAGE)]

    async with world(tmp_path, script, FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await until(lambda: any(append.fragments for append in around.store.appends))
        (fragment,) = await around.store.read_fragments(session.sid, 4)
        assert (fragment.text, fragment.offset) == ("Hel", 0)
        go.set()
        await around.reaches(session, turn_id)
        (answer,) = await around.payloads(session, e.MessageCompleted)
        assert answer.content == "Hello"
        assert await around.store.read_fragments(session.sid, 4) == []
        (finished,) = await around.payloads(session, e.ModelFinished)
        assert finished.content == "", "the text is written once"


# --- what turn k costs (K11) -----------------------------------------------------------------------------------------


async def costs(around: World, session: SessionRow, turns: int) -> list[tuple[int, int]]:
    """(rows read, bytes written) of each turn."""
    found: list[tuple[int, int]] = []
    for _ in range(turns):
        around.store.reset()
        await around.reaches(session, await around.send(session, "How many are there?"))
        await until(lambda: around.workers[0].running == 0)
        found.append((around.store.rows, around.store.written))
    return found


async def test_turn_200_reads_and_writes_what_turn_2_did(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around, around.worker(sweep_s=60.0):
        session = await around.session()
        cost = await costs(around, session, 200)
        assert cost[199][0] <= 1.2 * cost[1][0]
        assert cost[199][1] <= 1.2 * cost[1][1]
        assert len(around.model.requests[-1].messages) < 100


async def test_a_worker_that_remembers_nothing_reads_a_bounded_tail(tmp_path: Path) -> None:
    none = ContextCache(sessions_max=0)
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), cache=none) as around, around.worker(sweep_s=60.0):
        session = await around.session()
        cost = await costs(around, session, 60)
        assert cost[59][0] <= around.limits.entries_max + 10
        assert cost[59][0] <= 1.2 * cost[29][0]
        assert cost[59][1] <= 1.2 * cost[1][1]


@pytest.mark.parametrize("sessions_max", [0, 256])
async def test_the_cache_changes_nothing_that_the_model_sees(tmp_path: Path, sessions_max: int) -> None:
    cache = ContextCache(sessions_max=sessions_max)
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), cache=cache) as around, around.worker():
        session = await around.session()
        for number in range(12):
            await around.reaches(session, await around.send(session, f"question {number}"))
        last = [message for message in around.model.requests[-2].messages if message.role == "user"]
        assert [message.content for message in last] == [f"question {number}" for number in range(12)]


async def test_a_tail_that_another_worker_left_behind_is_read_anew(tmp_path: Path) -> None:
    """Each worker has a cache of its own; 30 turns elsewhere are more than the window."""
    mine = ContextCache()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), cache=mine) as around:
        session = await around.session()
        async with around.worker("w1"):
            await around.reaches(session, await around.send(session, "the first"))
        stale = mine.get(session.sid)
        assert stale is not None
        async with around.worker("w2"):
            for number in range(30):
                await around.reaches(session, await around.send(session, f"elsewhere {number}"))
        mine.put(session.sid, stale[0], stale[1], 80)
        async with around.worker("w1"):
            await around.reaches(session, await around.send(session, "here again"))
        users = [message.content for message in around.model.requests[-2].messages if message.role == "user"]
        assert users[-3:] == ["elsewhere 28", "elsewhere 29", "here again"]
        assert "the first" not in users


async def accepted(around: World, worker: Worker, session: SessionRow, content: str) -> str:
    """A message that a free slot of `worker` takes in the commit that accepts it; -> its turn id."""
    assert worker.promise()
    message = Message(
        (NAMESPACE, session.agent, session.id), content, around.ids.uuid7(), offer=worker.id, start=worker.first_entries
    )
    receipt = await around.deliver(message)
    if receipt.claimed is None:
        worker.decline()
    else:
        worker.take(*receipt.claimed, receipt.entries)
    return receipt.turn_id


async def test_a_turn_that_is_taken_as_it_is_accepted_is_four_commits_and_reads_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around, around.worker(sweep_s=60.0) as worker:
        session = await around.session()
        await around.reaches(session, await accepted(around, worker, session, "the first is not known yet, it is queued"))
        await until(lambda: worker.running == 0)
        assert (await around.types(session)).index("turn.started") == 2
        for number in range(12):
            around.store.reset()
            await around.reaches(session, await accepted(around, worker, session, f"question {number}"))
            await until(lambda: worker.running == 0)  # the tail is kept just after the end is durable
            assert around.store.rows == 0
            assert around.store.calls["deliver"] + around.store.calls["commit"] == 4
            assert [append.entries[0].type for append in around.store.appends] == [
                "model.finished",
                "tool.finished",
                "model.finished",
            ]
        users = [message.content for message in around.model.requests[-2].messages if message.role == "user"]
        assert users[1:] == [f"question {number}" for number in range(12)], "a cached tail is a whole one"


# --- what goes wrong -------------------------------------------------------------------------------------------------


async def test_a_tool_that_does_not_exist_is_denied_and_the_model_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("guess"), FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        turn = await around.reaches(session, await around.send(session))
        assert turn.state == "completed"
        (denied,) = await around.payloads(session, e.ToolDenied)
        assert denied.reason == "unknown_tool"
        assert "tool.started" not in await around.types(session)
        assert "no tool 'guess'" in results(around.model.requests[-1])[0]


async def test_a_turn_whose_model_nobody_serves_is_denied_without_a_call(tmp_path: Path) -> None:
    from talon.turn.definition import Definitions

    async with world(tmp_path, lambda _: says(), FunctionTool("look", four)) as around:
        none = Definitions(around.deps("w").journal, around.registry, (), Models())  # type: ignore[arg-type]
        around._deps["definitions"] = none  # pyright: ignore[reportPrivateUsage]
        async with around.worker():
            session = await around.session()
            turn = await around.reaches(session, await around.send(session))
            assert (turn.state, turn.reason) == ("denied", "unresolved_reference")
            assert around.model.requests == []


async def test_the_other_model_answers_and_the_dead_text_is_taken_back(tmp_path: Path) -> None:
    def script(request: ChatRequest) -> Sequence[Act]:
        if request.model == "main":
            return [TextDelta("Half an ans"), held, ProviderError("connection", "cut")]
        return says("whole")

    held = asyncio.Event()
    async with world(tmp_path, script, FunctionTool("look", four), profiles=("main", "spare")) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await until(lambda: any(append.fragments for append in around.store.appends))
        held.set()
        assert (await around.reaches(session, turn_id)).state == "completed"
        (failed,) = await around.payloads(session, e.ModelFailed)
        assert (failed.error, failed.retryable, failed.usage.estimated) == ("connection", True, True)
        (reset,) = await around.payloads(session, e.StreamReset)
        assert reset.model_seq == 4
        assert [p.profile for p in await around.payloads(session, e.ModelStarted)] == ["main", "spare"]
        assert await around.store.read_fragments(session.sid, 4) == []


async def test_a_back_off_is_a_row_that_wakes_by_itself(tmp_path: Path) -> None:
    asked = 0

    def script(request: ChatRequest) -> list[Act]:
        nonlocal asked
        asked += 1
        return [ProviderError("rate_limit", "slow down", status=429, retry_after_s=1.2)] if asked == 1 else says()

    async with world(tmp_path, script, FunctionTool("look", four)) as around, around.worker() as worker:
        session = await around.session()
        turn_id = await around.send(session)
        turn = await around.reaches(session, turn_id, "waiting")
        assert turn.waiting_for == "backoff"
        await until(lambda: worker.running == 0)
        (waiting,) = await around.payloads(session, e.TurnWaiting)
        assert (await around.reaches(session, turn_id)).state == "completed"
        entries = await around.journal(session)
        resumed = next(entry for entry in entries if entry.type == "turn.resumed")
        assert waiting.until_ms <= resumed.at_ms <= waiting.until_ms + 1_000, "it wakes within a second of its time"


async def test_a_model_call_takes_no_longer_than_the_wall_time(tmp_path: Path) -> None:
    never = asyncio.Event()
    look, limits = FunctionTool("look", four), Limits(wall_time_max_s=0.3)
    async with world(tmp_path, lambda _: [TextDelta("…"), never], look, limits=limits) as around, around.worker():
        session = await around.session()
        turn = await around.reaches(session, await around.send(session))
        assert (turn.state, turn.reason) == ("failed", "wall_time_exceeded")
        (failed,) = await around.payloads(session, e.ModelFailed)
        assert failed.usage.estimated


@pytest.mark.parametrize(
    ("limits", "reason", "runs"),
    [
        (Limits(model_calls_max=2), "model_calls_exceeded", 2),
        (Limits(tool_calls_max=3), "tool_calls_exceeded", 3),
        (Limits(tokens_max=40), "tokens_exceeded", 3),
    ],
)
async def test_limits_end_a_turn_that_goes_round_in_circles(tmp_path: Path, limits: Limits, reason: str, runs: int) -> None:
    look = FunctionTool("look", four)
    async with world(tmp_path, lambda _: asks("look"), look, limits=limits) as around, around.worker():
        session = await around.session()
        turn = await around.reaches(session, await around.send(session))
        assert (turn.state, turn.reason) == ("failed", reason)
        assert len(look.calls) == runs
        kinds = await around.types(session)
        assert kinds.count("tool.requested") == kinds.count("tool.finished") + kinds.count("tool.failed")


# --- effects ---------------------------------------------------------------------------------------------------------


async def unknown(args: object, context: ToolContext) -> str:
    raise EffectUnknown("the answer was lost")


@pytest.mark.parametrize(
    ("outcome", "result", "told", "calls"),
    [
        ("done", "it was paid", "it was paid", 1),
        ("failed", "it bounced", "it bounced", 1),
        ("retry", "", "4", 2),
    ],
)
async def test_nobody_knows_so_a_human_is_asked(tmp_path: Path, outcome: str, result: str, told: str, calls: int) -> None:
    async def sometimes(args: object, context: ToolContext) -> str:
        if context.attempt == 1:
            raise EffectUnknown("the answer was lost")
        return "4"

    pay = FunctionTool("pay", sometimes, "unsafe")
    async with world(tmp_path, one_tool("pay"), pay) as around, around.worker() as worker:
        session = await around.session()
        turn_id = await around.send(session)
        turn = await around.reaches(session, turn_id, "waiting")
        assert turn.waiting_for == "approval"
        await until(lambda: worker.running == 0)
        await around.resolve(session, outcome, result)
        assert (await around.reaches(session, turn_id)).state == "completed"
        assert results(around.model.requests[-1]) == [told]
        assert len(pay.calls) == calls
        assert len({context.key for context in pay.calls}) == 1
        resumed = await around.payloads(session, e.TurnResumed)
        assert [p.why for p in resumed] == ["woken"]


@pytest.mark.parametrize(
    ("found", "told", "state"),
    [
        (Outcome("done", "it is there"), "it is there", "completed"),
        (Outcome("not_done"), "did not happen", "completed"),
        (Outcome("unknown"), "", "waiting"),
    ],
)
async def test_a_reconcilable_tool_that_does_not_know_is_probed_before_a_human_is_asked(
    tmp_path: Path, found: Outcome, told: str, state: str
) -> None:
    ship = FunctionTool("ship", unknown, "reconcilable", found)
    async with world(tmp_path, one_tool("ship"), ship) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await around.reaches(session, turn_id, state)
        assert len(ship.calls) == 1
        if told:
            assert told in results(around.model.requests[-1])[0]
        else:
            (rows, _) = await around.store.list_approvals(NAMESPACE, "open", "", 10)
            assert [row.turn_id for row, _ in rows] == [turn_id]


@pytest.mark.parametrize("effect", ["read", "idempotent", "reconcilable"])
async def test_a_tools_own_failure_is_told_to_the_model(tmp_path: Path, effect: Effect) -> None:
    async def refuses(args: object, context: ToolContext) -> str:
        raise ToolError("no such account")

    async with world(tmp_path, one_tool("pay"), FunctionTool("pay", refuses, effect)) as around, around.worker():
        session = await around.session()
        assert (await around.reaches(session, await around.send(session))).state == "completed"
        assert "no such account" in results(around.model.requests[-1])[0]


def quiet(request: ChatRequest) -> list[Act]:
    return says()


# --- others write to a running turn ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "uncertain"), [("read", 0), ("idempotent", 0), ("reconcilable", 1), ("unsafe", 1)])
async def test_a_cancelled_turn_stops_its_tool_and_says_what_nobody_knows(tmp_path: Path, effect: Effect, uncertain: int) -> None:
    held = Held()
    async with world(tmp_path, one_tool("pay"), FunctionTool("pay", held, effect)) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await asyncio.wait_for(held.started.wait(), 10)
        await around.cancel(session, turn_id)
        turn = await around.reaches(session, turn_id)
        assert (turn.state, turn.reason) == ("cancelled", "cancelled")
        assert held.cancelled
        kinds = await around.types(session)
        assert kinds.count("tool.uncertain") == uncertain
        assert kinds.count("tool.failed") == 1 - uncertain
        assert kinds[-1] == "turn.cancelled"
        rows, _ = await around.store.list_approvals(NAMESPACE, "open", "", 10)
        assert len(rows) == uncertain, "the question outlives its turn"
        around.model.script = quiet
        await around.reaches(session, await around.send(session, "and now?"))
        tool = next(message for message in around.model.requests[-1].messages if message.role == "tool")
        assert (tool.content == UNCERTAIN) == bool(uncertain)


async def test_a_cancelled_model_call_is_paid_as_far_as_it_went(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with world(tmp_path, lambda _: [TextDelta("x" * 400), never], FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session)
        await until(lambda: any(append.fragments for append in around.store.appends))
        await around.cancel(session, turn_id)
        turn = await around.reaches(session, turn_id)
        assert turn.state == "cancelled"
        assert turn.output_tokens == 100
        assert await around.store.read_fragments(session.sid, 4) == []


async def test_a_steering_message_joins_before_the_next_model_call(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session, "first")
        await asyncio.wait_for(held.started.wait(), 10)
        assert await around.send(session, "second", strategy="steer") == turn_id
        held.go.set()
        assert (await around.reaches(session, turn_id)).state == "completed"
        assert [text for role, text in shown(around.model.requests[1]) if role == "user"] == ["first", "second"]
        steered = [p.state for p in await around.payloads(session, e.InputSteered)]
        assert steered == ["offered", "joined"]


async def test_a_steering_message_that_comes_too_late_becomes_a_turn_of_its_own(tmp_path: Path) -> None:
    go = asyncio.Event()
    answers = iter([[TextDelta("first answer"), go, Finished("stop", USAGE)], says("second answer"), says("third answer")])
    async with world(tmp_path, lambda _: next(answers), FunctionTool("look", four)) as around, around.worker():
        session = await around.session()
        turn_id = await around.send(session, "first")
        await until(lambda: around.model.requests)
        assert await around.send(session, "second", strategy="steer") == turn_id
        go.set()
        await around.reaches(session, turn_id)
        offered, requeued = await around.payloads(session, e.InputSteered)
        assert (offered.state, requeued.state) == ("offered", "requeued")
        assert (await around.reaches(session, requeued.turn)).state == "completed"
        await around.reaches(session, await around.send(session, "third"))
        said = [message.content for message in around.model.requests[-1].messages[1:]]
        assert said == ["first", "first answer", "second", "second answer", "third"]


async def test_a_rolled_back_turn_leaves_the_context(tmp_path: Path) -> None:
    held = Held()

    def script(request: ChatRequest) -> list[Act]:
        return asks("look") if request.messages[-1].content == "wrong" else says()

    async with world(tmp_path, script, FunctionTool("look", held)) as around, around.worker():
        session = await around.session()
        wrong = await around.send(session, "wrong")
        await asyncio.wait_for(held.started.wait(), 10)
        right = await around.send(session, "right", strategy="rollback")
        assert (await around.reaches(session, right)).state == "completed"
        assert (await around.turn(session, wrong)).reason == "rolled_back"
        messages: list[ChatMessage] = list(around.model.requests[-1].messages)
        assert [message.content for message in messages[1:]] == ["right"]
