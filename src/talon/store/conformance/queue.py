"""Claims: who runs what, and when (K2, K6, K7)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from talon.domain import entries as e
from talon.domain.inbox import InboxWrite
from talon.domain.session import TurnState
from talon.store.conformance import support as s
from talon.store.conformance.inbox import Probe
from talon.store.model import Appended, Caps, Claimed, TurnChange
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource

STEP = e.StepFinished(step="look", decision="go on")


async def busy(store: Store, count: int, namespace: str = s.NAMESPACE, agent: str = s.AGENT, prefix: str = "b") -> None:
    """`count` sessions with one queued turn each."""
    sessions = [await s.create(store, f"{prefix}{number}", namespace, agent) for number in range(count)]
    for session in sessions:
        await s.send(store, session)


def names(claimed: list[Claimed]) -> list[str]:
    return [one.session.id for one in claimed]


class QueueSuite:
    """Claim."""

    async def test_a_claim_takes_a_queued_turn_under_a_new_fence(self, store: Store) -> None:
        session = await s.create(store)
        receipt = await s.send(store, session)
        worker = await s.register(store)
        (claimed,) = await store.claim(worker, 5, Caps())
        assert claimed.session == await s.again(store, session)
        assert claimed.turn == await s.turn_of(store, session, receipt.turn_id)
        row, turn = claimed.session, claimed.turn
        assert (row.state, row.owner, row.fence, row.wake_at_ms) == ("running", worker, 1, None)
        assert (row.turn_id, row.queued) == (turn.turn_id, 0)
        assert (turn.state, turn.attempts, claimed.was, claimed.revision) == ("running", 1, "queued", 0)
        assert turn.started_at_ms is not None
        assert await store.owned(worker) == [(session.sid, 1)]
        assert await store.claim(worker, 5, Caps()) == []

    async def test_a_claim_tells_the_agents_newest_revision(self, store: Store) -> None:
        await s.ensure(store, ("", "Namespace", s.NAMESPACE))
        for number in (1, 2):
            put = PutResource(s.NAMESPACE, "Agent", s.AGENT, "u", number - 1, b"%d" % number, effective=b"{}", digest=str(number))
            await store.change(Changes((put,)))
        assert (await s.running(store)).revision == 2

    async def test_it_takes_no_more_than_its_slots_oldest_first(self, store: Store) -> None:
        await busy(store, 5)
        worker = await s.register(store)
        assert await store.claim(worker, 0, Caps()) == []
        assert names(await store.claim(worker, 2, Caps())) == ["b0", "b1"]
        assert names(await store.claim(worker, 9, Caps())) == ["b2", "b3", "b4"]

    async def test_an_unknown_or_expired_worker_gets_nothing(self, store: Store) -> None:
        await busy(store, 1)
        assert await store.claim("nobody/1", 1, Caps()) == []
        expired = await s.register(store, "late", ttl_ms=-1)
        assert await store.claim(expired, 1, Caps()) == []
        retired = await s.register(store, "gone")
        await store.retire(retired)
        assert await store.claim(retired, 1, Caps()) == []
        assert len(await store.claim(await s.register(store), 1, Caps())) == 1

    async def test_no_session_is_ever_given_twice(self, store: Store, second: Store) -> None:
        await busy(store, 40)
        workers = [(store, await s.register(store, "w1")), (second, await s.register(second, "w2"))]

        async def greedy(handle: Store, worker: str) -> list[Claimed]:
            taken: list[Claimed] = []
            while got := await handle.claim(worker, 3, Caps()):
                taken += got
            return taken

        rounds = await asyncio.wait_for(asyncio.gather(*(greedy(*one) for one in workers for _ in range(3))), 60)
        sids = [one.session.sid for got in rounds for one in got]
        # Skipping what another claim has locked may leave some to the next look, never to two workers.
        rest = [one.session.sid for one in await greedy(*workers[0])]
        assert len(sids + rest) == len(set(sids + rest)) == 40
        owned = [sid for handle, worker in workers for sid, _ in await handle.owned(worker)]
        assert sorted(owned) == sorted(sids + rest)

    async def test_messages_claims_and_ends_at_once_lose_no_turn(self, store: Store, second: Store) -> None:
        sessions = [await s.create(store, f"s{number}") for number in range(4)]
        handles = [(store, await s.register(store, "w1")), (second, await s.register(second, "w2"))]
        wanted, ended = 4 * 12, list[str]()

        async def work(handle: Store, worker: str) -> None:
            while len(ended) < wanted:
                got = await handle.claim(worker, 2, Caps())
                for one in got:
                    await s.finish(handle, one)
                    ended.append(one.turn.turn_id)
                if not got:
                    await asyncio.sleep(0.005)

        async def talk(handle: Store) -> None:
            for _ in range(6):
                for session in sessions:
                    await s.send(handle, session)

        await asyncio.wait_for(asyncio.gather(*(work(*one) for one in handles), talk(store), talk(second)), 60)
        assert len(set(ended)) == len(ended) == wanted
        for session in sessions:
            row = await s.again(store, session)
            assert (row.state, row.queued, row.owner, row.wake_at_ms) == ("idle", 0, None, None)

    async def test_the_namespace_with_the_fewest_running_turns_goes_first(self, store: Store) -> None:
        await busy(store, 6, "alpha", prefix="a")
        await busy(store, 2, "beta", prefix="b")
        worker = await s.register(store)
        assert names(await store.claim(worker, 1, Caps())) == ["a0"]
        assert names(await store.claim(worker, 1, Caps())) == ["b0"]
        assert set(names(await store.claim(worker, 2, Caps()))) == {"a1", "b1"}
        assert names(await store.claim(worker, 9, Caps())) == ["a2", "a3", "a4", "a5"]

    async def test_caps_hold_over_all_workers(self, store: Store, second: Store) -> None:
        await busy(store, 3, "alpha", "one", prefix="a")
        await busy(store, 3, "alpha", "two", prefix="b")
        await busy(store, 2, "beta", "one", prefix="c")
        one, two = await s.register(store, "w1"), await s.register(second, "w2")
        assert len(await store.claim(one, 9, Caps(per_agent=1))) == 3
        assert await second.claim(two, 9, Caps(per_agent=1)) == []
        assert names(await second.claim(two, 9, Caps(per_namespace=2))) == ["c1"]
        assert names(await second.claim(two, 9, Caps(per_namespace=3, per_agent=2))) == ["a1"]
        assert len(await second.claim(two, 9, Caps(per_namespace=4, per_agent=9))) == 1
        assert len(await second.claim(two, 9, Caps())) == 2

    async def test_a_capped_agent_does_not_stand_in_the_way_of_another(self, store: Store) -> None:
        await busy(store, 30, agent="one", prefix="a")
        await busy(store, 2, agent="two", prefix="b")
        got = await store.claim(await s.register(store), 3, Caps(per_agent=1))
        assert sorted(names(got)) == ["a0", "b0"]

    async def test_a_session_with_an_entry_of_a_newer_program_is_left_to_it(self, store: Store) -> None:
        newer = e.NewEntry("step.danced", b"{}", min_reader=e.READER + 1)
        by_message, by_worker, usual = [await s.create(store, name) for name in ("s1", "s2", "s3")]
        worker = await s.register(store)
        await s.send(store, by_worker)
        claimed = await s.claim_one(store, worker)
        await s.commit(store, s.append(claimed, entries=(newer,), hold="give_back"))
        await s.send(store, by_message)
        await s.deliver(store, Probe(s.where(by_message), [], InboxWrite((newer,))))
        assert await store.claim(worker, 9, Caps()) == []
        assert await store.next_wake_ms() is None
        await s.send(store, usual)
        assert names(await store.claim(worker, 9, Caps())) == ["s3"]
        assert s.types(await s.journal(store, by_worker))[-1] == "step.danced"

    async def test_a_session_that_was_woken_with_nothing_to_do_goes_back_to_sleep(self, store: Store, execute: s.Execute) -> None:
        session = await s.create(store)
        await execute(f"UPDATE sessions SET wake_at_ms = 1 WHERE sid = {session.sid}")
        assert await store.claim(await s.register(store), 1, Caps()) == []
        assert await store.next_wake_ms() is None
        assert (await s.again(store, session)).fence == 0


class HoldSuite:
    """What becomes of a session with an append."""

    async def test_release_with_nothing_queued_leaves_it_idle(self, store: Store) -> None:
        claimed = await s.running(store)
        done = await s.finish(store, claimed)
        row = await s.again(store, claimed.session)
        assert (row.state, row.owner, row.turn_id, row.wake_at_ms, row.fence) == ("idle", None, None, None, 1)
        turn = await s.turn_of(store, row, claimed.turn.turn_id)
        assert (turn.state, turn.reason, turn.ended_at_ms, done.runnable) == ("completed", "answered", done.at_ms, False)
        assert await store.next_wake_ms() is None
        assert await store.owned(s.WORKER) == []

    async def test_release_with_something_queued_makes_it_runnable_now(self, store: Store) -> None:
        claimed = await s.running(store)
        queued = await s.send(store, claimed.session)
        assert await store.next_wake_ms() is None
        done = await s.finish(store, claimed)
        row = await s.again(store, claimed.session)
        assert (row.state, row.wake_at_ms, row.queued, done.runnable) == ("queued", done.at_ms, 1, True)
        again = await s.claim_one(store)
        assert (again.turn.turn_id, again.was, again.session.fence, again.session.queued) == (queued.turn_id, "queued", 2, 0)

    async def test_a_parked_turn_wakes_after_its_time(self, store: Store) -> None:
        claimed = await s.running(store)
        done = await s.park(store, claimed, wake_in_ms=300)
        row = await s.again(store, claimed.session)
        assert (row.state, row.owner, row.wake_at_ms, row.turn_id) == ("waiting", None, done.at_ms + 300, claimed.turn.turn_id)
        assert done.runnable
        assert (await s.turn_of(store, row, claimed.turn.turn_id)).waiting_for == "timer"
        assert await store.claim(s.WORKER, 1, Caps()) == []
        left = await store.next_wake_ms()
        assert left is not None
        assert 0 < left <= 300
        (again,) = await s.until(lambda: store.claim(s.WORKER, 1, Caps()))
        assert (again.was, again.turn.state, again.turn.waiting_for, again.session.fence) == ("waiting", "running", "", 2)

    async def test_a_parked_turn_without_a_time_waits_until_it_is_woken(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.park(store, claimed)
        await s.send(store, claimed.session)
        assert await store.next_wake_ms() is None
        assert await store.claim(s.WORKER, 1, Caps()) == []
        await s.deliver(store, Probe(s.where(claimed.session), [], InboxWrite((e.new_entry(STEP),), wake=True)))
        assert await store.next_wake_ms() == 0
        assert (await s.claim_one(store)).turn.turn_id == claimed.turn.turn_id

    @pytest.mark.parametrize("queued", [0, 1])
    async def test_what_is_given_back_goes_on_before_what_is_queued(self, store: Store, queued: int) -> None:
        claimed = await s.running(store)
        for _ in range(queued):
            await s.send(store, claimed.session)
        await s.commit(store, s.append(claimed, STEP, hold="give_back"))
        row = await s.again(store, claimed.session)
        assert (row.state, row.owner, row.turn_id, row.queued) == ("running", None, claimed.turn.turn_id, queued)
        again = await s.claim_one(store)
        assert (again.turn.turn_id, again.was, again.turn.attempts) == (claimed.turn.turn_id, "running", 2)
        assert again.turn.started_at_ms == claimed.turn.started_at_ms

    async def test_giving_back_without_an_entry_is_enough(self, store: Store) -> None:
        claimed = await s.running(store)
        done = await s.commit(store, s.append(claimed, hold="give_back", wake_in_ms=s.LONG_MS))
        assert done == Appended(claimed.session.sid, 2, done.at_ms, runnable=True)
        assert await store.claim(s.WORKER, 1, Caps()) == []
        left = await store.next_wake_ms()
        assert left is not None
        assert s.LONG_MS - 10_000 < left <= s.LONG_MS

    async def test_a_drained_turn_gets_its_attempt_back(self, store: Store) -> None:
        claimed = await s.running(store)
        for _ in range(3):
            await s.commit(store, s.append(claimed, hold="give_back", drained=True))
            claimed = await s.claim_one(store)
            assert claimed.turn.attempts == 1

    async def test_progress_forgets_the_attempts(self, store: Store) -> None:
        claimed = await s.running(store)
        for attempts in (2, 3):
            await s.commit(store, s.append(claimed, hold="give_back"))
            claimed = await s.claim_one(store)
            assert claimed.turn.attempts == attempts
        await s.commit(store, s.append(claimed, STEP, turn=TurnChange(claimed.turn.turn_id, progress=True)))
        assert (await s.turn_of(store, claimed.session, claimed.turn.turn_id)).attempts == 0
        await s.commit(store, s.append(claimed, STEP, hold="give_back", drained=True))
        assert (await s.claim_one(store)).turn.attempts == 1

    async def test_a_change_of_the_turn_leaves_what_it_does_not_name(self, store: Store) -> None:
        claimed = await s.running(store)
        turn_id = claimed.turn.turn_id
        change = TurnChange(turn_id, revision=3, waiting_for="x", loop=b'{"a":"\x00"}', input_tokens=5, output_tokens=6, reason="r")
        await s.commit(store, s.append(claimed, STEP, turn=change))
        before = await s.turn_of(store, claimed.session, turn_id)
        assert (before.revision, before.waiting_for, before.loop, before.reason) == (3, "x", b'{"a":"\x00"}', "r")
        assert (before.input_tokens, before.output_tokens, before.state) == (5, 6, "running")
        await s.commit(store, s.append(claimed, STEP, turn=TurnChange(turn_id, input_tokens=0, waiting_for="")))
        after = await s.turn_of(store, claimed.session, turn_id)
        assert after == msgspec.structs.replace(before, input_tokens=0, waiting_for="")

    async def test_a_turn_starts_once_and_ends_when_it_is_said_to(self, store: Store) -> None:
        claimed = await s.running(store)
        started = claimed.turn.started_at_ms
        assert started is not None

        async def later(state: TurnState | None = None) -> int:
            return (await s.commit(store, s.append(claimed, STEP, turn=TurnChange(claimed.turn.turn_id, state=state)))).at_ms

        async def the_clock_moved() -> bool:
            return await later() > started

        await s.until(the_clock_moved)
        await later("running")
        assert (await s.turn_of(store, claimed.session, claimed.turn.turn_id)).started_at_ms == started
        ended = await later("failed")
        assert (await s.turn_of(store, claimed.session, claimed.turn.turn_id)).ended_at_ms == ended

    async def test_a_definition_is_kept_under_its_digest(self, store: Store, second: Store) -> None:
        assert await store.get_definition("none") is None
        await asyncio.gather(*(handle.put_definition("d1", b"\x00body") for handle in (store, second) for _ in range(3)))
        assert await second.get_definition("d1") == b"\x00body"
