"""Fenced appends: K2, K3, and the answer of a commit."""

from __future__ import annotations

import asyncio

import pytest

from talon.domain import entries as e
from talon.domain.errors import Behind, FencedOut
from talon.store.conformance import support as s
from talon.store.model import Append, Appended, Caps, Claimed, Fragment, NewApproval, QueuedTurn, TurnChange
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


async def everything(store: Store, claimed: Claimed) -> tuple[object, ...]:
    """All that an append could change."""
    sid = claimed.session.sid
    approvals, _ = await store.list_approvals(claimed.session.namespace, "", "", 100)
    return (
        await store.get_session_by_sid(sid),
        await store.list_turns(sid, "", 100),
        approvals,
        await store.read_fragments(sid, 2),
        await s.journal(store, claimed),
    )


def greedy(claimed: Claimed, **more: object) -> Append:
    """An append that changes everything that an append can change."""
    turn_id = claimed.turn.turn_id
    fields: dict[str, object] = {
        "turn": TurnChange(turn_id, state="failed", reason="stolen", loop=b'{"phase":"done"}', input_tokens=9, progress=True),
        "queue": (QueuedTurn(s.fresh_id(), 1, "steer", "http"),),
        "fragments": (Fragment(2, 7, "stolen"),),
        "drop_fragments": (2,),
        "approvals": (NewApproval(s.fresh_id(), turn_id, 2, "uncertain", b"{}"),),
        "cancel_approvals": True,
        "hold": "release",
        "drained": True,
    }
    return s.append(claimed, STEP, **(fields | more))


async def prepared(store: Store) -> Claimed:
    """A running turn with a fragment and an open approval."""
    claimed = await s.running(store)
    opened = NewApproval(s.fresh_id(), claimed.turn.turn_id, 1, "uncertain", b"{}")
    await s.commit(store, s.append(claimed, STEP, fragments=(Fragment(2, 0, "kept"),), approvals=(opened,)))
    return claimed


