"""Sessions that begin in the transaction that accepts their first message."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from talon.domain import entries as e
from talon.domain.errors import NotFound, Throttled
from talon.domain.inbox import Creation, DeleteSession, Key, Message, Receipt
from talon.domain.session import SessionRow
from talon.store.conformance import support as s
from talon.store.conformance.resources import put
from talon.store.protocols import Store
from talon.store.resources import Changes

STEP = e.StepFinished(step="look", decision="go on")


async def agent(store: Store) -> int:
    """The agent, newly made; -> its revision."""
    await s.ensure(store, ("", "Namespace", s.NAMESPACE))
    await store.change(Changes(puts=(put(s.AGENT, 0, b"{}", effective=b"{}", digest="d"),)))
    return 1


def first(revision: int, name: str = "new", **more: Any) -> Message:
    """The first message of a session."""
    creation = Creation(s.fresh_id(), revision)
    return Message(where=(s.NAMESPACE, s.AGENT, name), content="hello", turn_id=s.fresh_id(), creation=creation, **more)


class CreationSuite:
    """Deliver, to a session that is not there."""

    async def test_the_session_and_its_first_turn_are_one_commit(self, store: Store, second: Store) -> None:
        message = first(await agent(store))
        receipt = await s.deliver(store, message)
        row = await second.get_session(message.where)
        assert row is not None
        assert message.creation is not None
        assert (row.sid, row.uid, row.key_id, row.metadata) == (receipt.sid, message.creation.uid, s.NAMESPACE, b"{}")
        assert (row.state, row.first_seq, row.last_seq, row.queued, row.wake_at_ms) == ("queued", 1, 2, 1, row.created_at_ms)
        assert s.types(await s.journal(second, row)) == ["message.received", "turn.queued"]
        claimed = await s.claim_one(store, await s.register(store))
        assert (claimed.session.sid, claimed.turn.turn_id) == (row.sid, receipt.turn_id)

    async def test_it_is_the_session_that_create_session_makes(self, store: Store) -> None:
        message = first(await agent(store))
        await s.deliver(store, message)
        made = await store.get_session(message.where)
        plain = await s.create(store, "plain")
        assert made is not None
        await s.send(store, plain)
        other = await s.again(store, plain)
        same = {"sid": 0, "uid": "", "id": "", "created_at_ms": 0, "updated_at_ms": 0, "wake_at_ms": 0}
        assert msgspec.structs.replace(made, **same) == msgspec.structs.replace(other, **same)

    async def test_one_that_exists_is_used_as_it_is(self, store: Store) -> None:
        revision, session = await agent(store), await s.create(store, "new")
        receipt = await s.deliver(store, first(revision))
        assert (receipt.sid, receipt.session_uid, receipt.seq) == (session.sid, session.uid, 1)

    async def test_two_first_messages_make_one_session(self, store: Store, second: Store) -> None:
        revision = await agent(store)
        answers = await store.deliver([first(revision), first(revision)])
        one, two = [answer for answer in answers if isinstance(answer, Receipt)]
        assert (two.sid, two.session_uid, two.seq) == (one.sid, one.session_uid, 3)
        messages = [first(revision, "raced") for _ in range(2)]
        raced = await asyncio.gather(s.deliver(store, messages[0]), s.deliver(second, messages[1]))
        assert len({receipt.session_uid for receipt in raced}) == 1
        assert sorted(receipt.seq for receipt in raced) == [1, 3]

    async def test_another_revision_or_no_agent_creates_nothing(self, store: Store) -> None:
        async def refused(revision: int) -> None:
            message = first(revision)
            with pytest.raises(NotFound) as refusal:
                await s.deliver(store, message)
            assert refusal.value.code == "session_not_found"
            assert await store.get_session(message.where) is None

        await refused(1)
        await refused(await agent(store) + 1)

    async def test_a_name_that_was_taken_before_is_left_to_create_session(self, store: Store) -> None:
        revision, session = await agent(store), await s.create(store, "new")
        await s.deliver(store, DeleteSession(s.where(session)))
        with pytest.raises(NotFound):
            await s.deliver(store, first(revision))

    async def test_a_refusal_leaves_no_session(self, store: Store) -> None:
        message = first(await agent(store), queue_max=0)
        with pytest.raises(Throttled):
            await s.deliver(store, message)
        assert await store.get_session(message.where) is None

    async def test_its_turn_may_start_at_once(self, store: Store) -> None:
        revision, worker = await agent(store), await s.register(store)

        def start(message: Message, before: SessionRow, newest: int) -> tuple[e.NewEntry, ...]:
            begun = e.TurnStarted(agent=before.agent, revision=newest, worker=worker, fence=before.fence + 1)
            return (e.new_entry(begun, message.turn_id),)

        receipt = await s.deliver(store, first(revision, offer=worker, start=start))
        assert receipt.claimed is not None
        row, turn = receipt.claimed
        assert row == await s.again(store, row)
        assert turn == await s.turn_of(store, row, receipt.turn_id)
        assert (row.state, row.owner, row.fence, turn.state) == ("running", worker, 1, "running")
        await s.commit(store, s.append(row, STEP))

    async def test_its_key_gives_the_same_receipt_again(self, store: Store) -> None:
        message = first(await agent(store), key=Key("http", "k", "body"))
        receipt = await s.deliver(store, message)
        again = await s.deliver(store, msgspec.structs.replace(message, creation=Creation(s.fresh_id(), 1)))
        assert (again.replayed, again.sid, again.session_uid) == (True, receipt.sid, receipt.session_uid)
