"""Inbox operations: what a delivery writes, and what its `admit` sees."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from talon.domain import entries as e
from talon.domain.errors import Conflict, FencedOut, NotFound
from talon.domain.inbox import (
    CancelTurn,
    Claim,
    DeleteSession,
    InboxWrite,
    Message,
    NewTurn,
    OnSession,
    Receipt,
    ResolveApproval,
    View,
)
from talon.domain.session import SessionRow
from talon.store.conformance import support as s
from talon.store.conformance.resources import put
from talon.store.model import Caps, NewApproval
from talon.store.protocols import Store
from talon.store.resources import Changes

STEP = e.StepFinished(step="look", decision="go on")


class Probe(OnSession, frozen=True):
    """An operation that shows what it is given and writes what it is told."""

    where: tuple[str, str, str]
    seen: list[View]
    write: InboxWrite = InboxWrite()
    needs_turns: bool = True
    approval: str = ""
    raises: type[Exception] | None = None

    def admit(self, view: View) -> InboxWrite:
        self.seen.append(view)
        if self.raises is not None:
            raise self.raises("a mistake")
        return self.write


def resolve(session: SessionRow, approval: str, outcome: str = "done", result: str = "") -> ResolveApproval:
    return ResolveApproval(s.where(session), approval, outcome, result, by="ann")


class InboxSuite:
    """Deliver."""

    async def test_an_accepted_message_is_durable_with_its_turn_and_its_wakeup(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        receipt = await s.send(store, session, "grüß dich \x00 🦅", source="cli", metadata={"a": 1}, traceparent="00-1-2-01")
        received, queued = await s.journal(second, session)
        assert receipt == Receipt(session.sid, session.uid, 1, receipt.turn_id, "enqueue", entries=(received, queued))
        assert (received.type, received.turn_id, received.traceparent) == ("message.received", receipt.turn_id, "00-1-2-01")
        decoded = received.decode()
        assert isinstance(decoded, e.MessageReceived)
        assert (decoded.content, decoded.source, decoded.metadata) == ("grüß dich \x00 🦅", "cli", {"a": 1})
        assert queued.decode() == e.TurnQueued(message_seq=1)
        turn = await s.turn_of(second, session, receipt.turn_id)
        assert (turn.state, turn.seq, turn.strategy, turn.source, turn.attempts) == ("queued", 1, "enqueue", "cli", 0)
        assert (turn.created_at_ms, turn.started_at_ms, turn.ended_at_ms) == (received.at_ms, None, None)
        row = await s.again(second, session)
        assert (row.state, row.queued, row.last_seq, row.wake_at_ms, row.turn_id) == ("queued", 1, 2, received.at_ms, None)
        assert await second.next_wake_ms() == 0

    async def test_an_empty_batch_is_answered_with_nothing(self, store: Store) -> None:
        assert await store.deliver([]) == []

    async def test_a_session_that_is_not_there_is_not_found(self, store: Store) -> None:
        session = await s.create(store)
        deleted = await s.create(store, "deleted")
        await s.deliver(store, DeleteSession(s.where(deleted)))
        places = [("acme", "support", "none"), ("acme", "other", "s1"), ("acme:eu", "support", "s1"), s.where(deleted)]
        answers = await store.deliver(
            [s.message(msgspec.structs.replace(session, namespace=n, agent=a, id=i)) for n, a, i in places]
        )
        assert [answer.code for answer in answers if isinstance(answer, NotFound)] == ["session_not_found"] * 4

    async def test_operations_of_a_batch_see_each_other_in_order(self, store: Store) -> None:
        session = await s.create(store)
        first, second, third = s.message(session), s.message(session), s.message(session)
        cancel = CancelTurn(s.where(session), first.turn_id)
        answers = await store.deliver([first, second, cancel, third])
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        assert [receipt.seq for receipt in receipts] == [1, 3, 5, 6]
        entries = await s.journal(store, session)
        assert s.types(entries) == [*["message.received", "turn.queued"] * 2, "turn.cancelled", "message.received", "turn.queued"]
        behind = [payload.behind for payload in (entry.decode() for entry in entries) if isinstance(payload, e.TurnQueued)]
        assert behind[0] is None
        assert behind[1] == e.Behind(first.turn_id, "queued", "", 1)
        assert behind[2] == e.Behind(second.turn_id, "queued", "", 1)
        assert (await s.again(store, session)).queued == 2

    async def test_one_that_is_refused_writes_nothing_and_hinders_nobody(self, store: Store) -> None:
        session, other = await s.create(store), await s.create(store, "s2")
        batch = [s.message(session), s.message(session, strategy="reject"), s.message(other), CancelTurn(s.where(other), "none")]
        answers = await store.deliver(batch)
        assert [type(answer) for answer in answers] == [Receipt, Conflict, Receipt, Conflict]
        assert [getattr(answer, "code", "") for answer in answers] == ["", "session_busy", "", "turn_ended"]
        assert [len(await s.journal(store, one)) for one in (session, other)] == [2, 2]

    async def test_a_mistake_in_an_operation_raises_and_the_batch_wrote_nothing(self, store: Store) -> None:
        session = await s.create(store)
        with pytest.raises(ZeroDivisionError):
            await store.deliver([s.message(session), Probe(s.where(session), [], raises=ZeroDivisionError)])
        assert await s.journal(store, session) == []
        assert (await s.again(store, session)).state == "idle"

    async def test_a_view_shows_the_open_turns_by_queue_order_the_current_one_first(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.commit(store, s.append(claimed, STEP))
        usual = await s.send(store, claimed.session)
        urgent = await s.send(store, claimed.session, strategy="interrupt")
        late = await s.send(store, claimed.session)
        before = await s.again(store, claimed.session)
        probe = Probe(s.where(claimed.session), [])
        await s.deliver(store, probe)
        (view,) = probe.seen
        assert [turn.turn_id for turn in view.turns] == [claimed.turn.turn_id, urgent.turn_id, usual.turn_id, late.turn_id]
        assert view.turns[0] == await s.turn_of(store, claimed.session, claimed.turn.turn_id)
        assert view.session == before
        assert view.approval is None

    async def test_a_view_has_turns_and_an_approval_only_where_they_are_asked_for(self, store: Store) -> None:
        claimed = await s.running(store)
        approval = s.fresh_id()
        await s.park(store, claimed, approval=approval)
        probe = Probe(s.where(claimed.session), [], needs_turns=False, approval=approval)
        await s.deliver(store, probe)
        assert probe.seen[0].turns == ()
        found = probe.seen[0].approval
        assert found is not None
        assert (found.id, found.state, found.turn_id, found.call) == (approval, "open", claimed.turn.turn_id, 1)

    async def test_all_parts_of_a_write_are_one(self, store: Store) -> None:
        claimed = await s.running(store)
        approval = s.fresh_id()
        await s.park(store, claimed, approval=approval)
        session, turn_id = await s.again(store, claimed.session), s.fresh_id()
        entries = (e.new_entry(STEP), e.new_entry(e.MessageReceived(content="x"), turn_id))
        write = InboxWrite(entries, queue=(NewTurn(turn_id, 1, "enqueue", "test", 7),), wake=True, turn_id=turn_id, message=1)
        receipt = await s.deliver(store, Probe(s.where(session), [], write))
        assert (receipt.seq, receipt.turn_id) == (session.last_seq + 2, turn_id)
        turn = await s.turn_of(store, session, turn_id)
        assert (turn.seq, turn.priority, turn.source) == (receipt.seq, 7, "test")
        row = await s.again(store, session)
        assert (row.state, row.queued, row.fence) == ("waiting", 1, session.fence)
        assert row.wake_at_ms is not None


class OfferSuite:
    """A message that starts in the commit that accepts it."""

    def offered(self, session: SessionRow, worker: str) -> Message:
        def start(message: Message, before: SessionRow, revision: int) -> tuple[e.NewEntry, ...] | None:
            begun = e.TurnStarted(agent="support", revision=revision, worker=worker, fence=before.fence + 1)
            return (e.new_entry(begun, message.turn_id),) if message.content != "unready" else None

        return s.message(session, turn_id=s.fresh_id(), offer=worker, start=start)

    async def test_an_idle_session_is_claimed_at_once(self, store: Store) -> None:
        session, worker = await s.create(store), await s.register(store)
        (receipt,) = await store.deliver([self.offered(session, worker)])
        assert isinstance(receipt, Receipt)
        assert receipt.claimed is not None
        row, turn = receipt.claimed
        assert row == await s.again(store, session)
        assert turn == await s.turn_of(store, session, receipt.turn_id)
        assert (row.state, row.owner, row.fence, row.turn_id, row.queued) == ("running", worker, 1, turn.turn_id, 0)
        assert row.wake_at_ms is None
        assert (turn.state, turn.attempts, turn.started_at_ms) == ("running", 1, turn.created_at_ms)
        assert s.types(await s.journal(store, session)) == ["message.received", "turn.queued", "turn.started"]
        assert await store.owned(worker) == [(session.sid, 1)]
        assert await store.claim(worker, 5, Caps()) == []
        await s.commit(store, s.append(row, STEP))

    async def test_the_turn_starts_on_the_newest_revision_of_its_agent(self, store: Store) -> None:
        session, worker = await s.create(store), await s.register(store)
        for generation, digest in enumerate(("one", "two"), 1):
            await store.change(Changes(puts=(put(session.agent, generation, b"%d" % generation, effective=b"{}", digest=digest),)))
        receipt = await s.deliver(store, self.offered(session, worker))
        assert receipt.claimed is not None
        assert receipt.claimed[1].revision == 2
        (begun,) = [p for entry in receipt.entries if isinstance(p := entry.decode(), e.TurnStarted)]
        assert begun.revision == 2
        assert (await s.turn_of(store, session, receipt.turn_id)).revision == 2

    async def test_a_worker_that_cannot_start_it_leaves_it_queued(self, store: Store) -> None:
        session, worker = await s.create(store), await s.register(store)
        unready = msgspec.structs.replace(self.offered(session, worker), content="unready")
        receipt = await s.deliver(store, unready)
        assert receipt.claimed is None
        row = await s.again(store, session)
        assert (row.state, row.owner, row.queued) == ("queued", None, 1)

    async def test_a_busy_session_is_queued(self, store: Store) -> None:
        claimed = await s.running(store)
        (receipt,) = await store.deliver([self.offered(claimed.session, s.WORKER)])
        assert isinstance(receipt, Receipt)
        assert receipt.claimed is None
        assert (await s.turn_of(store, claimed.session, receipt.turn_id)).state == "queued"
        await s.commit(store, s.append(claimed, STEP))

    async def test_a_claim_outdates_the_fence_before(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.finish(store, claimed)
        (receipt,) = await store.deliver([self.offered(claimed.session, s.WORKER)])
        assert isinstance(receipt, Receipt)
        with pytest.raises(FencedOut):
            await s.commit(store, s.append(claimed, STEP))

    async def test_the_claim_of_a_worker_that_is_gone_is_swept(self, store: Store) -> None:
        session = await s.create(store)
        turn_id = s.fresh_id()
        received = e.new_entry(e.MessageReceived(content="x"), turn_id)
        write = InboxWrite((received,), (NewTurn(turn_id, 0, "enqueue", "http"),), claim=Claim("nobody/1", turn_id))
        await s.deliver(store, Probe(s.where(session), [], write))
        assert (await s.again(store, session)).owner == "nobody/1"
        assert await store.sweep() == 1
        claimed = await s.claim_one(store, await s.register(store))
        assert (claimed.was, claimed.turn.turn_id, claimed.session.fence) == ("running", turn_id, 2)


class ApprovalSuite:
    """Deciding."""

    async def waiting(self, store: Store) -> tuple[SessionRow, str]:
        claimed = await s.running(store)
        approval = s.fresh_id()
        await s.park(store, claimed, approval=approval)
        return await s.again(store, claimed.session), approval

    async def test_a_decision_closes_the_approval_and_wakes_the_turn(self, store: Store) -> None:
        session, approval = await self.waiting(store)
        assert await store.next_wake_ms() is None
        receipt = await s.deliver(store, resolve(session, approval, "done", "paid \x00"))
        assert receipt.seq == session.last_seq + 1
        found = await store.get_approval(session.namespace, approval)
        assert found is not None
        assert (found[0].state, found[0].outcome, found[0].resolved_by) == ("resolved", "done", "ann")
        assert found[0].resolved_at_ms == receipt.entries[0].at_ms
        row = await s.again(store, session)
        assert (row.state, row.fence, row.turn_id) == ("waiting", session.fence, session.turn_id)
        claimed = await s.claim_one(store)
        assert (claimed.was, claimed.turn.turn_id, claimed.turn.state) == ("waiting", session.turn_id, "running")

    async def test_only_the_first_of_many_decisions_counts(self, store: Store, second: Store) -> None:
        session, approval = await self.waiting(store)
        outcomes = ("done", "failed", "retry", "done")
        jobs = [handle.deliver([resolve(session, approval, outcome)]) for handle in (store, second) for outcome in outcomes]
        answers = [answer for (answer,) in await asyncio.gather(*jobs)]
        assert len([answer for answer in answers if isinstance(answer, Receipt)]) == 1
        assert {answer.code for answer in answers if isinstance(answer, Conflict)} == {"approval_closed"}
        assert s.types(await s.journal(store, session)).count("approval.resolved") == 1

    async def test_an_approval_of_another_session_is_not_found(self, store: Store) -> None:
        session, approval = await self.waiting(store)
        other = await s.create(store, "s2")
        elsewhere = await s.create(store, "s1", namespace="acme:eu")
        answers = await store.deliver([resolve(other, approval), resolve(elsewhere, approval), resolve(session, "none")])
        assert [answer.code for answer in answers if isinstance(answer, NotFound)] == ["approval_not_found"] * 3

    async def test_a_decision_after_the_turn_was_cancelled_wakes_nobody(self, store: Store) -> None:
        session, approval = await self.waiting(store)
        await s.deliver(store, CancelTurn(s.where(session), session.turn_id or ""))
        found = await store.get_approval(session.namespace, approval)
        assert found is not None
        assert found[0].state == "open"
        await s.deliver(store, resolve(session, approval))
        assert (await s.again(store, session)).state == "idle"
        assert await store.next_wake_ms() is None

    async def test_an_append_opens_approvals_after_it_cancelled_the_old_ones(self, store: Store) -> None:
        claimed = await s.running(store)
        turn_id = claimed.turn.turn_id
        old, new = (NewApproval(s.fresh_id(), turn_id, call, "uncertain", b'{"a":"\x00"}') for call in (1, 2))
        await s.commit(store, s.append(claimed, STEP, approvals=(old,)))
        done = await s.commit(store, s.append(claimed, STEP, approvals=(new,), cancel_approvals=True))
        newest, oldest = [row for row, _ in (await store.list_approvals(s.NAMESPACE, "", "", 10))[0]]
        assert (newest.id, newest.state, newest.outcome, newest.payload) == (new.id, "open", "", new.payload)
        assert (oldest.id, oldest.state, oldest.outcome, oldest.resolved_at_ms) == (old.id, "cancelled", "cancelled", done.at_ms)


class DeleteSuite:
    """Tombstones and incarnations."""

    async def test_a_deleted_session_is_gone_by_name_and_keeps_its_journal(self, store: Store) -> None:
        session = await s.create(store)
        first, second = await s.send(store, session), await s.send(store, session)
        receipt = await s.deliver(store, DeleteSession(s.where(session)))
        assert (receipt.strategy, s.types(receipt.entries)) == ("delete", ["turn.cancelled", "turn.cancelled"])
        assert await store.get_session(s.where(session)) is None
        row = await s.again(store, session)
        assert (row.state, row.queued, row.wake_at_ms, row.turn_id) == ("idle", 0, None, None)
        assert row.deleted_at_ms == receipt.entries[0].at_ms
        for turn_id in (first.turn_id, second.turn_id):
            turn = await s.turn_of(store, session, turn_id)
            assert (turn.state, turn.reason, turn.ended_at_ms) == ("cancelled", "deleted", row.deleted_at_ms)
        assert len(await s.journal(store, session)) == 6
        assert await store.claim(await s.register(store), 5, Caps()) == []

    async def test_a_new_session_of_the_name_is_a_new_incarnation_that_counts_on(self, store: Store) -> None:
        old = await s.create(store)
        await s.send(store, old)
        await s.deliver(store, DeleteSession(s.where(old)))
        new = await s.create(store)
        assert (new.sid != old.sid, new.uid != old.uid, new.first_seq, new.last_seq) == (True, True, 4, 3)
        assert (await s.send(store, new)).seq == 4
        assert [entry.seq for entry in await s.journal(store, new)] == [4, 5]
        assert await store.get_session(s.where(old)) == await s.again(store, new)
        await s.deliver(store, DeleteSession(s.where(new)))
        assert (await s.create(store)).first_seq == 7

    async def test_the_worker_of_a_deleted_session_writes_the_end_into_its_own_incarnation(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.deliver(store, DeleteSession(s.where(claimed.session)))
        new = await s.create(store)
        await s.send(store, new)
        entries = await s.journal(store, claimed)
        assert entries[-1].decode() == e.TurnCancelRequested(reason="deleted", by="http")
        await s.finish(store, claimed)
        old = await s.again(store, claimed.session)
        assert (old.state, old.owner, old.turn_id) == ("idle", None, None)
        assert old.deleted_at_ms is not None
        assert old.last_seq < new.first_seq
        assert len(await s.journal(store, claimed)) == 5
        assert len(await s.journal(store, new)) == 2

    async def test_the_turn_of_a_deleted_session_whose_worker_died_is_ended_by_another(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.deliver(store, DeleteSession(s.where(claimed.session)))
        await store.retire(s.WORKER)
        again = await s.claim_one(store, await s.register(store, "w2"))
        assert again.session.sid == claimed.session.sid
        await s.finish(store, again)

    async def test_a_waiting_turn_ends_with_its_session_and_its_approval(self, store: Store) -> None:
        claimed = await s.running(store)
        approval = s.fresh_id()
        await s.park(store, claimed, approval=approval)
        await s.deliver(store, DeleteSession(s.where(claimed.session)))
        assert (await s.turn_of(store, claimed.session, claimed.turn.turn_id)).state == "cancelled"
        found = await store.get_approval(s.NAMESPACE, approval)
        assert found is not None
        assert (found[0].state, found[0].outcome) == ("cancelled", "cancelled")
        assert await store.next_wake_ms() is None