class JournalSuite:
    """Commit."""

    async def test_entries_are_numbered_without_a_gap_and_come_back_as_written(self, store: Store) -> None:
        claimed = await s.running(store)
        raw = e.NewEntry("step.finished", b'{"a":"\x00\\u0000 \xff\xfe"}', claimed.turn.turn_id, "00-ab-cd-01", v=3, min_reader=1)
        words = "naïve 🦅 \u2028 \x00 \x7f"
        other = e.new_entry(e.ToolOutput(call=1, text=words), claimed.turn.turn_id)
        done = await s.commit(store, s.append(claimed, entries=(raw, other)))
        assert done == Appended(claimed.session.sid, 2, done.at_ms)
        entries = await s.journal(store, claimed)
        assert s.types(entries) == ["message.received", "turn.queued", "step.finished", "tool.output"]
        assert entries[2] == e.Entry(3, raw.type, raw.payload, raw.turn_id, done.at_ms, raw.traceparent, 3, 1)
        decoded = entries[3].decode()
        assert isinstance(decoded, e.ToolOutput)
        assert decoded.text == words
        assert (await s.again(store, claimed.session)).last_seq == 4

    async def test_an_empty_batch_is_answered_with_nothing(self, store: Store) -> None:
        assert await store.commit([]) == []

    async def test_a_batch_writes_to_many_sessions_and_answers_in_order(self, store: Store) -> None:
        worker = await s.register(store)
        for number in range(20):
            await s.send(store, await s.create(store, f"s{number}"))
        claimed = await store.claim(worker, 20, Caps())
        answers = await store.commit([s.append(one, *[STEP] * (index % 3 + 1)) for index, one in enumerate(reversed(claimed))])
        assert [answer.sid for answer in answers if isinstance(answer, Appended)] == [one.session.sid for one in reversed(claimed)]
        assert all(isinstance(answer, Appended) and answer.base == 2 for answer in answers)
        for index, one in enumerate(reversed(claimed)):
            assert len(await s.journal(store, one)) == 2 + index % 3 + 1

    async def test_two_appends_to_one_session_in_a_batch_are_a_mistake_and_write_nothing(self, store: Store) -> None:
        claimed = await s.running(store)
        with pytest.raises(ValueError, match=str(claimed.session.sid)):
            await store.commit([s.append(claimed, STEP), s.append(claimed, STEP)])
        assert len(await s.journal(store, claimed)) == 2

    async def test_an_unknown_session_is_fenced_out_and_the_others_are_durable(self, store: Store) -> None:
        claimed = await s.running(store)
        unknown = s.append(claimed, STEP, sid=claimed.session.sid + 1_000)
        answers = await store.commit([unknown, s.append(claimed, STEP)])
        assert isinstance(answers[0], FencedOut)
        assert isinstance(answers[1], Appended)
        assert len(await s.journal(store, claimed)) == 3

    @pytest.mark.parametrize("change", [-1, 1])
    async def test_another_fence_changes_nothing_at_all(self, store: Store, change: int) -> None:
        claimed = await prepared(store)
        before = await everything(store, claimed)
        (answer,) = await store.commit([greedy(claimed, fence=claimed.session.fence + change)])
        assert isinstance(answer, FencedOut)
        assert await everything(store, claimed) == before

    async def test_a_worker_that_was_taken_over_changes_nothing_at_all(self, store: Store, second: Store) -> None:
        old = await prepared(store)
        await store.retire(s.WORKER)
        new = await s.claim_one(second, await s.register(second, "w2"))
        assert new.session.fence == old.session.fence + 1
        before = await everything(second, new)
        (answer,) = await store.commit([greedy(old)])
        assert isinstance(answer, FencedOut)
        assert await everything(second, new) == before
        await s.commit(second, s.append(new, STEP))

    @pytest.mark.parametrize("hold", ["release", "park", "give_back"])
    async def test_a_worker_that_has_let_go_of_a_session_writes_no_more(self, store: Store, hold: str) -> None:
        claimed = await prepared(store)
        await s.commit(store, s.append(claimed, STEP, hold=hold))
        before = await everything(store, claimed)
        (answer,) = await store.commit([greedy(claimed)])
        assert isinstance(answer, FencedOut)
        assert await everything(store, claimed) == before

    async def test_behind_writes_nothing_and_the_rest_of_the_batch_is_durable(self, store: Store) -> None:
        worker = await s.register(store)
        for name in ("s1", "s2"):
            await s.send(store, await s.create(store, name))
        first, other = await store.claim(worker, 2, Caps())
        await s.send(store, first.session, "one more")
        before = await everything(store, first)
        answers = await store.commit([greedy(first, if_last_seq=2), s.append(other, STEP, if_last_seq=2)])
        assert isinstance(answers[0], Behind)
        assert isinstance(answers[1], Appended)
        assert await everything(store, first) == before
        assert len(await s.journal(store, other)) == 3
        await s.commit(store, s.append(first, STEP, if_last_seq=4))

    async def test_what_the_database_refuses_raises_for_the_whole_batch_which_wrote_nothing(self, store: Store) -> None:
        worker = await s.register(store)
        for name in ("s1", "s2"):
            await s.send(store, await s.create(store, name))
        good, bad = await store.claim(worker, 2, Caps())
        refused = e.NewEntry("step.finished", b"{}", v=2**70)
        raised: BaseException | None = None
        try:
            await store.commit([s.append(good, STEP), s.append(bad, entries=(refused,))])
        except Exception as error:  # noqa: BLE001  each database has its own
            raised = error
        assert raised is not None
        assert [len(await s.journal(store, one)) for one in (good, bad)] == [2, 2]
        await s.commit(store, s.append(good, STEP))


