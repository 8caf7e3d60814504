"""What is read from the journal, fragments and blobs."""

from __future__ import annotations

import pytest

from talon.domain import entries as e
from talon.domain.content import ImagePart, TextPart
from talon.store.conformance import support as s
from talon.store.model import Claimed, Fragment, NewSession
from talon.store.paging import BLOB_KEEP_MS
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


async def conversation(store: Store, turns: int) -> list[Claimed]:
    """A session with `turns` ended turns, each: received, queued, step, finished model, completed message, end."""
    session = await s.create(store)
    worker = await s.register(store)
    claimed: list[Claimed] = []
    for number in range(turns):
        await s.send(store, session, f"question {number}")
        one = await s.claim_one(store, worker)
        await s.commit(store, s.append(one, STEP, e.ModelFinished(stop_reason="stop")))
        await s.finish(store, one)
        claimed.append(one)
    return claimed


class ReadSuite:
    """Entries."""

    async def test_entries_come_after_a_seq_ascending_limited_and_by_type(self, store: Store) -> None:
        sid = (await conversation(store, 3))[0].session.sid
        assert [entry.seq for entry in await store.read_entries(sid, 0, 4)] == [1, 2, 3, 4]
        assert [entry.seq for entry in await store.read_entries(sid, 4, 3)] == [5, 6, 7]
        assert [entry.seq for entry in await store.read_entries(sid, 16, 100)] == [17, 18]
        assert await store.read_entries(sid, 18, 100) == []
        ends = await store.read_entries(sid, 6, 100, ["turn.completed", "turn.failed"])
        assert [(entry.seq, entry.type) for entry in ends] == [(12, "turn.completed"), (18, "turn.completed")]
        assert [entry.seq for entry in await store.read_entries(sid, 0, 1, ["turn.completed"])] == [6]

    async def test_an_unknown_session_has_no_entries(self, store: Store) -> None:
        assert await store.read_entries(4_711, 0, 10) == []
        assert await store.read_context(4_711, 100, 10) == []
        assert await store.read_messages(4_711, 0, 10) == []
        assert await store.read_turn(4_711, "none", 1) == []
        assert await store.read_fragments(4_711, 1) == []

    async def test_a_turn_is_read_without_the_entries_of_others(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.send(store, claimed.session, "the next one")
        await s.commit(store, s.append(claimed, STEP))
        steered = await s.send(store, claimed.session, "listen", "steer")
        turn_id = claimed.turn.turn_id
        entries = await store.read_turn(claimed.session.sid, turn_id, claimed.turn.seq)
        assert [(entry.seq, entry.type) for entry in entries] == [
            (1, "message.received"),
            (2, "turn.queued"),
            (5, "step.finished"),
            (steered.seq, "message.received"),
            (steered.seq + 1, "input.steered"),
        ]
        assert {entry.turn_id for entry in entries} == {turn_id}
        assert [entry.seq for entry in await store.read_turn(claimed.session.sid, turn_id, 1, after=2)] == [5, 6, 7]
        assert [entry.seq for entry in await store.read_turn(claimed.session.sid, turn_id, 6, after=2)] == [6, 7]

    async def test_context_is_the_last_entries_of_its_types_before_a_seq_ascending(self, store: Store) -> None:
        sid = (await conversation(store, 5))[0].session.sid
        everything = [entry for entry in await store.read_entries(sid, 0, 1_000) if entry.type in e.CONTEXT_TYPES]
        assert await store.read_context(sid, 31, 100) == everything
        assert await store.read_context(sid, 31, 4) == everything[-4:]
        assert await store.read_context(sid, 13, 4) == [entry for entry in everything if entry.seq < 13][-4:]
        assert await store.read_context(sid, 1, 4) == []

    async def test_every_context_type_is_in_the_context(self, store: Store) -> None:
        claimed = await s.running(store)
        kinds = sorted(e.PAYLOADS)
        await s.commit(store, s.append(claimed, entries=tuple(e.NewEntry(kind, b"{}") for kind in kinds)))
        assert s.types(await store.read_context(claimed.session.sid, 1_000, 100))[1:] == [k for k in kinds if k in e.CONTEXT_TYPES]
        assert s.types(await store.read_messages(claimed.session.sid, 2, 100)) == [k for k in kinds if k in e.MESSAGE_TYPES]

    async def test_messages_are_what_was_said_and_answered(self, store: Store) -> None:
        sid = (await conversation(store, 3))[0].session.sid
        messages = await store.read_messages(sid, 0, 100)
        assert s.types(messages) == ["message.received", "message.completed"] * 3
        assert await store.read_messages(sid, messages[1].seq, 3) == messages[2:5]

    async def test_tails_are_those_of_the_sessions_that_exist(self, store: Store) -> None:
        first, second = await s.create(store, "s1"), await s.create(store, "s2")
        await s.send(store, second)
        assert dict(await store.tails([first.sid, second.sid, 4_711])) == {first.sid: 0, second.sid: 2}
        assert dict(await store.tails([])) == {}


class FragmentSuite:
    """Streamed text before it is an entry."""

    async def test_fragments_come_back_by_kind_and_offset(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.commit(store, s.append(claimed, STEP, fragments=(Fragment(3, 0, "nul \x00"), Fragment(3, 0, "hm", "reasoning"))))
        later = (Fragment(3, 11, "🦅"), Fragment(3, 5, "naïve "), Fragment(4, 0, "another call"), Fragment(3, 2, "…", "reasoning"))
        await s.commit(store, s.append(claimed, fragments=later))
        assert await store.read_fragments(claimed.session.sid, 3) == [
            Fragment(3, 0, "hm", "reasoning"),
            Fragment(3, 2, "…", "reasoning"),
            Fragment(3, 0, "nul \x00"),
            Fragment(3, 5, "naïve "),
            Fragment(3, 11, "🦅"),
        ]
        assert await store.read_fragments(claimed.session.sid, 4) == [Fragment(4, 0, "another call")]

    async def test_a_fragment_that_is_written_twice_is_there_once(self, store: Store) -> None:
        claimed = await s.running(store)
        for _ in range(2):
            await s.commit(store, s.append(claimed, fragments=(Fragment(2, 0, "once"),)))
        assert await store.read_fragments(claimed.session.sid, 2) == [Fragment(2, 0, "once")]

    async def test_they_go_with_the_entry_that_holds_their_text(self, store: Store) -> None:
        claimed = await s.running(store)
        await s.commit(
            store, s.append(claimed, fragments=(Fragment(2, 0, "a"), Fragment(2, 0, "r", "reasoning"), Fragment(9, 0, "b")))
        )
        await s.commit(store, s.append(claimed, e.MessageCompleted(content="a", model_seq=2), drop_fragments=(2,)))
        assert await store.read_fragments(claimed.session.sid, 2) == []
        assert await store.read_fragments(claimed.session.sid, 9) == [Fragment(9, 0, "b")]

    async def test_what_comes_with_that_entry_goes_with_it(self, store: Store) -> None:
        claimed = await s.running(store)
        last = s.append(
            claimed, e.MessageCompleted(content="a", model_seq=2), fragments=(Fragment(2, 0, "a"),), drop_fragments=(2,)
        )
        await s.commit(store, last)
        assert await store.read_fragments(claimed.session.sid, 2) == []


class BlobSuite:
    """Large payloads."""

    async def test_a_blob_payload_is_filled_in_wherever_entries_are_read(self, store: Store) -> None:
        claimed = await s.running(store)
        payload = e.new_entry(e.MessageCompleted(content="x\x00" * 50_000)).payload
        digest = await store.put_blob(s.NAMESPACE, payload)
        turn_id = claimed.turn.turn_id
        small, large = e.new_entry(STEP, turn_id), e.NewEntry("message.completed", b"", turn_id, blob=digest)
        await s.commit(store, s.append(claimed, entries=(large, small, large)))
        sid = claimed.session.sid
        reads = (
            await store.read_entries(sid, 2, 10, ["message.completed"]),
            await store.read_turn(sid, turn_id, 1, after=2),
            await store.read_context(sid, 100, 2),
            await store.read_messages(sid, 2, 10),
        )
        for entries in reads:
            assert [entry.payload for entry in entries if entry.type == "message.completed"] == [payload, payload]

    async def test_imported_history_may_lie_in_blobs(self, store: Store) -> None:
        payload = e.new_entry(e.MessageReceived(content="y" * 100_000, imported=True)).payload
        digest = await store.put_blob(s.NAMESPACE, payload)
        history = (e.NewEntry("message.received", b"", blob=digest),)
        await s.ensure_agent(store)
        session, _ = await store.create_session(NewSession(s.fresh_id(), s.NAMESPACE, s.AGENT, "s1", history=history))
        assert [entry.payload for entry in await store.read_messages(session.sid, 0, 10)] == [payload]

    async def test_putting_a_blob_twice_gives_one_digest_and_namespaces_share_none(self, store: Store) -> None:
        digest = await store.put_blob("acme", b"same")
        assert await store.put_blob("acme", b"same") == digest
        assert await store.put_blob("acme:eu", b"same") != digest
        assert await store.put_blob("acme", b"other") != digest

    async def test_the_digest_of_another_namespace_gives_nothing(self, store: Store) -> None:
        claimed = await s.running(store)
        digest = await store.put_blob("other", b"secret")
        await s.commit(store, s.append(claimed, entries=(e.NewEntry("message.completed", b"", blob=digest),)))
        assert (await store.read_messages(claimed.session.sid, 2, 10))[0].payload == b""

    async def test_images_live_as_long_as_the_entries_that_speak_of_them(self, store: Store, execute: s.Execute) -> None:
        claimed = await s.running(store)
        sid = claimed.session.sid
        digests = [await store.put_blob(s.NAMESPACE, data) for data in (b"sent", b"steered", b"nobody's")]
        parts = [(TextPart("see"), ImagePart("image/png", 4, digest)) for digest in digests[:2]]
        await s.deliver(store, s.message(claimed.session, parts[0]))
        await s.commit(store, s.append(claimed, e.MessageReceived(content=parts[1])))
        await execute(f"UPDATE blobs SET put_at_ms = put_at_ms - {BLOB_KEEP_MS + 60_000}")
        assert await store.collect_blobs() == 1
        assert await store.read_blobs(sid, digests) == {digests[0]: b"sent", digests[1]: b"steered"}
        other = await store.put_blob("other", b"sent")
        assert await store.read_blobs(sid, [other]) == {}
        assert await store.read_blobs(sid, []) == {}
        messages = [one.decode() for one in await store.read_messages(sid, 0, 10)]
        assert [one.content for one in messages if isinstance(one, e.MessageReceived)][1:] == parts

    @pytest.mark.parametrize(("age_ms", "collected"), [(BLOB_KEEP_MS - 60_000, 0), (BLOB_KEEP_MS + 60_000, 2)])
    async def test_blobs_without_a_reference_are_collected_after_a_day(
        self, store: Store, execute: s.Execute, age_ms: int, collected: int
    ) -> None:
        claimed = await s.running(store)
        kept = await store.put_blob(s.NAMESPACE, b"kept")
        await s.commit(store, s.append(claimed, entries=(e.NewEntry("message.completed", b"", blob=kept),)))
        for payload in (b"orphan 1", b"orphan 2", b"put again"):
            await store.put_blob(s.NAMESPACE, payload)
        await execute(f"UPDATE blobs SET put_at_ms = put_at_ms - {age_ms}")
        await store.put_blob(s.NAMESPACE, b"put again")
        assert await store.collect_blobs() == collected
        assert await store.collect_blobs() == 0
        assert (await store.read_messages(claimed.session.sid, 2, 10))[0].payload == b"kept"
