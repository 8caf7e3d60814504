"""Every strategy in every state of a session (the table of the surface), and cancelling in every state."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from talon.domain import entries as e
from talon.domain.errors import Conflict, FencedOut, Throttled
from talon.domain.inbox import CancelTurn, Receipt
from talon.domain.session import SessionRow, Strategy
from talon.store.conformance import support as s
from talon.store.model import Caps, Claimed, QueuedTurn, TurnChange
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


class Stage(NamedTuple):
    """A session in a named state: its row, its first turn, and the claim of the worker that has or had it."""

    session: SessionRow
    turn_id: str
    claimed: Claimed | None
    approval: str = ""


async def stage(store: Store, state: str) -> Stage:
    """A session in `state`: idle, queued, running, given_back (running, but nobody owns it), waiting (for an approval)."""
    session = await s.create(store)
    if state == "idle":
        return Stage(session, "", None)
    receipt = await s.send(store, session)
    if state == "queued":
        return Stage(await s.again(store, session), receipt.turn_id, None)
    claimed = await s.claim_one(store, await s.register(store))
    approval = s.fresh_id() if state == "waiting" else ""
    if state == "waiting":
        await s.park(store, claimed, approval=approval)
    if state == "given_back":
        await s.commit(store, s.append(claimed, STEP, hold="give_back", wake_in_ms=s.LONG_MS))
    return Stage(await s.again(store, session), receipt.turn_id, claimed, approval)


async def order(store: Store, session: SessionRow) -> list[str]:
    """Who runs next: the turns in the order in which a worker gets them, each ended at once."""
    worker, turns = await s.register(store), list[str]()
    while claimed := await store.claim(worker, 1, Caps()):
        turns.append(claimed[0].turn.turn_id)
        await s.finish(store, claimed[0])
    assert (await s.again(store, session)).state == "idle"
    return turns


def behind(receipt: Receipt) -> e.Behind | None:
    (payload,) = [entry.decode() for entry in receipt.entries if entry.type == "turn.queued"]
    assert isinstance(payload, e.TurnQueued)
    return payload.behind


class StrategySuite:
    """The table."""

    @pytest.mark.parametrize("strategy", ["enqueue", "steer", "interrupt", "rollback", "reject"])
    async def test_an_idle_session_takes_any_strategy(self, store: Store, strategy: Strategy) -> None:
        at = await stage(store, "idle")
        receipt = await s.send(store, at.session, strategy=strategy)
        assert s.types(receipt.entries) == ["message.received", "turn.queued"]
        assert behind(receipt) is None
        assert await order(store, at.session) == [receipt.turn_id]

    @pytest.mark.parametrize("state", ["queued", "running", "given_back", "waiting"])
    async def test_reject_on_a_busy_session_is_a_conflict(self, store: Store, state: str) -> None:
        at = await stage(store, state)
        with pytest.raises(Conflict, match="session_busy"):
            await s.send(store, at.session, strategy="reject")
        assert await s.again(store, at.session) == at.session

    @pytest.mark.parametrize("state", ["queued", "running", "given_back", "waiting"])
    async def test_enqueue_runs_after_what_is_there_and_says_behind_what(self, store: Store, state: str) -> None:
        at = await stage(store, state)
        receipt = await s.send(store, at.session)
        waits = behind(receipt)
        row_state = "running" if state == "given_back" else state
        assert waits == e.Behind(at.turn_id, row_state, "approval" if state == "waiting" else "", 1)
        after = await s.again(store, at.session)
        assert (after.state, after.turn_id, after.wake_at_ms) == (at.session.state, at.session.turn_id, at.session.wake_at_ms)
        assert (after.queued, after.fence, after.owner) == (at.session.queued + 1, at.session.fence, at.session.owner)

    @pytest.mark.parametrize("state", ["queued", "running", "given_back", "waiting"])
    async def test_steer_joins_the_turn_that_is_there(self, store: Store, state: str) -> None:
        at = await stage(store, state)
        receipt = await s.send(store, at.session, strategy="steer")
        assert (receipt.turn_id, receipt.strategy, receipt.seq) == (at.turn_id, "steer", at.session.last_seq + 1)
        assert s.types(receipt.entries) == ["message.received", "input.steered"]
        assert receipt.entries[1].decode() == e.InputSteered(message_seq=receipt.seq)
        after = await s.again(store, at.session)
        assert (after.queued, after.state, after.wake_at_ms) == (at.session.queued, at.session.state, at.session.wake_at_ms)

    @pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
    @pytest.mark.parametrize("state", ["queued", "waiting"])
    async def test_interrupt_ends_a_turn_that_nobody_runs_and_goes_first(
        self, store: Store, state: str, strategy: Strategy
    ) -> None:
        at = await stage(store, state)
        usual = await s.send(store, at.session)
        receipt = await s.send(store, at.session, strategy=strategy)
        reason = "interrupted" if strategy == "interrupt" else "rolled_back"
        assert s.types(receipt.entries) == ["turn.cancelled", "message.received", "turn.queued"]
        ended = receipt.entries[0].decode()
        assert ended == e.TurnCancelled(reason=reason, by="message", rollback=strategy == "rollback")
        turn = await s.turn_of(store, at.session, at.turn_id)
        assert (turn.state, turn.reason, turn.ended_at_ms) == ("cancelled", reason, receipt.entries[0].at_ms)
        after = await s.again(store, at.session)
        assert (after.state, after.turn_id, after.queued, after.owner) == ("queued", None, 2, None)
        assert after.fence == at.session.fence + 1
        if at.approval:
            found = await store.get_approval(s.NAMESPACE, at.approval)
            assert found is not None
            assert (found[0].state, found[0].outcome) == ("cancelled", "cancelled")
        assert await order(store, at.session) == [receipt.turn_id, usual.turn_id]

    @pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
    async def test_interrupt_asks_the_worker_of_a_running_turn_to_end_it(self, store: Store, strategy: Strategy) -> None:
        at = await stage(store, "running")
        assert at.claimed is not None
        usual = await s.send(store, at.session)
        receipt = await s.send(store, at.session, strategy=strategy)
        assert s.types(receipt.entries) == ["turn.cancel_requested", "message.received", "turn.queued"]
        asked = receipt.entries[0].decode()
        assert isinstance(asked, e.TurnCancelRequested)
        assert asked.rollback == (strategy == "rollback")
        assert receipt.entries[0].turn_id == at.turn_id
        after = await s.again(store, at.session)
        assert (after.state, after.owner, after.fence, after.queued) == ("running", s.WORKER, at.session.fence, 2)
        change = TurnChange(at.turn_id, state="cancelled", reason="interrupted")
        await s.commit(store, s.append(at.claimed, e.TurnCancelled(reason="interrupted"), turn=change, hold="release"))
        assert await order(store, at.session) == [receipt.turn_id, usual.turn_id]

    @pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
    async def test_interrupt_wakes_a_running_turn_that_was_given_back(self, store: Store, strategy: Strategy) -> None:
        at = await stage(store, "given_back")
        assert await store.claim(s.WORKER, 1, Caps()) == []
        receipt = await s.send(store, at.session, strategy=strategy)
        claimed = await s.claim_one(store)
        assert (claimed.turn.turn_id, claimed.was) == (at.turn_id, "running")
        await s.finish(store, claimed)
        assert await order(store, at.session) == [receipt.turn_id]

    async def test_a_full_queue_refuses_all_but_what_makes_room(self, store: Store) -> None:
        at = await stage(store, "running")
        for _ in range(3):
            await s.send(store, at.session, queue_max=3)
        with pytest.raises(Throttled, match="queue_full") as raised:
            await s.send(store, at.session, queue_max=3)
        assert raised.value.retry_after_s is not None
        await s.send(store, at.session, strategy="steer", queue_max=3)
        await s.send(store, at.session, strategy="interrupt", queue_max=3)

    async def test_queued_turns_run_by_priority_then_in_order(self, store: Store) -> None:
        at = await stage(store, "running")
        assert at.claimed is not None
        sent = [await s.send(store, at.session) for _ in range(3)]
        first = await s.send(store, at.session, strategy="interrupt")
        await s.finish(store, at.claimed)
        assert await order(store, at.session) == [one.turn_id for one in (first, *sent)]

    @pytest.mark.parametrize("how", ["cancel", "interrupt", "rollback"])
    async def test_a_waiting_turn_that_was_steered_is_ended_by_its_worker_which_knows_what_was_not_seen(
        self, store: Store, how: str
    ) -> None:
        at = await stage(store, "waiting")
        await s.send(store, at.session, strategy="steer")
        await s.send(store, at.session, strategy="steer")
        assert (await s.turn_of(store, at.session, at.turn_id)).steered == 2
        if how == "cancel":
            await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id))
        else:
            await s.send(store, at.session, strategy="interrupt" if how == "interrupt" else "rollback")
        assert (await s.turn_of(store, at.session, at.turn_id)).state == "waiting"
        claimed = await s.claim_one(store, await s.register(store, "w2"))
        assert (claimed.turn.turn_id, claimed.was) == (at.turn_id, "waiting")
        assert "turn.cancel_requested" in s.types(await s.journal(store, at.session))
        approval = await store.get_approval(at.session.namespace, at.approval)
        assert approval is not None
        assert approval[0].state == ("open" if how == "cancel" else "cancelled")

    async def test_messages_steered_and_a_turn_ended_in_one_batch_agree(self, store: Store) -> None:
        at = await stage(store, "waiting")
        steer, cancel = s.message(at.session, strategy="steer"), CancelTurn(s.where(at.session), at.turn_id)
        for answer in await store.deliver([steer, s.message(at.session, strategy="steer"), cancel]):
            assert isinstance(answer, Receipt)
        row = await s.turn_of(store, at.session, at.turn_id)
        assert (row.steered, row.state) == (2, "waiting")
        assert (await s.again(store, at.session)).wake_at_ms is not None

    async def test_a_steering_message_that_came_too_late_becomes_a_turn_before_those_behind_it(self, store: Store) -> None:
        at = await stage(store, "running")
        assert at.claimed is not None
        steered = await s.send(store, at.session, strategy="steer")
        usual = await s.send(store, at.session)
        turn_id = s.fresh_id()
        payloads = (
            e.InputSteered(message_seq=steered.seq, state="requeued", turn=turn_id),
            e.TurnQueued(strategy="steer", message_seq=steered.seq, requeued_from=at.turn_id),
        )
        requeued = QueuedTurn(turn_id, steered.seq, "steer", "http")
        change = TurnChange(at.turn_id, state="completed", reason="answered")
        await s.commit(
            store, s.append(at.claimed, *payloads, e.TurnCompleted(), turn=change, queue=(requeued,), hold="release", if_last_seq=6)
        )
        turn = await s.turn_of(store, at.session, turn_id)
        assert (turn.state, turn.seq, turn.strategy, turn.source) == ("queued", steered.seq, "steer", "http")
        assert (await s.again(store, at.session)).queued == 2
        assert await order(store, at.session) == [turn_id, usual.turn_id]


class CancelSuite:
    """`CancelTurn` in every state."""

    @pytest.mark.parametrize("more", [0, 1])
    async def test_a_queued_turn_ends_at_once(self, store: Store, more: int) -> None:
        at = await stage(store, "queued")
        left = [(await s.send(store, at.session)).turn_id for _ in range(more)]
        receipt = await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id, by="ann"))
        assert receipt.entries[0].decode() == e.TurnCancelled(by="ann")
        turn = await s.turn_of(store, at.session, at.turn_id)
        assert (turn.state, turn.reason) == ("cancelled", "cancelled")
        after = await s.again(store, at.session)
        # Those that stay keep the session's place among the runnable ones.
        assert (after.state, after.queued, after.wake_at_ms) == (
            ("queued", 1, at.session.wake_at_ms) if more else ("idle", 0, None)
        )
        with pytest.raises(Conflict, match="turn_ended"):
            await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id))
        assert await order(store, at.session) == left

    async def test_a_turn_queued_behind_a_running_one_ends_without_disturbing_it(self, store: Store) -> None:
        at = await stage(store, "running")
        assert at.claimed is not None
        queued = await s.send(store, at.session)
        await s.deliver(store, CancelTurn(s.where(at.session), queued.turn_id))
        after = await s.again(store, at.session)
        assert (after.state, after.owner, after.fence, after.queued) == ("running", s.WORKER, at.session.fence, 0)
        await s.finish(store, at.claimed)
        assert await order(store, at.session) == []

    @pytest.mark.parametrize("more", [0, 1])
    async def test_a_waiting_turn_ends_and_what_is_queued_runs(self, store: Store, more: int) -> None:
        at = await stage(store, "waiting")
        assert at.claimed is not None
        left = [(await s.send(store, at.session)).turn_id for _ in range(more)]
        await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id))
        after = await s.again(store, at.session)
        assert (after.state, after.turn_id, after.queued) == ("queued" if more else "idle", None, more)
        assert after.fence == at.session.fence + 1
        found = await store.get_approval(s.NAMESPACE, at.approval)
        assert found is not None
        assert found[0].state == "open"
        with pytest.raises(FencedOut):
            await s.commit(store, s.append(at.claimed, STEP))
        assert await order(store, at.session) == left

    async def test_a_running_turn_is_asked_to_end(self, store: Store) -> None:
        at = await stage(store, "running")
        assert at.claimed is not None
        receipt = await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id))
        assert s.types(receipt.entries) == ["turn.cancel_requested"]
        after = await s.again(store, at.session)
        assert (after.state, after.owner, after.fence) == ("running", s.WORKER, at.session.fence)
        await s.finish(store, at.claimed)

    async def test_a_running_turn_that_was_given_back_is_woken_to_end(self, store: Store) -> None:
        at = await stage(store, "given_back")
        await s.deliver(store, CancelTurn(s.where(at.session), at.turn_id))
        assert (await s.claim_one(store)).turn.turn_id == at.turn_id
