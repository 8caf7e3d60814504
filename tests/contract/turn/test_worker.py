"""Workers over a real store: drain, takeover, poison, a missing database, and many sessions that do nothing."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.turnworld import Act, FunctionTool, Held, World, asks, four, one_tool, results, says, world
from support.waiting import until
from talon.domain import entries as e
from talon.domain.errors import Unavailable
from talon.providers.protocol import ChatRequest, Finished, TextDelta
from talon.store.model import Caps
from talon.store.pack import pack
from talon.tools.protocol import ToolContext
from talon.worker.lease import FileLease

WAIT_S = 10.0
AWAY = Unavailable("database_unavailable", "the database is away")


def sql(path: Path, statement: str, *values: object) -> None:
    """What only somebody with the file in his hands can do."""
    with sqlite3.connect(path / "talon.db", timeout=10) as connection:
        connection.execute(statement, values)
    connection.close()


# --- drain -------------------------------------------------------------------------------------------------------------


async def test_a_worker_that_drains_lets_the_tool_end_and_gives_its_session_back(tmp_path: Path) -> None:
    held = Held()
    pay = FunctionTool("pay", held, "unsafe")
    async with world(tmp_path, one_tool("pay"), pay) as around:
        session = await around.session()
        async with around.worker("w1") as worker:
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            stopping = asyncio.create_task(worker.stop())
            await asyncio.sleep(0)
            assert not stopping.done()
            held.go.set()
            await asyncio.wait_for(stopping, WAIT_S)
            assert worker.running == 0
            row, turn = await around.store.get_session_by_sid(session.sid), await around.turn(session, turn_id)
            assert (row.owner, row.state, turn.state, turn.attempts) == (None, "running", "running", 0)
            assert (await around.types(session))[-1] == "tool.finished", "the receipt is durable"
        async with around.worker("w2"):
            assert (await around.reaches(session, turn_id)).state == "completed"
        assert len(pay.calls) == 1
        assert [p.why for p in await around.payloads(session, e.TurnResumed)] == ["takeover"]


async def test_an_answer_that_is_under_way_is_heard_and_ends_its_turn_before_the_worker_goes(tmp_path: Path) -> None:
    go = asyncio.Event()

    def script(request: ChatRequest) -> Sequence[Act]:
        return [TextDelta("Well, "), go, TextDelta("yes."), Finished("stop", e.Usage(1, 1))]

    async with world(tmp_path, script, FunctionTool("look", four)) as around:
        session = await around.session()
        async with around.worker("w1") as worker:
            turn_id = await around.send(session)
            await until(lambda: around.model.requests)
            stopping = asyncio.create_task(worker.stop())
            await asyncio.sleep(0)
            go.set()
            await asyncio.wait_for(stopping, WAIT_S)
            assert (await around.turn(session, turn_id)).state == "completed"
        assert len(around.model.requests) == 1


async def test_a_claim_that_is_on_its_way_while_the_worker_stops_is_given_back_and_is_no_attempt(tmp_path: Path) -> None:
    claiming, go = asyncio.Event(), asyncio.Event()

    async def before(name: str) -> None:
        if name == "claim":
            claiming.set()
            await go.wait()

    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), attempts_max=2) as around:
        session = await around.session()
        turn_id = await around.send(session)
        around.store.before = before
        for number in range(4):
            async with around.worker(f"w{number}") as worker:
                await asyncio.wait_for(claiming.wait(), WAIT_S)
                stopping = asyncio.create_task(worker.stop())
                await asyncio.sleep(0)
                go.set()
                await asyncio.wait_for(stopping, WAIT_S)
                claiming.clear()
                go.clear()
            row, turn = await around.store.get_session_by_sid(session.sid), await around.turn(session, turn_id)
            assert (row.owner, row.fence, turn.attempts) == (None, number + 1, 0)
        assert around.model.requests == [], "a turn that is drained begins nothing"
        go.set()
        async with around.worker("last"):
            assert (await around.reaches(session, turn_id)).state == "completed"


async def test_what_does_not_drain_in_time_is_left_as_a_crash_leaves_it(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around:
        session = await around.session()
        async with around.worker("w1", drain_timeout_s=0.1):
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
        assert held.cancelled
        held.go.set()
        async with around.worker("w2"):
            assert (await around.reaches(session, turn_id)).state == "completed"
        assert [p.attempt for p in await around.payloads(session, e.ToolStarted)] == [1, 2]


# --- one at a time -------------------------------------------------------------------------------------------------------


async def test_two_workers_never_run_one_session_at_once(tmp_path: Path) -> None:
    running: Counter[str] = Counter()
    workers: Counter[str] = Counter()

    async def alone(args: object, context: ToolContext) -> str:
        running[context.session] += 1
        assert running[context.session] == 1
        for _ in range(3):
            await asyncio.sleep(0)
        running[context.session] -= 1
        return "4"

    async with world(tmp_path, one_tool("look"), FunctionTool("look", alone)) as around:
        sessions = [await around.session(f"s{number}") for number in range(12)]
        turns = [(session, await around.send(session, f"{n}")) for n in range(4) for session in sessions]
        async with around.worker("w1", concurrency=3), around.worker("w2", concurrency=3):
            for session, turn_id in turns:
                assert (await around.reaches(session, turn_id, within_s=30)).state == "completed"
        for session in sessions:
            started = await around.payloads(session, e.TurnStarted)
            assert [p.fence for p in started] == [1, 2, 3, 4]
            workers.update(p.worker.split("/")[0] for p in started)
            assert await around.payloads(session, e.TurnResumed) == []
        assert set(workers) == {"w1", "w2"}, "both had work to do"


async def test_a_worker_runs_no_more_turns_than_it_may(tmp_path: Path) -> None:
    at_once, most = 0, 0

    async def counted(args: object, context: ToolContext) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return "4"

    async with world(tmp_path, one_tool("look"), FunctionTool("look", counted)) as around:
        sessions = [await around.session(f"s{number}") for number in range(10)]
        turns = [(session, await around.send(session)) for session in sessions]
        async with around.worker("w1", concurrency=3):
            for session, turn_id in turns:
                await around.reaches(session, turn_id)
        assert most == 3


async def test_a_full_cap_is_waited_for_without_spinning(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around:
        first, second = await around.session("s1"), await around.session("s2")
        async with around.worker("w1", caps=Caps(per_namespace=1), sweep_s=0.2):
            turns = [(session, await around.send(session)) for session in (first, second)]
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            around.store.reset()
            await asyncio.sleep(1.0)  # the time in which it must not spin
            assert around.store.calls["claim"] <= 12
            held.go.set()
            for session, turn_id in turns:
                assert (await around.reaches(session, turn_id)).state == "completed"


# --- taken over -------------------------------------------------------------------------------------------------------------


async def test_a_runner_that_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around:
        session = await around.session()
        async with around.worker("w1", sweep_s=60.0) as worker:
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            await around.store.retire(worker.id)  # its lease is over and it does not know
            await around.store.register("w2", "boot", 3_600_000, b"{}")
            (claimed,) = await around.store.claim("w2/boot", 1, Caps())
            assert (claimed.was, claimed.turn.attempts) == ("running", 1)
            before = await around.journal(session)
            held.go.set()
            await until(lambda: worker.running == 0)
            assert await around.journal(session) == before
            await around.store.retire("w2/boot")
        async with around.worker("w3"):
            assert (await around.reaches(session, turn_id)).state == "completed"


async def test_a_stream_that_was_taken_over_stops_listening(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(3)]

    def script(request: ChatRequest) -> Sequence[Act]:
        return [act for gate in gates for act in (gate, TextDelta("more "))] + [Finished("stop", e.Usage())]

    async with world(tmp_path, script, FunctionTool("look", four)) as around:
        session = await around.session()
        async with around.worker("w1", sweep_s=60.0) as worker:
            await around.send(session)
            await until(lambda: around.model.requests)
            gates[0].set()
            await until(lambda: any(append.fragments for append in around.store.appends))
            await around.store.retire(worker.id)
            asked = len(around.store.appends)
            gates[1].set()
            await until(lambda: len(around.store.appends) > asked)  # and that one is refused
            gates[2].set()
            await until(lambda: worker.running == 0)
            kinds = await around.types(session)
            assert kinds[-1] == "model.started"


async def test_a_lease_that_ends_stops_the_tools_even_while_the_database_hangs(tmp_path: Path) -> None:
    class Ending(FileLease):
        over = False

        def alive(self) -> bool:
            return not self.over

    async def before(name: str) -> None:
        if hanging and name in ("sweep", "claim", "next_wake_ms", "owned"):
            stuck.set()
            await back.wait()

    hanging, stuck, back, lease, held = False, asyncio.Event(), asyncio.Event(), Ending(), Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around:
        around.store.before = before
        session = await around.session()
        async with around.worker("w1", lease) as worker:
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            first = worker.id
            hanging = True
            await asyncio.wait_for(stuck.wait(), WAIT_S)
            lease.over = True
            await until(lambda: held.cancelled)
            lease.over, hanging = False, False
            back.set()
            held.go.set()
            assert (await around.reaches(session, turn_id)).state == "completed"
            assert worker.id == first


async def test_a_worker_whose_lease_was_over_begins_again_as_a_new_boot(tmp_path: Path) -> None:
    class Once(FileLease):
        asked = 0
        started: list[str]

        def __init__(self) -> None:
            self.started = []
            self.over = False

        def alive(self) -> bool:
            return not self.over

        def start(self, worker: str, began_s: float) -> None:
            self.started.append(worker)
            self.over = False

    lease, held = Once(), Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held)) as around:
        session = await around.session()
        async with around.worker("w1", lease) as worker:
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            held.go.set()
            lease.over = True
            await until(lambda: len(lease.started) == 2)
            assert (await around.reaches(session, turn_id)).state == "completed"
            assert lease.started[1] == worker.id != lease.started[0]
            assert [worker.id] == [row.id for row in await around.store.workers()]


# --- a missing database -------------------------------------------------------------------------------------------------------


async def test_a_turn_stops_when_the_database_stays_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    held = Held()

    async def before(name: str) -> None:
        if away and name in ("commit", "owned"):
            raise AWAY

    away = False
    look = FunctionTool("look", held)
    async with world(tmp_path, one_tool("look"), look) as around:
        around.store.before = before
        session = await around.session()
        async with around.worker("w1") as worker:
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
            away = True
            held.go.set()
            await until(lambda: worker.running == 0)
            row = await around.store.get_session_by_sid(session.sid)
            assert row.owner == worker.id, "held, and run by nobody"
            away = False
            assert (await around.reaches(session, turn_id)).state == "completed"
            assert [p.attempt for p in await around.payloads(session, e.ToolStarted)] == [1, 2]


async def test_a_claim_whose_answer_was_lost_is_found_and_run(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around:
        session = await around.session()
        lost = 0
        inner = around.store.inner.claim

        async def claim(worker: str, slots: int, caps: Caps) -> object:
            nonlocal lost
            claimed = await inner(worker, slots, caps)
            if claimed and not lost:
                lost += 1
                raise AWAY
            return claimed

        around.store.inner.claim = claim  # type: ignore[method-assign]
        async with around.worker("w1"):
            turn_id = await around.send(session)
            turn = await around.reaches(session, turn_id)
            assert (turn.state, lost) == ("completed", 1)


async def test_a_worker_survives_a_database_that_is_away_when_it_looks(tmp_path: Path) -> None:
    failures = 0

    async def before(name: str) -> None:
        nonlocal failures
        if name in ("sweep", "claim", "tails", "next_wake_ms") and failures < 6:
            failures += 1
            raise AWAY

    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around:
        around.store.before = before
        session = await around.session()
        async with around.worker("w1"):
            assert (await around.reaches(session, await around.send(session))).state == "completed"
        assert failures == 6


# --- poison -------------------------------------------------------------------------------------------------------------------


async def test_a_defect_backs_off_and_ends_its_turn_and_nobody_else_notices(tmp_path: Path) -> None:
    def script(request: ChatRequest) -> list[Act]:
        return [RuntimeError("a mistake of ours")] if request.messages[-1].content == "poison" else says()

    async with world(tmp_path, script, FunctionTool("look", four), attempts_max=2) as around, around.worker() as worker:
        bad, good = await around.session("bad"), await around.session("good")
        poisoned = await around.send(bad, "poison")
        await until(lambda: around.model.requests)
        others = 0
        while (turn := await around.turn(bad, poisoned)).ended_at_ms is None:
            assert (await around.reaches(good, await around.send(good, "hello"))).state == "completed"
            others += 1
            assert others < 3_000
        assert (turn.state, turn.reason) == ("failed", "attempts_exhausted")
        assert sum(request.messages[-1].content == "poison" for request in around.model.requests) == 2
        starts = [entry for entry in await around.journal(bad) if entry.type == "model.started"]
        assert starts[1].at_ms - starts[0].at_ms >= 1_000, "no back-off"
        assert (await around.reaches(bad, await around.send(bad, "hello"))).state == "completed", "the session goes on"
        await until(lambda: worker.running == 0)


async def test_suspects_run_in_groups_and_the_next_ones_begin_when_those_have_got_on(tmp_path: Path) -> None:
    go, end = asyncio.Event(), asyncio.Event()

    def script(request: ChatRequest) -> list[Act]:
        return [end, *says()] if results(request) else [go, *asks("look")]

    async with world(tmp_path, script, FunctionTool("look", four)) as around:
        sessions = [await around.session(f"s{number}") for number in range(12)]
        turns = [await around.send(session) for session in sessions]
        sql(tmp_path, "UPDATE turns SET attempts = 3")
        async with around.worker() as worker:
            await until(lambda: len(around.model.requests) == 8)
            rows = [await around.turn(*one) for one in zip(sessions, turns, strict=True)]
            assert Counter(row.attempts for row in rows) == {4: 8, 3: 4}, "one that does not run is not counted"
            assert worker.running == 8
            go.set()
            await until(lambda: sum(bool(results(request)) for request in around.model.requests) == 12)
            assert worker.running == 12, "the first ones have not ended"
            end.set()
            for one in zip(sessions, turns, strict=True):
                assert (await around.reaches(*one)).state == "completed"


async def test_a_turn_whose_journal_cannot_be_read_is_ended(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), attempts_max=1) as around:
        session = await around.session()
        turn_id = await around.send(session)
        received, queued = await around.journal(session)
        first = e.NewEntry(received.type, received.payload, turn_id)
        whole, broken = (pack([first, e.NewEntry(queued.type, payload, turn_id)]) for payload in (queued.payload, b"{not json"))
        sql(tmp_path, "UPDATE journal SET pack = ? WHERE last_seq = ?", broken, queued.seq)
        async with around.worker():
            turn = await around.reaches(session, turn_id)
            assert (turn.state, turn.reason) == ("failed", "attempts_exhausted")
            sql(tmp_path, "UPDATE journal SET pack = ? WHERE last_seq = ?", whole, queued.seq)
            assert (await around.types(session))[-1] == "turn.failed"
            assert (await around.reaches(session, await around.send(session))).state == "completed"


async def test_a_turn_whose_definition_is_lost_is_ended(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, one_tool("look"), FunctionTool("look", held), attempts_max=1) as around:
        session = await around.session()
        async with around.worker("w1", drain_timeout_s=0.0):
            turn_id = await around.send(session)
            await asyncio.wait_for(held.started.wait(), WAIT_S)
        sql(tmp_path, "DELETE FROM definitions")
        async with around.worker("w2"):
            turn = await around.reaches(session, turn_id)
            assert (turn.state, turn.reason) == ("failed", "attempts_exhausted")


# --- idle sessions --------------------------------------------------------------------------------------------------------------


async def test_ten_thousand_idle_sessions_add_no_memory(tmp_path: Path) -> None:
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four)) as around, around.worker(sweep_s=0.05) as worker:
        session = await around.session()
        await around.reaches(session, await around.send(session))
        before = await looked(around)
        columns = "namespace, agent, state, first_seq, last_seq, fence, queued, metadata, features, profile, key_id"
        sql(
            tmp_path,
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
            f"INSERT INTO sessions (uid, id, created_at_ms, updated_at_ms, {columns}) "
            f"SELECT 'u' || i, 'idle-' || i, 0, 0, {columns} FROM sessions, n WHERE sid = ?",
            session.sid,
        )
        after = await looked(around)
        assert after - before < 200_000, f"{after - before} bytes for 10,000 idle sessions"
        assert worker.running == 0
        assert (await around.reaches(session, await around.send(session))).state == "completed"


async def looked(around: World) -> int:
    """The memory in use after the worker has looked at the store five times more."""
    tracemalloc.start()
    try:
        wanted = around.store.calls["sweep"] + 5

        async def enough() -> bool:
            return around.store.calls["sweep"] >= wanted

        await until(enough)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kept", [0, 5])
async def test_the_cache_of_tails_is_all_that_a_session_leaves_behind(tmp_path: Path, kept: int) -> None:
    from talon.turn.context import ContextCache

    cache = ContextCache(sessions_max=kept)
    async with world(tmp_path, one_tool("look"), FunctionTool("look", four), cache=cache) as around, around.worker() as worker:
        sessions = [await around.session(f"s{number}") for number in range(20)]
        turns = [(session, await around.send(session)) for session in sessions]
        for session, turn_id in turns:
            await around.reaches(session, turn_id)
        await until(lambda: worker.running == 0)
        assert sum(cache.get(session.sid) is not None for session in sessions) == kept


# --- a lease that was lost ---------------------------------------------------------------------------------------------


class Losable(FileLease):
    """A lease that the test takes away; a new one begins with each registration."""

    def __init__(self) -> None:
        self.kept = False

    def alive(self) -> bool:
        return self.kept

    def start(self, worker: str, began_s: float) -> None:
        self.kept = True


async def test_a_registration_whose_answer_was_lost_is_not_taken_for_another_process(tmp_path: Path) -> None:
    async with world(tmp_path, lambda request: says()) as around:
        lease = Losable()
        async with around.worker("w1", lease) as worker:
            first = worker.id
            register = around.store.inner.register
            lost = 0

            async def losing(*args: object) -> str:
                nonlocal lost
                answer = await register(*args)  # type: ignore[arg-type]
                lost += 1
                if lost == 1:
                    raise AWAY
                return answer

            around.store.inner.register = losing  # type: ignore[method-assign]
            lease.kept = False
            await until(lambda: worker.id != first)
            assert lost == 2
            assert [row.id for row in await around.store.workers()] == [worker.id]
            session = await around.session()
            assert (await around.reaches(session, await around.send(session))).state == "completed"
