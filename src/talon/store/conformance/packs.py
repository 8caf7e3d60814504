"""Journals whose rows hold several entries: reads begin, end and pass over within them, and stay bounded (K11)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from talon.domain import entries as e
from talon.store.conformance import support as s
from talon.store.model import Claimed
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
#: Types of a program that is not written yet; this one must hand them on as they are.
FUTURE = "garden.watered"


async def rows_of_five(store: Store) -> tuple[Claimed, list[e.Entry]]:
    """A journal of 2 + 4 × 5 entries in rows of five: two of the context, a step, a message, one of the future."""
    claimed = await s.running(store)
    turn_id = claimed.turn.turn_id
    for number in range(4):
        payloads = (
            e.ModelFinished(stop_reason="stop", content=f"{number}"),
            e.ToolRequested(call=number, call_id="", name="f", arguments="{}"),
            STEP,
            e.MessageCompleted(content=f"{number}"),
        )
        new = [e.new_entry(payload, turn_id) for payload in payloads]
        await s.commit(store, s.append(claimed, entries=(*new, e.NewEntry(FUTURE, b"\x00 any", turn_id))))
    return claimed, await s.journal(store, claimed)


class PackSuite:
    """Rows of several entries."""

    async def test_a_read_may_begin_and_end_anywhere(self, store: Store) -> None:
        claimed, entries = await rows_of_five(store)
        sid, end = claimed.session.sid, len(entries)
        for after in range(end + 1):
            for limit in (1, 2, 4, 5, 7, 100):
                assert await store.read_entries(sid, after, limit) == entries[after : after + limit]
            assert await store.read_turn(sid, claimed.turn.turn_id, after + 1) == entries[after:]
            assert (
                await store.read_messages(sid, after, 2) == [x for x in entries if x.seq > after and x.type in e.MESSAGE_TYPES][:2]
            )

    async def test_types_are_found_within_rows(self, store: Store) -> None:
        claimed, entries = await rows_of_five(store)
        for types in (
            ["step.finished"],
            ["model.finished", "message.completed"],
            [FUTURE],
            [FUTURE, "tool.requested"],
            ["no.such"],
        ):
            wanted = [entry for entry in entries if entry.type in types]
            for after in (0, 3, 5, 12, 22):
                for limit in (1, 3, 100):
                    found = await store.read_entries(claimed.session.sid, after, limit, types)
                    assert found == [entry for entry in wanted if entry.seq > after][:limit]

    async def test_a_context_may_end_anywhere(self, store: Store) -> None:
        claimed, entries = await rows_of_five(store)
        for before in range(1, len(entries) + 3):
            older = [entry for entry in entries if entry.seq < before and entry.type in e.CONTEXT_TYPES]
            for limit in (1, 3, 4, 100):
                assert await store.read_context(claimed.session.sid, before, limit) == older[-limit:]

    async def test_types_that_nobody_knows_yet_come_back_as_they_were_written(self, store: Store) -> None:
        claimed = await s.running(store)
        names = [FUTURE, "x", "tool.requested.again", *(f"future.n{number}" for number in range(70))]
        new = tuple(e.NewEntry(name, name.encode() + b"\xff", v=7, min_reader=1) for name in names)
        await s.commit(store, s.append(claimed, entries=new))
        found = (await s.journal(store, claimed))[2:]
        assert [(entry.type, entry.payload, entry.v) for entry in found] == [(one.type, one.payload, 7) for one in new]
        assert await store.read_entries(claimed.session.sid, 0, 10, ["future.n69"]) == [found[-1]]

    async def test_entries_of_one_row_may_differ_in_everything(self, store: Store) -> None:
        claimed = await s.running(store)
        own, other = claimed.turn.turn_id, s.fresh_id()
        new = (
            e.NewEntry("turn.completed", b"1", other, TRACE),
            e.NewEntry("tool.output", b"", "", "any text", v=2),
            e.NewEntry("tool.output", b"3", own, "", min_reader=0),
            e.NewEntry("tool.output", b"\x00" * 70_000, own, TRACE.upper()),
            e.NewEntry("tool.output", b"5", own, TRACE),
        )
        done = await s.commit(store, s.append(claimed, entries=new))
        written = [
            e.Entry(seq, one.type, one.payload, one.turn_id, done.at_ms, one.traceparent, one.v, one.min_reader)
            for seq, one in enumerate(new, 3)
        ]
        assert (await s.journal(store, claimed))[2:] == written
        assert (await store.read_turn(claimed.session.sid, own, 1))[2:] == written[2:]
        assert await store.read_turn(claimed.session.sid, other, 1) == written[:1]

    async def test_a_turn_is_named_by_a_uuid_and_by_nothing_else(self, store: Store) -> None:
        claimed = await s.running(store)
        raised: list[Exception] = []
        for wrong in ("t1", "01900000-0000-7000-8000-00000000000A", s.fresh_id().replace("-", "")):
            try:
                await store.commit([s.append(claimed, entries=(e.new_entry(STEP, wrong),))])
            except Exception as error:  # noqa: BLE001  each database has its own
                raised.append(error)
        assert len(raised) == 3
        assert len(await s.journal(store, claimed)) == 2

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_a_limit_may_cut_a_row_with_blobs(self, store: Store, limit: int) -> None:
        claimed = await s.running(store)
        payloads = [b"first", b"second", b"third"]
        digests = [await store.put_blob(s.NAMESPACE, payload) for payload in payloads]
        new = tuple(e.NewEntry("message.completed", b"", blob=digest) for digest in digests)
        await s.commit(store, s.append(claimed, entries=new))
        sid = claimed.session.sid
        assert [entry.payload for entry in await store.read_entries(sid, 2, limit)] == payloads[:limit]
        assert [entry.payload for entry in await store.read_messages(sid, 3, limit)] == payloads[1:][:limit]
        received, _ = await store.read_entries(sid, 0, 2)
        context = [received.payload, b"first", b"second"]
        assert [entry.payload for entry in await store.read_context(sid, 5, limit)] == context[-limit:]

    async def test_a_delivery_has_rows_of_its_own_between_those_of_the_worker(self, store: Store) -> None:
        claimed = await s.running(store)
        batch = [s.message(claimed.session, f"{number}", "steer") for number in range(3)]
        receipts = await store.deliver(batch)
        await s.commit(store, s.append(claimed, STEP, STEP))
        interrupting = await s.send(store, claimed.session, "stop", "interrupt")
        entries = await s.journal(store, claimed)
        told = [entry for receipt in (*receipts, interrupting) if not isinstance(receipt, Exception) for entry in receipt.entries]
        assert told == entries[2:8] + entries[10:]
        assert s.types(entries[10:]) == ["turn.cancel_requested", "message.received", "turn.queued"]


#: As many rows again as the one that is there, each like it.
LENGTHEN = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO journal (sid, last_seq, at_ms, types, pack)
SELECT j.sid, j.last_seq + n.i, j.at_ms, j.types, j.pack FROM n CROSS JOIN journal j WHERE j.sid = {sid} AND j.last_seq = {seq}"""
ROWS = 50_000


