"""K9: asked once, done once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from talon.domain.errors import Conflict
from talon.domain.inbox import CancelTurn, DeleteSession, Key, Receipt
from talon.store.conformance import support as s
from talon.store.model import Caps
from talon.store.paging import KEY_KEEP_MS
from talon.store.protocols import Store

KEY = Key("http", "key-1", "aa")


def replay(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(receipt, replayed=True, entries=(), claimed=None)


class KeySuite:
    """Idempotency keys."""

    async def test_the_same_request_gets_its_first_receipt(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        first = await s.send(store, session, key=KEY)
        assert not first.replayed
        for handle in (store, second):
            assert await s.send(handle, session, key=KEY) == replay(first)
        assert len(await s.journal(store, session)) == 2
        claimed = await s.claim_one(store, await s.register(store))
        await s.finish(store, claimed)
        assert await s.send(store, session, key=KEY) == replay(first)

    async def test_a_steering_receipt_names_the_turn_it_joined_for_ever(self, store: Store) -> None:
        claimed = await s.running(store)
        first = await s.send(store, claimed.session, strategy="steer", key=KEY)
        await s.finish(store, claimed)
        assert await s.send(store, claimed.session, strategy="steer", key=KEY) == replay(first)
        assert first.turn_id == claimed.turn.turn_id

    async def test_another_body_under_the_key_is_a_conflict(self, store: Store) -> None:
        session = await s.create(store)
        await s.send(store, session, key=KEY)
        with pytest.raises(Conflict, match="idempotency_conflict") as raised:
            await s.send(store, session, key=msgspec.structs.replace(KEY, body_sha256="bb"))
        assert "key-1" in raised.value.detail
        assert len(await s.journal(store, session)) == 2

    async def test_a_key_belongs_to_its_namespace_and_source(self, store: Store) -> None:
        here, there = await s.create(store), await s.create(store, namespace="acme:eu")
        keys = [(here, KEY), (there, KEY), (here, msgspec.structs.replace(KEY, source="schedule"))]
        receipts = [await s.send(store, session, key=key) for session, key in keys]
        assert [receipt.replayed for receipt in receipts] == [False] * 3
        assert len({receipt.turn_id for receipt in receipts}) == 3

    async def test_the_same_key_for_another_session_of_the_namespace_is_replayed(self, store: Store) -> None:
        # The body's digest covers the place it was sent to; where it does not, the first receipt is the answer.
        here, other = await s.create(store), await s.create(store, "s2")
        first = await s.send(store, here, key=KEY)
        assert await s.send(store, other, key=KEY) == replay(first)
        assert await s.journal(store, other) == []

    async def test_one_batch_with_the_same_request_twice_writes_it_once(self, store: Store) -> None:
        session = await s.create(store)
        other = msgspec.structs.replace(KEY, body_sha256="bb")
        answers = await store.deliver([s.message(session, key=KEY), s.message(session, key=KEY), s.message(session, key=other)])
        assert isinstance(answers[0], Receipt)
        assert answers[1] == replay(answers[0])
        assert isinstance(answers[2], Conflict)
        assert len(await s.journal(store, session)) == 2

    async def test_many_at_once_make_one_turn(self, store: Store, second: Store) -> None:
        sessions = [await s.create(store, f"s{number}") for number in range(4)]
        jobs = [
            handle.deliver([s.message(session, key=Key("http", session.id, "aa")) for session in order])
            for _ in range(5)
            for handle, order in ((store, sessions), (second, sessions[::-1]))
        ]
        answers = [answer for batch in await asyncio.wait_for(asyncio.gather(*jobs), 60) for answer in batch]
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        assert len(receipts) == len(answers) == 40
        assert len([receipt for receipt in receipts if not receipt.replayed]) == 4
        assert len({(receipt.sid, receipt.seq, receipt.turn_id) for receipt in receipts}) == 4
        assert [len(await s.journal(store, session)) for session in sessions] == [2] * 4

    async def test_many_bodies_at_once_under_one_key_make_one_turn(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        jobs = [(store, second)[n % 2].deliver([s.message(session, key=Key("http", "k", f"{n}"))]) for n in range(10)]
        answers = [answer for (answer,) in await asyncio.wait_for(asyncio.gather(*jobs), 60)]
        assert len([answer for answer in answers if isinstance(answer, Receipt)]) == 1
        assert len([answer for answer in answers if isinstance(answer, Conflict)]) == 9
        assert len(await s.journal(store, session)) == 2

    async def test_what_was_refused_leaves_no_key(self, store: Store) -> None:
        claimed = await s.running(store)
        with pytest.raises(Conflict, match="session_busy"):
            await s.send(store, claimed.session, strategy="reject", key=KEY)
        await s.finish(store, claimed)
        assert not (await s.send(store, claimed.session, strategy="reject", key=KEY)).replayed

    async def test_other_operations_have_keys_too(self, store: Store) -> None:
        session = await s.create(store)
        turn_id = (await s.send(store, session)).turn_id
        cancel = CancelTurn(s.where(session), turn_id, key=KEY)
        first = await s.deliver(store, cancel)
        assert await s.deliver(store, cancel) == replay(first)

    async def test_a_key_outlives_its_session(self, store: Store) -> None:
        session = await s.create(store)
        first = await s.send(store, session, key=KEY)
        await s.deliver(store, DeleteSession(s.where(session)))
        assert await s.send(store, session, key=KEY) == replay(first)
        new = await s.create(store)
        assert await s.send(store, new, key=KEY) == replay(first)
        assert await store.claim(await s.register(store), 1, Caps()) == []

    @pytest.mark.parametrize(
        ("age_ms", "known"), [(24 * 3_600_000, True), (KEY_KEEP_MS - 60_000, True), (KEY_KEEP_MS + 60_000, False)]
    )
    async def test_keys_are_forgotten_after_their_time_and_no_earlier(
        self, store: Store, execute: s.Execute, age_ms: int, known: bool
    ) -> None:
        session = await s.create(store)
        await s.send(store, session, key=KEY)
        await execute(f"UPDATE keys SET at_ms = at_ms - {age_ms}")
        await store.collect_blobs()
        assert (await s.send(store, session, key=KEY)).replayed == known
