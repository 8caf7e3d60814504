"""Workers, leases, sweeps: K8 and K13 as far as a store holds them. Leases run on the database's own clock."""

from __future__ import annotations

import asyncio

import pytest

from talon.domain import entries as e
from talon.domain.errors import FencedOut
from talon.domain.inbox import Claim, InboxWrite, NewTurn
from talon.store.conformance import support as s
from talon.store.conformance.inbox import Probe
from talon.store.inbox_apply import BACKOFF_MS
from talon.store.model import Caps
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


class TakeoverSuite:
    """Register, heartbeat, retire, sweep."""

    async def test_a_registered_worker_is_shown_while_its_lease_lasts(self, store: Store, second: Store) -> None:
        first = await store.register("w1", "a", s.LONG_MS, b'{"toolsets":["\x00"]}')
        assert first == "w1/a"
        await store.register("w2", "b", -1, b"{}")
        (row,) = await second.workers()
        assert (row.id, row.name, row.draining, row.catalogue) == ("w1/a", "w1", False, b'{"toolsets":["\x00"]}')
        assert row.expires_at_ms - row.started_at_ms == s.LONG_MS
        assert await store.heartbeat("w1/a", 2 * s.LONG_MS, draining=True)
        (beaten,) = await second.workers()
        assert beaten.draining
        assert beaten.expires_at_ms >= row.expires_at_ms + s.LONG_MS
        assert beaten.started_at_ms == row.started_at_ms

    async def test_a_lease_ends_on_the_clock(self, store: Store) -> None:
        await s.register(store, ttl_ms=150)
        assert len(await store.workers()) == 1

        async def gone() -> bool:
            return await store.workers() == []

        await s.until(gone)

    async def test_registering_again_under_the_same_boot_renews_the_lease(self, store: Store) -> None:
        claimed = await s.running(store)
        await store.register("w1", "boot", 2 * s.LONG_MS, b"[]")
        (row,) = await store.workers()
        assert row.catalogue == b"[]"
        await s.commit(store, s.append(claimed, STEP))
        assert await store.owned(s.WORKER) == [(claimed.session.sid, 1)]

    async def test_a_heartbeat_keeps_the_sessions_of_a_worker(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        await s.send(store, session)
        worker = await s.register(store)
        await s.claim_one(store, worker)
        assert await store.heartbeat(worker, s.LONG_MS)
        assert await second.sweep() == 0
        assert (await s.again(store, session)).owner == worker

    async def test_the_sessions_of_a_worker_whose_lease_has_ended_run_elsewhere(self, store: Store, second: Store) -> None:
        claimed = await s.running(store)
        assert await store.heartbeat(s.WORKER, -1)
        assert await second.sweep() == 1
        assert await second.sweep() == 0
        row = await s.again(store, claimed.session)
        assert (row.state, row.owner, row.fence) == ("running", None, 1)
        again = await s.claim_one(second, await s.register(second, "w2"))
        assert (again.was, again.turn.turn_id, again.turn.attempts) == ("running", claimed.turn.turn_id, 2)
        assert again.session.fence == 2
        with pytest.raises(FencedOut):
            await s.commit(store, s.append(claimed, STEP))
        assert not await store.heartbeat(s.WORKER, s.LONG_MS)
        assert [worker.id for worker in await store.workers()] == ["w2/boot"]

    async def test_a_session_that_was_swept_takes_nothing_from_its_old_worker_before_the_next_claim(self, store: Store) -> None:
        claimed = await s.running(store)
        await store.heartbeat(s.WORKER, -1)
        await store.sweep()
        with pytest.raises(FencedOut):
            await s.commit(store, s.append(claimed, STEP))
        assert len(await s.journal(store, claimed)) == 2

    async def test_sweeps_at_once_give_back_each_session_once(self, store: Store, second: Store) -> None:
        for number in range(10):
            await s.running(store, f"s{number}")
        await store.heartbeat(s.WORKER, -1)
        swept = await asyncio.wait_for(asyncio.gather(*(handle.sweep() for handle in (store, second) for _ in range(3))), 60)
        assert sum(swept) == 10

    async def test_a_sweep_leaves_the_sessions_of_living_workers_and_of_nobody(self, store: Store) -> None:
        alive = await s.running(store)
        other = await s.create(store, "s2")
        await s.send(store, other)
        before = await s.again(store, other)
        assert await store.sweep() == 0
        assert await s.again(store, alive.session) == alive.session
        assert await s.again(store, other) == before

    @pytest.mark.parametrize("attempts", [*range(1, len(BACKOFF_MS) + 1), 100])
    async def test_a_turn_that_kills_its_workers_comes_back_later_and_later(
        self, store: Store, execute: s.Execute, attempts: int
    ) -> None:
        claimed = await s.running(store)
        await execute(f"UPDATE turns SET attempts = {attempts} WHERE turn_id = '{claimed.turn.turn_id}'")
        await store.heartbeat(s.WORKER, -1)
        await store.sweep()
        expected = BACKOFF_MS[min(attempts, len(BACKOFF_MS) - 1)]
        left = await store.next_wake_ms()
        assert left is not None
        assert max(0, expected - 900) <= left <= expected
        assert len(await store.claim(await s.register(store, "w2"), 1, Caps())) == (1 if expected == 0 else 0)

    async def test_a_worker_that_starts_again_under_its_name_takes_its_sessions_back_at_once(
        self, store: Store, second: Store, execute: s.Execute
    ) -> None:
        claimed = [await s.running(store, f"s{number}") for number in range(3)]
        await execute("UPDATE turns SET attempts = 4")
        other = await s.running(store, "other", "w2")
        new = await second.register("w1", "boot2", s.LONG_MS, b"{}")
        again = await second.claim(new, 9, Caps())
        assert sorted(one.session.sid for one in again) == [one.session.sid for one in claimed]
        assert {one.turn.attempts for one in again} == {5}
        assert [worker.id for worker in await second.workers()] == ["w1/boot2", "w2/boot"]
        assert not await store.heartbeat(s.WORKER, s.LONG_MS)
        await s.commit(store, s.append(other, STEP))

    async def test_a_worker_that_retires_gives_everything_back(self, store: Store) -> None:
        first, second = await s.running(store, "s1"), await s.running(store, "s2")
        assert await store.retire(s.WORKER) == 2
        assert await store.retire(s.WORKER) == 0
        assert await store.workers() == []
        again = await store.claim(await s.register(store, "w2"), 9, Caps())
        assert [one.session.sid for one in again] == [first.session.sid, second.session.sid]

    async def test_a_late_commit_of_a_dead_process_is_swept_like_the_rest(self, store: Store, second: Store) -> None:
        # Its last claim may commit after its successor has looked: the owner is then a worker that nobody knows.
        session, turn_id = await s.create(store), s.fresh_id()
        await s.register(store)
        await second.register("w1", "boot2", s.LONG_MS, b"{}")
        received = e.new_entry(e.MessageReceived(content="x"), turn_id)
        claim = InboxWrite((received,), (NewTurn(turn_id, 0, "enqueue", "http"),), claim=Claim(s.WORKER, turn_id))
        await s.deliver(store, Probe(s.where(session), [], claim))
        assert await second.owned("w1/boot2") == []
        assert await second.sweep() == 1
        assert (await s.claim_one(second, "w1/boot2")).turn.turn_id == turn_id

    async def test_owned_lists_what_a_worker_holds(self, store: Store) -> None:
        first, second = await s.running(store, "s1"), await s.running(store, "s2")
        await s.running(store, "s3", "w2")
        assert sorted(await store.owned(s.WORKER)) == [(first.session.sid, 1), (second.session.sid, 1)]
        assert await store.owned("nobody/1") == []

    async def test_the_next_wake_is_the_earliest(self, store: Store) -> None:
        assert await store.next_wake_ms() is None
        for name, wake in (("s1", 50_000), ("s2", 20_000), ("s3", 90_000)):
            await s.park(store, await s.running(store, name), wake_in_ms=wake)
        left = await store.next_wake_ms()
        assert left is not None
        assert 10_000 < left <= 20_000
        await s.send(store, await s.create(store, "s4"))
        assert await store.next_wake_ms() == 0

    async def test_what_sleeps_since_before_the_clock_was_set_back_wakes_in_time(self, store: Store, execute: s.Execute) -> None:
        """Seen from the rows, a clock that was set back is a row that was written in the future."""
        await s.park(store, await s.running(store), wake_in_ms=60_000)
        queued = await s.create(store, "s2")
        await s.send(store, queued)
        await execute(
            "UPDATE sessions SET wake_at_ms = wake_at_ms + 3600000, updated_at_ms = updated_at_ms + 3600000 "
            "WHERE wake_at_ms IS NOT NULL"
        )
        worker = await s.register(store, "w2")
        assert await store.claim(worker, 2, Caps()) == []
        await store.sweep()
        claimed = await s.claim_one(store, worker)
        assert claimed.session.sid == queued.sid
        wake_ms = await store.next_wake_ms()
        assert wake_ms is not None
        assert 50_000 < wake_ms <= 60_000, "a timer keeps the rest of its wait"

    async def test_what_is_written_to_after_the_clock_was_set_back_wakes_in_time_too(
        self, store: Store, execute: s.Execute
    ) -> None:
        """A write makes a row one of now: how far its timer was ahead would be forgotten before any sweep has seen it."""
        parked = await s.running(store)
        await s.park(store, parked, wake_in_ms=60_000)
        queued = await s.create(store, "s2")
        await s.send(store, queued)
        await execute(
            "UPDATE sessions SET wake_at_ms = wake_at_ms + 3600000, updated_at_ms = updated_at_ms + 3600000 "
            "WHERE wake_at_ms IS NOT NULL"
        )
        await s.send(store, queued, "again")
        await s.send(store, parked.session, "behind it")
        worker = await s.register(store, "w2")
        claimed = await s.claim_one(store, worker)
        assert claimed.session.sid == queued.sid
        wake_ms = await store.next_wake_ms()
        assert wake_ms is not None
        assert 50_000 < wake_ms <= 60_000, "a timer keeps the rest of its wait"