class LongJournalSuite:
    """The cost of a read does not grow with the journal (K11)."""

    async def test_tens_of_thousands_of_rows_without_a_word_are_not_read(self, store: Store, execute: s.Execute) -> None:
        claimed = await s.running(store)
        sid = claimed.session.sid
        await s.commit(store, s.append(claimed, STEP))

        async def reads() -> None:
            assert s.types(await store.read_context(sid, 1_000_000, 5)) == ["message.received"]
            assert s.types(await store.read_messages(sid, 0, 5)) == ["message.received"]
            assert await store.read_messages(sid, 1, 5) == []
            assert await store.read_context(sid, 1, 5) == []
            assert len(await store.read_entries(sid, 0, 3)) == 3

        short_s = await shortest(reads)
        await execute(LENGTHEN.format(rows=ROWS, sid=sid, seq=3))
        await execute(f"UPDATE sessions SET last_seq = {3 + ROWS} WHERE sid = {sid}")
        assert [entry.seq for entry in await store.read_entries(sid, 2 + ROWS, 10)] == [3 + ROWS]
        assert await shortest(reads) < 2 * short_s + 0.005

    async def test_a_read_costs_as_much_at_the_end_as_at_the_beginning(self, store: Store, execute: s.Execute) -> None:
        claimed = await s.running(store)
        sid = claimed.session.sid
        await s.commit(store, s.append(claimed, e.MessageCompleted(content="said")))
        await execute(LENGTHEN.format(rows=ROWS, sid=sid, seq=3))
        end = 3 + ROWS

        async def first() -> None:
            assert len(await store.read_context(sid, 100, 80)) == 80
            assert len(await store.read_entries(sid, 100, 80)) == 80
            assert len(await store.read_messages(sid, 100, 80)) == 80

        async def last() -> None:
            assert len(await store.read_context(sid, end, 80)) == 80
            assert len(await store.read_entries(sid, end - 80, 80)) == 80
            assert len(await store.read_messages(sid, end - 80, 80)) == 80

        assert await shortest(last) < 2 * await shortest(first) + 0.005


async def shortest(work: Callable[[], Awaitable[None]]) -> float:
    """The best of several runs, in seconds: what it takes when nothing else is in the way."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    for _ in range(10):
        start = loop.time()
        await work()
        times.append(loop.time() - start)
    return min(times)
