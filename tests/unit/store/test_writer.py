"""The journal writer over a real SQLite store, through a wrapper that makes the database fail as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from support.stores import in_file
from talon.cli.system import SystemClock
from talon.domain import entries as e
from talon.domain.errors import Behind, Conflict, Defect, FencedOut, Unavailable
from talon.domain.inbox import Key, Operation, Receipt
from talon.store.conformance import support as s
from talon.store.model import Append, Appended, Caps, Claimed, Fragment
from talon.store.paging import BLOB_MIN_BYTES
from talon.store.protocols import Journal
from talon.store.sqlite import SqliteStore
from talon.store.writer import APPENDS_MAX, Committed, JournalWriter

STEP = e.StepFinished(step="look", decision="go on")
AWAY = Unavailable("database_unavailable", "away")
CLOCK = SystemClock()


@dataclass
class Faults:
    """A journal that fails as it is told, before the real one or after it (the answer is lost). `batches` is what it was given."""

    real: SqliteStore
    before: list[BaseException] = field(default_factory=list[BaseException])
    after: list[BaseException] = field(default_factory=list[BaseException])
    poison: Callable[[Any], bool] = lambda _: False
    batches: list[list[Any]] = field(default_factory=list[list[Any]])
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def writer(self, publish: Callable[[Sequence[Committed]], None] = lambda _: None, **more: Any) -> JournalWriter:
        """A writer on this journal; it reads nothing, so that part is not here."""
        return JournalWriter(cast(Journal, self), publish, **more)

    async def reached(self, count: int) -> None:
        """Wait until `count` batches have come."""

        async def come() -> bool:
            return len(self.batches) >= count

        await s.until(come)

    async def commit(self, batch: Sequence[Append]) -> list[Appended | Exception]:
        return await self._through(batch, self.real.commit)

    async def deliver(self, batch: Sequence[Operation]) -> list[Receipt | Exception]:
        return await self._through(batch, self.real.deliver)

    async def put_blob(self, namespace: str, payload: bytes) -> str:
        if self.before:
            raise self.before.pop(0)
        return await self.real.put_blob(namespace, payload)

    async def _through(self, batch: Sequence[Any], real: Any) -> Any:
        self.batches.append(list(batch))
        await self.gate.wait()
        if self.before:
            raise self.before.pop(0)
        if any(self.poison(op) for op in batch):
            raise ValueError("the database refuses this")
        answers = await real(batch)
        if self.after:
            raise self.after.pop(0)
        return answers


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with in_file(SqliteStore, tmp_path) as opened:
        yield opened


@pytest.fixture
def faults(store: SqliteStore) -> Faults:
    return Faults(store)


@pytest.fixture
def heard() -> list[Committed]:
    return []


@pytest.fixture
async def writer(faults: Faults, heard: list[Committed]) -> AsyncIterator[JournalWriter]:
    made = faults.writer(heard.extend, retry_for_s=2.0)
    await made.start()
    yield made
    faults.gate.set()
    await made.close()


async def claimed_sessions(store: SqliteStore, count: int) -> list[Claimed]:
    worker = await s.register(store)
    for number in range(count):
        await s.send(store, await s.create(store, f"s{number}"))
    return await store.claim(worker, count, Caps())


async def settled(*tasks: asyncio.Task[Any]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)


def start(writer: JournalWriter, *appends: Append) -> list[asyncio.Task[Appended]]:
    return [asyncio.create_task(writer.append(one)) for one in appends]


async def test_what_comes_while_a_commit_is_under_way_is_one_commit(
    store: SqliteStore, faults: Faults, writer: JournalWriter
) -> None:
    claimed = await claimed_sessions(store, 8)
    faults.gate.clear()
    first = start(writer, s.append(claimed[0], STEP))
    await faults.reached(1)
    others = start(writer, *(s.append(one, STEP) for one in claimed[1:]))
    await asyncio.sleep(0)
    faults.gate.set()
    answers = await settled(*first, *others)
    assert all(isinstance(answer, Appended) and answer.base == 2 for answer in answers)
    assert [len(batch) for batch in faults.batches] == [1, 7]


async def test_one_session_has_one_append_in_a_batch_and_its_order_is_kept(
    store: SqliteStore, faults: Faults, writer: JournalWriter
) -> None:
    one, other = await claimed_sessions(store, 2)
    appends = [s.append(one, STEP), s.append(one, STEP, STEP), s.append(other, STEP), s.append(one, STEP)]
    answers = await settled(*start(writer, *appends))
    assert [answer.base for answer in answers] == [2, 3, 2, 5]
    assert [[append.id for append in batch] for batch in faults.batches] == [
        [appends[0].id, appends[2].id],
        [appends[1].id],
        [appends[3].id],
    ]


async def test_a_batch_has_a_most(store: SqliteStore, faults: Faults, writer: JournalWriter) -> None:
    (one,) = await claimed_sessions(store, 1)
    # Sessions that nobody knows: each is answered, and the limit is on what is asked.
    appends = [s.append(one, STEP, sid=1_000 + number) for number in range(APPENDS_MAX + 10)]
    answers = await settled(*start(writer, *appends))
    assert all(isinstance(answer, FencedOut) for answer in answers)
    assert [len(batch) for batch in faults.batches] == [APPENDS_MAX, 10]


async def test_each_caller_gets_its_own_answer(store: SqliteStore, writer: JournalWriter) -> None:
    good, old, behind = await claimed_sessions(store, 3)
    appends = [s.append(good, STEP), s.append(old, STEP, fence=7), s.append(behind, STEP, if_last_seq=1)]
    answers = await settled(*start(writer, *appends))
    assert [type(answer) for answer in answers] == [Appended, FencedOut, Behind]


@pytest.mark.parametrize("culprit", range(7))
async def test_a_batch_that_fails_is_parted_until_the_culprit_fails_alone(
    store: SqliteStore, faults: Faults, writer: JournalWriter, culprit: int
) -> None:
    claimed = await claimed_sessions(store, 7)
    appends = [s.append(one, STEP) for one in claimed]
    faults.poison = lambda op: op.id == appends[culprit].id
    answers = await settled(*start(writer, *appends))
    assert [type(answer) for answer in answers] == [ValueError if index == culprit else Appended for index in range(7)]
    assert len(faults.batches) <= 2 * 3 + 1
    for index, one in enumerate(claimed):
        assert len(await s.journal(store, one)) == (2 if index == culprit else 3)


async def test_the_order_of_one_sessions_messages_survives_parting(
    store: SqliteStore, faults: Faults, writer: JournalWriter
) -> None:
    session = await s.create(store)
    messages = [s.message(session, f"m{number}") for number in range(6)]
    faults.poison = lambda op: op.content == "m2"
    answers = await settled(*(asyncio.create_task(writer.deliver(one)) for one in messages))
    assert [answer.seq for answer in answers if isinstance(answer, Receipt)] == [1, 3, 5, 7, 9]
    assert isinstance(answers[2], ValueError)


async def test_a_lost_answer_is_found_out_and_written_once(
    store: SqliteStore, faults: Faults, writer: JournalWriter, heard: list[Committed]
) -> None:
    claimed = await claimed_sessions(store, 3)
    faults.after += [AWAY, AWAY]
    answers = await settled(*start(writer, *(s.append(one, STEP, hold="release") for one in claimed)))
    assert [answer.base for answer in answers] == [2, 2, 2]
    assert [len(await s.journal(store, one)) for one in claimed] == [3, 3, 3]
    assert [one.base for one in heard] == [2, 2, 2]


async def test_a_database_that_comes_back_is_waited_for(store: SqliteStore, faults: Faults, writer: JournalWriter) -> None:
    (one,) = await claimed_sessions(store, 1)
    faults.before += [AWAY] * 3
    assert (await asyncio.wait_for(writer.append(s.append(one, STEP)), 10)).base == 2
    assert len(faults.batches) == 4


async def test_a_database_that_stays_away_is_told_to_all_and_the_writer_lives_on(store: SqliteStore, faults: Faults) -> None:
    writer = faults.writer(retry_for_s=0.2)
    await writer.start()
    claimed = await claimed_sessions(store, 3)
    faults.before += [AWAY] * 100
    answers = await settled(*start(writer, *(s.append(one, STEP) for one in claimed)))
    assert answers == [AWAY] * 3
    assert {len(batch) for batch in faults.batches} == {3}
    faults.before.clear()
    assert writer.alive
    assert (await writer.append(s.append(claimed[0], STEP))).base == 2
    await writer.close()


async def test_a_requester_is_told_at_once_that_the_database_is_away(
    store: SqliteStore, faults: Faults, writer: JournalWriter
) -> None:
    session = await s.create(store)
    faults.before.append(AWAY)
    with pytest.raises(Unavailable):
        await writer.deliver(s.message(session))
    assert len(faults.batches) == 1
    # Asked again under its key, also after a lost answer, it is done once.
    faults.after.append(AWAY)
    message = s.message(session, key=Key("http", "k", "aa"))
    with pytest.raises(Unavailable):
        await writer.deliver(message)
    assert (await writer.deliver(message)).replayed
    assert len(await s.journal(store, session)) == 2


async def test_a_caller_that_goes_away_does_not_take_its_append_back(
    store: SqliteStore, faults: Faults, writer: JournalWriter, heard: list[Committed]
) -> None:
    claimed = await claimed_sessions(store, 3)
    faults.gate.clear()
    flying = start(writer, s.append(claimed[0], STEP))
    await faults.reached(1)
    waiting = start(writer, s.append(claimed[1], STEP), s.append(claimed[2], STEP))
    await asyncio.sleep(0)
    flying[0].cancel()
    waiting[0].cancel()
    await asyncio.sleep(0)
    faults.gate.set()
    answers = await settled(*flying, *waiting)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError, asyncio.CancelledError, Appended]
    assert [len(await s.journal(store, one)) for one in claimed] == [3, 3, 3]
    assert sorted(one.sid for one in heard) == [one.session.sid for one in claimed]


async def test_appends_and_deliveries_do_not_wait_for_each_other(store: SqliteStore, faults: Faults, writer: JournalWriter) -> None:
    (one,) = await claimed_sessions(store, 1)
    faults.gate.clear()
    append = start(writer, s.append(one, STEP))
    delivery = asyncio.create_task(writer.deliver(s.message(one.session)))
    await faults.reached(2)
    faults.gate.set()
    assert {type(answer) for answer in await settled(*append, delivery)} == {Appended, Receipt}


async def test_who_does_not_wait_is_told_once_when_it_is_durable(
    store: SqliteStore, faults: Faults, writer: JournalWriter, heard: list[Committed]
) -> None:
    (one,) = await claimed_sessions(store, 1)
    told: list[Appended | Exception] = []
    piece, stranger = Fragment(3, 0, "hello"), s.append(one, fragments=(Fragment(3, 0, "no"),), sid=1_000)
    faults.gate.clear()
    writer.put(s.append(one, fragments=(piece,)), told.append)
    writer.put(stranger, told.append)
    await faults.reached(1)
    assert not told
    faults.gate.set()
    await settled(*start(writer, s.append(one, STEP)))
    assert isinstance(told[0], Appended)
    assert isinstance(told[1], FencedOut)
    assert [commit.fragments for commit in heard] == [(piece,), ()]
    await writer.close()
    writer.put(s.append(one, fragments=(piece,)), told.append)
    assert isinstance(told[2], Unavailable)
    assert len(told) == 3


async def test_listeners_hear_what_is_durable_as_it_was_written(
    store: SqliteStore, writer: JournalWriter, heard: list[Committed]
) -> None:
    (one,) = await claimed_sessions(store, 1)
    session = one.session
    piece = Fragment(3, 0, "hello")
    await writer.append(s.append(one, STEP, STEP, fragments=(piece,)))
    await writer.append(s.append(one, fragments=(piece,)))
    await writer.deliver(s.message(session, strategy="interrupt"))
    steer = await writer.deliver(s.message(session, strategy="steer", key=Key("http", "k", "aa")))
    await writer.deliver(s.message(session, strategy="steer", key=Key("http", "k", "aa")))
    await writer.append(s.append(one, STEP, hold="release"))
    entries = await s.journal(store, session)
    assert heard == [
        Committed(session.sid, 2, tuple(entries[2:4]), (piece,), False),
        Committed(session.sid, 4, (), (piece,), False),
        Committed(session.sid, 4, tuple(entries[4:7]), (), True),
        Committed(session.sid, 7, tuple(entries[7:9]), (), False),
        Committed(session.sid, 9, tuple(entries[9:]), (), True),
    ]
    assert steer.seq == 8


async def test_large_payloads_go_to_blobs_first_and_listeners_hear_them_whole(
    store: SqliteStore, faults: Faults, writer: JournalWriter, heard: list[Committed]
) -> None:
    (one,) = await claimed_sessions(store, 1)
    small = e.new_entry(STEP, one.turn.turn_id, "00-1-2-01")
    exact = e.NewEntry("tool.output", b"x" * BLOB_MIN_BYTES, s.fresh_id(), v=2)
    large = e.NewEntry("tool.output", b"y" * (BLOB_MIN_BYTES + 1), s.fresh_id(), "00-3-4-01", 2, 1)
    faults.before.append(AWAY)
    spilled = await writer.spill(s.NAMESPACE, [small, exact, large])
    assert spilled[:2] == (small, exact)
    assert spilled[2].payload == b""
    assert spilled[2].blob
    await writer.append(s.append(one, entries=spilled))
    entries = await s.journal(store, one)
    assert [entry.payload for entry in entries[2:]] == [small.payload, exact.payload, large.payload]
    assert heard[-1].entries == tuple(entries[2:])
    assert (entries[4].v, entries[4].traceparent) == (2, "00-3-4-01")


async def test_a_large_message_goes_to_a_blob_first_and_everybody_hears_it_whole(
    store: SqliteStore, faults: Faults, writer: JournalWriter, heard: list[Committed]
) -> None:
    session = await s.create(store)
    small, large = "\U0001f980" * (BLOB_MIN_BYTES // 4 - 100), "\U0001f980" * (BLOB_MIN_BYTES // 4 + 1)
    for content in (small, large):
        receipt = await writer.deliver(s.message(session, content))
        received, _ = receipt.entries
        assert received.decode() == e.MessageReceived(content=content)
        assert heard[-1].entries == receipt.entries
    written = [op.entry("") for batch in faults.batches for op in batch]
    assert [bool(new.blob) for new in written] == [False, True]
    assert written[1].payload == b""
    assert [entry.decode() for entry in await store.read_messages(session.sid, 0, 10)] == [
        e.MessageReceived(content=small),
        e.MessageReceived(content=large),
    ]


async def test_a_listener_that_fails_does_not_stop_the_writing(
    store: SqliteStore, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Sequence[Committed]) -> None:
        raise RuntimeError("a listener's mistake")

    writer = faults.writer(broken)
    await writer.start()
    (one,) = await claimed_sessions(store, 1)
    assert [(await writer.append(s.append(one, STEP))).base for _ in range(2)] == [2, 3]
    assert writer.alive
    assert "a listener's mistake" in caplog.text
    await writer.close()


@pytest.mark.parametrize("how", ["a store that answers too little", "killed"])
async def test_a_dead_writer_leaves_nobody_waiting(store: SqliteStore, faults: Faults, how: str) -> None:
    claimed = await claimed_sessions(store, 2)

    async def nothing(batch: Sequence[Append]) -> list[Appended | Exception]:
        await faults.gate.wait()
        return []

    faults.gate.clear()
    faults.commit = nothing
    writer = faults.writer()
    await writer.start()
    assert writer.alive
    flying = start(writer, s.append(claimed[0], STEP))
    await asyncio.sleep(0)
    pending = start(writer, s.append(claimed[0], STEP), s.append(claimed[1], STEP))
    await asyncio.sleep(0)
    if how == "killed":
        next(task for task in asyncio.all_tasks() if task.get_name() == "journal appends").cancel()
    faults.gate.set()
    answers = await settled(*flying, *pending)
    assert [type(answer) for answer in answers] == [Defect] * 3
    with pytest.raises(Defect, match="restarted"):
        await asyncio.wait_for(writer.append(s.append(claimed[1], STEP)), 5)
    assert not writer.alive
    # Messages are still taken by the other loop; closing is quiet about the corpse.
    assert (await writer.deliver(s.message(claimed[0].session))).seq == 3
    await writer.close()


async def test_closing_writes_what_is_waiting_and_takes_nothing_more(store: SqliteStore, faults: Faults) -> None:
    writer = faults.writer()
    assert not writer.alive
    await writer.start()
    claimed = await claimed_sessions(store, 4)
    tasks = start(writer, *(s.append(one, STEP) for one in claimed), s.append(claimed[0], STEP))
    await asyncio.sleep(0)
    await writer.close()
    assert [answer.base for answer in await settled(*tasks)] == [2, 2, 2, 2, 3]
    assert not writer.alive
    with pytest.raises(Unavailable) as raised:
        await writer.append(s.append(claimed[0], STEP))
    assert raised.value.code == "shutting_down"
    await writer.close()


async def test_closing_does_not_wait_for_a_database_that_is_away(store: SqliteStore, faults: Faults) -> None:
    writer = faults.writer(retry_for_s=3_600)
    await writer.start()
    (one,) = await claimed_sessions(store, 1)
    faults.before += [AWAY] * 1_000
    tasks = start(writer, s.append(one, STEP))
    await faults.reached(2)
    await asyncio.wait_for(writer.close(), 5)
    assert await settled(*tasks) == [AWAY]


async def test_refusals_of_deliveries_come_back_to_their_sender(store: SqliteStore, writer: JournalWriter) -> None:
    session = await s.create(store)
    good, refused = await settled(
        asyncio.create_task(writer.deliver(s.message(session))),
        asyncio.create_task(writer.deliver(s.message(session, strategy="reject"))),
    )
    assert isinstance(good, Receipt)
    assert isinstance(refused, Conflict)
