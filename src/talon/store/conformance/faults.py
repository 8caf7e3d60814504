"""A process that dies between two calls; what the next one finds."""

from __future__ import annotations

import asyncio

import pytest

from talon.domain import entries as e
from talon.domain.errors import FencedOut
from talon.domain.inbox import CancelTurn, Key
from talon.store.conformance import support as s
from talon.store.model import Appended, Caps
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


class FaultSuite:
    """Nothing that was answered is lost, nothing that was not answered is half done."""

    async def test_what_was_answered_is_there_for_the_next_process(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        receipt = await s.send(store, session, key=Key("http", "k", "aa"))
        claimed = await s.claim_one(store, await s.register(store))
        done = await s.commit(store, s.append(claimed, STEP))
        await store.close()
        assert (await s.again(second, session)).last_seq == done.base + 1
        assert (await s.send(second, session, key=Key("http", "k", "aa"))).turn_id == receipt.turn_id
        assert await second.register("w1", "boot2", s.LONG_MS, b"{}") == "w1/boot2"
        again = await s.claim_one(second, "w1/boot2")
        assert (again.was, again.turn.turn_id, again.session.fence) == ("running", receipt.turn_id, 2)
        assert s.types(await s.journal(second, session)) == ["message.received", "turn.queued", "step.finished"]

    async def test_a_caller_that_goes_away_leaves_all_or_nothing(self, store: Store, second: Store) -> None:
        claimed = await s.running(store)
        for number in range(30):
            task = asyncio.ensure_future(store.commit([s.append(claimed, STEP, STEP, STEP)]))
            for _ in range(number % 10):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # Nothing is held by the one that went away, and nothing of it is half done.
            assert isinstance((await second.commit([s.append(claimed, STEP, STEP, STEP)]))[0], Appended)
            entries = await second.read_entries(claimed.session.sid, 0, 1_000)
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
            assert (len(entries) - 2) % 3 == 0

    async def test_two_processes_that_both_think_they_hold_a_session(self, store: Store, second: Store) -> None:
        old = await s.running(store)
        await second.retire(s.WORKER)
        new = await s.claim_one(second, await s.register(second, "w2"))

        async def write(handle: Store, claimed: object) -> list[Appended | Exception]:
            assert claimed in (old, new)
            one = old if claimed is old else new
            return [(await handle.commit([s.append(one, STEP)]))[0] for _ in range(20)]

        stale, fresh = await asyncio.wait_for(asyncio.gather(write(store, old), write(second, new)), 60)
        assert all(isinstance(answer, FencedOut) for answer in stale)
        assert all(isinstance(answer, Appended) for answer in fresh)
        assert len(await s.journal(second, new)) == 22

    async def test_a_claim_and_a_cancel_at_once_leave_one_truth(self, store: Store, second: Store) -> None:
        worker = await s.register(store)
        for number in range(15):
            session = await s.create(store, f"s{number}")
            turn_id = (await s.send(store, session)).turn_id
            claims, cancels = await asyncio.gather(
                store.claim(worker, 1, Caps()), second.deliver([CancelTurn(s.where(session), turn_id)])
            )
            assert not isinstance(cancels[0], Exception)
            turn, row = await s.turn_of(store, session, turn_id), await s.again(store, session)
            if claims or row.owner:
                assert (turn.state, row.state, row.owner) == ("running", "running", worker)
                assert s.types(await s.journal(store, session))[-1] == "turn.cancel_requested"
                await s.finish(store, claims[0])
            else:
                assert (turn.state, row.state) == ("cancelled", "idle")

    async def test_a_closed_store_can_be_closed_again(self, store: Store) -> None:
        await store.close()
        await store.close()

    @pytest.mark.parametrize("size", [1, 65_536, 4_000_000])
    async def test_payloads_of_any_size_go_in(self, store: Store, size: int) -> None:
        claimed = await s.running(store)
        await s.commit(store, s.append(claimed, entries=(e.NewEntry("tool.output", b"\x00" * size),)))
        assert len((await store.read_entries(claimed.session.sid, 2, 1))[0].payload) == size