class RepeatSuite:
    """An append whose answer was lost is sent again: written once, answered the same."""

    async def test_at_once(self, store: Store) -> None:
        claimed = await prepared(store)
        one = greedy(claimed, hold="keep", turn=None)
        first = await s.commit(store, one)
        state = await everything(store, claimed)
        assert await s.commit(store, one) == first
        assert await everything(store, claimed) == state

    @pytest.mark.parametrize("hold", ["release", "park", "give_back"])
    async def test_after_it_let_go_of_the_session(self, store: Store, hold: str) -> None:
        claimed = await prepared(store)
        one = greedy(claimed, hold=hold, if_last_seq=3)
        first = await s.commit(store, one)
        state = await everything(store, claimed)
        assert await s.commit(store, one) == first
        assert await everything(store, claimed) == state

    async def test_after_other_entries_followed(self, store: Store) -> None:
        claimed = await s.running(store)
        one = s.append(claimed, STEP, STEP, if_last_seq=2)
        first = await s.commit(store, one)
        await s.send(store, claimed.session)
        await s.commit(store, s.append(claimed, STEP))
        assert await s.commit(store, one) == first
        assert len(await s.journal(store, claimed)) == 7

    async def test_after_somebody_else_took_the_session(self, store: Store, second: Store) -> None:
        claimed = await s.running(store)
        one = s.append(claimed, STEP)
        first = await s.commit(store, one)
        await store.retire(s.WORKER)
        await s.claim_one(second, await s.register(second, "w2"))
        assert await s.commit(store, one) == first
        assert len(await s.journal(store, claimed)) == 3

    async def test_beside_a_new_append_of_another_session_in_the_batch(self, store: Store) -> None:
        worker = await s.register(store)
        for name in ("s1", "s2"):
            await s.send(store, await s.create(store, name))
        first, other = await store.claim(worker, 2, Caps())
        one = s.append(first, STEP)
        done = await s.commit(store, one)
        answers = await store.commit([one, s.append(other, STEP)])
        assert answers[0] == done
        assert isinstance(answers[1], Appended)
        assert [len(await s.journal(store, claimed)) for claimed in (first, other)] == [3, 3]

    async def test_from_two_connections_at_once(self, store: Store, second: Store) -> None:
        claimed = await s.running(store)
        for number in range(10):
            one = s.append(claimed, STEP)

            async def attempt(handle: Store, one: Append = one) -> Appended:
                # A database may refuse the loser of the race instead of answering it; asked again it must know.
                try:
                    return await s.commit(handle, one)
                except FencedOut:
                    raise
                except Exception:  # noqa: BLE001
                    return await s.commit(handle, one)

            answers = await asyncio.gather(attempt(store), attempt(second))
            assert answers[0] == answers[1]
            assert len(await s.journal(store, claimed)) == 3 + number

    async def test_an_append_without_entries_changes_nothing_more(self, store: Store) -> None:
        claimed = await s.running(store)
        change = TurnChange(claimed.turn.turn_id, loop=b'{"phase":"deciding"}', input_tokens=5)
        one = s.append(claimed, fragments=(Fragment(2, 0, "a"), Fragment(2, 1, "b")), turn=change)
        await s.commit(store, one)
        state = await everything(store, claimed)
        await s.commit(store, one)
        after = await everything(store, claimed)
        assert after[1:] == state[1:]


class GaplessSuite:
    """K3 under load."""

    async def test_commits_and_deliveries_from_two_connections_leave_no_gap_and_no_double(
        self, store: Store, second: Store
    ) -> None:
        claimed = [await s.running(store, f"s{number}") for number in range(4)]

        async def work(handle: Store, one: Claimed) -> list[tuple[int, int]]:
            spans: list[tuple[int, int]] = []
            for number in range(15):
                done = await s.commit(handle, s.append(one, *[STEP] * (number % 3 + 1)))
                spans.append((done.base, number % 3 + 1))
            return spans

        async def talk(handle: Store, one: Claimed) -> list[tuple[int, int]]:
            return [((await s.send(handle, one.session)).seq - 1, 2) for _ in range(15)]

        jobs = (
            [work(store, one) for one in claimed] + [talk(second, one) for one in claimed] + [talk(store, one) for one in claimed]
        )
        spans = await asyncio.gather(*jobs)
        for index, one in enumerate(claimed):
            assert len(await s.journal(store, one)) == 2 + 15 * 2 + 2 * 15 * 2
            mine = sorted(span for group in spans[index :: len(claimed)] for span in group)
            position = 2
            for base, length in mine:
                assert base == position
                position += length
            assert (await s.again(store, one.session)).queued == 30

    async def test_overlapping_batches_in_any_order_do_not_lock_each_other_out(self, store: Store, second: Store) -> None:
        claimed = [await s.running(store, f"s{number}") for number in range(8)]

        async def hammer(handle: Store, order: list[Claimed]) -> None:
            for _ in range(20):
                answers = await handle.commit([s.append(one, STEP) for one in order])
                assert all(isinstance(answer, Appended) for answer in answers)

        async def chatter(handle: Store, order: list[Claimed]) -> None:
            for _ in range(10):
                answers = await handle.deliver([s.message(one.session) for one in order])
                assert not [answer for answer in answers if isinstance(answer, Exception)]

        await asyncio.wait_for(
            asyncio.gather(
                hammer(store, claimed),
                hammer(second, claimed[::-1]),
                chatter(store, claimed[::-1]),
                chatter(second, claimed),
            ),
            60,
        )
        for one in claimed:
            assert len(await s.journal(store, one)) == 2 + 40 + 2 * 10 * 2

    async def test_a_long_append_is_recognised_behind_newer_ones(self, store: Store) -> None:
        claimed = await s.running(store)
        long = s.append(claimed, *[STEP] * 1_000, if_last_seq=2)
        first = await s.commit(store, long)
        done = await s.commit(store, s.append(claimed, STEP))
        assert (first.base, done.base) == (2, 1_002)
        assert await s.commit(store, long) == first
        assert len(await s.journal(store, claimed)) == 1_003
