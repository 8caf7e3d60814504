"""Any order of what callers may do to a store gives what a small model says, on both backends (kernel §7).

The model knows the contracts of `talon.store.protocols` and nothing of how a store works: a list of entries, a fence, an owner,
turns and leases. Hypothesis finds the order of events; a failure is printed as the shortest one.

The seed is printed; `TALON_TEST_SEED` repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from support.postgres import PostgresServer, database_of
from talon.cli.system import SystemClock, SystemIds
from talon.domain import entries as e
from talon.domain.content import text_of
from talon.domain.errors import Behind, Conflict, FencedOut
from talon.domain.inbox import CancelTurn, Key, Message, Operation, Receipt, ResolveApproval
from talon.domain.session import Strategy
from talon.store import postgres, sqlite
from talon.store.conformance import support as s
from talon.store.model import Append, Appended, Caps, Hold, NewApproval, NewSession, TurnChange
from talon.store.protocols import Store

T = TypeVar("T")
LONG_MS = 3_600_000
BACKOFF_MS = (0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
NAMESPACE, AGENT = "acme", "support"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the model ------------------------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    turn_id: str
    seq: int
    state: str = "queued"
    priority: int = 0
    attempts: int = 0
    steered: int = 0


@dataclass
class Session:
    """What a session must be. `wake` is the span in which its `wake_at_ms` lies."""

    name: str
    sid: int
    entries: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])  # type, mark, turn
    fence: int = 0
    owner: str | None = None
    state: str = "idle"
    turn: str | None = None
    wake: tuple[int, int] | None = None
    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])

    @property
    def queue(self) -> list[Turn]:
        queued = [turn for turn in self.turns.values() if turn.state == "queued"]
        return sorted(queued, key=lambda turn: (-turn.priority, turn.seq))

    def open(self) -> list[Turn]:
        """By queue order, the current one first."""
        return [*([self.turns[self.turn]] if self.turn else []), *self.queue]

    def settle(self, span: tuple[int, int]) -> None:
        """Without a current turn: queued and runnable, keeping an older place, or idle."""
        if self.turn is None:
            kept = self.wake if self.state == "queued" else None
            self.state, self.wake = ("queued", kept or span) if self.queue else ("idle", None)


@dataclass
class Sent:
    """A delivered operation's expected answer: an error's code, or a receipt's seq and turn."""

    code: str = ""
    seq: int = 0
    turn_id: str = ""
    replayed: bool = False


class Model:
    """The whole store."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.workers: dict[str, bool] = {}  # id -> whether its lease lasts
        self.keys: dict[str, tuple[str, Sent]] = {}
        self.approvals: dict[str, tuple[Session, str, str]] = {}  # id -> session, turn, state

    def send(self, session: Session, message: Message, mark: str, span: tuple[int, int]) -> Sent:
        """A message, by the table of the surface."""
        if message.key is not None and message.key.key in self.keys:
            body, first = self.keys[message.key.key]
            same = body == message.key.body_sha256
            return Sent(seq=first.seq, turn_id=first.turn_id, replayed=True) if same else Sent(code="idempotency_conflict")
        sent = self._send(session, message, mark, span)
        if message.key is not None and not sent.code:
            self.keys[message.key.key] = (message.key.body_sha256, sent)
        return sent

    def _send(self, session: Session, message: Message, mark: str, span: tuple[int, int]) -> Sent:
        opened = session.open()
        if opened and message.strategy == "reject":
            return Sent(code="session_busy")
        if opened and message.strategy == "steer":
            seq, turn_id = len(session.entries) + 1, opened[0].turn_id
            session.entries += [("message.received", mark, turn_id), ("input.steered", "", turn_id)]
            opened[0].steered += 1
            return Sent(seq=seq, turn_id=turn_id)
        makes_way = bool(opened) and message.strategy in ("interrupt", "rollback")
        if makes_way:
            self.end(session, opened[0], span, cancel_approvals=True)
        turn = Turn(message.turn_id, len(session.entries) + 1, priority=1 if makes_way else 0)
        session.entries += [("message.received", mark, turn.turn_id), ("turn.queued", "", turn.turn_id)]
        session.turns[turn.turn_id] = turn
        session.settle(span)
        return Sent(seq=turn.seq, turn_id=turn.turn_id)

    def end(self, session: Session, turn: Turn, span: tuple[int, int], *, cancel_approvals: bool) -> None:
        """End a turn that nobody runs, ask the worker of one that somebody does."""
        if cancel_approvals and turn.state == "waiting":
            for name, (owner, asked, state) in self.approvals.items():
                if asked == turn.turn_id and state == "open":
                    self.approvals[name] = (owner, asked, "cancelled")
        if turn.state == "running" or (turn.state == "waiting" and turn.steered):
            session.entries.append(("turn.cancel_requested", "", turn.turn_id))
            if session.owner is None:
                session.wake = min(session.wake, span) if session.wake else span
            return
        session.entries.append(("turn.cancelled", "", turn.turn_id))
        turn.state = "cancelled"
        session.fence += session.owner is None
        if session.turn == turn.turn_id:
            session.turn = None

    def free(self, session: Session, span: tuple[int, int], *, at_once: bool) -> None:
        """Its worker is gone."""
        assert session.turn is not None
        wait = 0 if at_once else BACKOFF_MS[min(session.turns[session.turn].attempts, len(BACKOFF_MS) - 1)]
        session.owner, session.wake = None, (span[0] + wait, span[1] + wait)

    def refusal(self, session: Session, append: Append) -> type[Exception] | None:
        if append.fence != session.fence or session.owner is None:
            return FencedOut
        if append.if_last_seq is not None and append.if_last_seq != len(session.entries):
            return Behind
        return None

    def append(self, session: Session, append: Append, marks: list[str], span: tuple[int, int]) -> None:
        assert session.turn is not None
        turn = session.turns[session.turn]
        session.entries += [(new.type, mark, new.turn_id) for new, mark in zip(append.entries, marks, strict=True)]
        assert append.turn is not None
        turn.state = append.turn.state or turn.state
        turn.attempts = 0 if append.turn.progress else max(turn.attempts - 1, 0) if append.drained else turn.attempts
        for approval in append.approvals:
            self.approvals[approval.id] = (session, turn.turn_id, "open")
        wait = append.wake_in_ms
        if append.hold == "release":
            session.owner, session.turn = None, None
            session.settle(span)
        elif append.hold == "park":
            session.owner, session.state = None, "waiting"
            session.wake = None if wait is None else (span[0] + wait, span[1] + wait)
        elif append.hold == "give_back":
            session.owner, session.wake = None, (span[0] + (wait or 0), span[1] + (wait or 0))


# --- the machine ----------------------------------------------------------------------------------------------------------------


@dataclass
class Backend:
    """Opens an empty, migrated store; runs its coroutines."""

    runner: asyncio.Runner
    fresh: Callable[[], Coroutine[Any, Any, Store]]
    done: Callable[[Store], Coroutine[Any, Any, None]]


which = st.integers(0, 2)
#: Below `NOBODY` an index means what there is, from there on something odd.
NOBODY = 9
mostly = st.integers(0, NOBODY)
keys = st.none() | st.tuples(st.integers(0, 3), st.booleans())
strategies_ = st.sampled_from(["enqueue", "enqueue", "steer", "interrupt", "rollback", "reject"])


class StoreMachine(RuleBasedStateMachine):
    """Whatever callers may do."""

    backend: ClassVar[Backend]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.store = self.run(self.backend.fresh())
        self.ids = SystemIds()
        self.marks = 0
        self.boots = 0
        self.appended: list[tuple[Append, Appended]] = []

    def run(self, use: Coroutine[Any, Any, T]) -> T:
        return self.backend.runner.run(asyncio.wait_for(use, 30))

    def timed(self, use: Coroutine[Any, Any, T]) -> tuple[T, tuple[int, int]]:
        """The answer, and the span of time in which it was given."""
        before = now_ms()
        answer = self.run(use)
        return answer, (before, now_ms())

    def mark(self) -> str:
        self.marks += 1
        return f"mark {self.marks}"

    def teardown(self) -> None:
        self.run(self.backend.done(self.store))

    @initialize()
    def begin(self) -> None:
        self.run(s.ensure_agent(self.store, NAMESPACE, AGENT))
        for name in ("s0", "s1", "s2"):
            new = NewSession(self.ids.uuid7(), NAMESPACE, AGENT, name)
            row, created = self.run(self.store.create_session(new))
            assert created
            self.model.sessions.append(Session(name, row.sid))
        self.register("w0")

    # --- the inbox ----------------------------------------------------------------------------------------------------------

    @rule(batch=st.lists(st.tuples(which, strategies_, keys), min_size=1, max_size=4))
    def send(self, batch: list[tuple[int, Strategy, tuple[int, bool] | None]]) -> None:
        """Messages in one batch, with and without keys, to one session and to several."""
        operations: list[tuple[Session, Message, str]] = []
        for at, strategy, keyed in batch:
            session, mark = self.model.sessions[at], self.mark()
            key = None if keyed is None else Key("http", f"k{keyed[0]}", "aa" if keyed[1] else "bb")
            message = Message((NAMESPACE, AGENT, session.name), mark, self.ids.uuid7(), strategy, key=key)
            operations.append((session, message, mark))
        answers, span = self.deliver([message for _, message, _ in operations])
        for (session, message, mark), answer in zip(operations, answers, strict=True):
            self.check(answer, self.model.send(session, message, mark, span))

    def deliver(self, operations: list[Operation]) -> tuple[list[Receipt | Exception], tuple[int, int]]:
        return self.timed(self.store.deliver(operations))

    def check(self, answer: Receipt | Exception, wanted: Sent) -> None:
        if wanted.code:
            assert isinstance(answer, Conflict)
            assert answer.code == wanted.code
        else:
            assert isinstance(answer, Receipt), answer
            assert (answer.seq, answer.turn_id, answer.replayed) == (wanted.seq, wanted.turn_id, wanted.replayed)

    @rule(at=which, nth=st.integers(0, 4))
    def cancel(self, at: int, nth: int) -> None:
        session = self.model.sessions[at]
        turns = list(session.turns.values())
        turn = turns[-1 - nth] if nth < len(turns) else None
        opened = turn is not None and turn in session.open()
        operation = CancelTurn((NAMESPACE, AGENT, session.name), turn.turn_id if turn else "none")
        (answer,), span = self.deliver([operation])
        if turn is not None and opened:
            seq = len(session.entries) + 1
            self.model.end(session, turn, span, cancel_approvals=False)
            session.settle(span)
            self.check(answer, Sent(seq=seq, turn_id=turn.turn_id))
        else:
            self.check(answer, Sent(code="turn_ended"))

    @precondition(lambda self: self.model.approvals)
    @rule(nth=st.integers(0, 5))
    def resolve(self, nth: int) -> None:
        approval = list(self.model.approvals)[-1 - nth % len(self.model.approvals)]
        session, turn_id, state = self.model.approvals[approval]
        (answer,), span = self.deliver([ResolveApproval((NAMESPACE, AGENT, session.name), approval, "done")])
        if state != "open":
            self.check(answer, Sent(code="approval_closed"))
            return
        session.entries.append(("approval.resolved", "", turn_id))
        self.model.approvals[approval] = (session, turn_id, "resolved")
        if session.turn == turn_id and session.owner is None:
            session.wake = min(session.wake, span) if session.wake else span
        self.check(answer, Sent(seq=len(session.entries), turn_id=turn_id))

    # --- workers ------------------------------------------------------------------------------------------------------------

    def register(self, name: str) -> None:
        """A worker starts, or starts again under its name."""
        self.boots += 1
        worker, span = self.timed(self.store.register(name, f"b{self.boots}", LONG_MS, b"{}"))
        for earlier in [one for one in self.model.workers if one.startswith(f"{name}/")]:
            del self.model.workers[earlier]
        for session in self.model.sessions:
            if session.owner is not None and session.owner.startswith(f"{name}/"):
                self.model.free(session, span, at_once=True)
        self.model.workers[worker] = True

    @rule(nth=mostly, how=st.sampled_from(["restarts", "retires", "dies", "sweep", "sweep"]))
    def lose(self, nth: int, how: str) -> None:
        """A worker goes, one way or the other, or somebody looks who has gone."""
        worker = self.worker(nth)
        if how == "restarts":
            self.register(worker.split("/")[0])
        elif how == "retires":
            self.retire(worker)
        elif how == "dies":
            # Its lease ends; nobody has noticed yet.
            assert self.run(self.store.heartbeat(worker, -1)) == (worker in self.model.workers)
            if worker in self.model.workers:
                self.model.workers[worker] = False
        else:
            self.sweep()

    def sweep(self) -> None:
        freed, span = self.timed(self.store.sweep())
        self.model.workers = {worker: True for worker, alive in self.model.workers.items() if alive}
        lost = [one for one in self.model.sessions if one.owner is not None and one.owner not in self.model.workers]
        for session in lost:
            self.model.free(session, span, at_once=False)
        assert freed == len(lost)

    def retire(self, worker: str) -> None:
        freed, span = self.timed(self.store.retire(worker))
        self.model.workers.pop(worker, None)
        held = [one for one in self.model.sessions if one.owner == worker]
        for session in held:
            self.model.free(session, span, at_once=False)
        assert freed == len(held)

    def worker(self, nth: int) -> str:
        """A worker that has registered; now and then one that nobody knows."""
        known = list(self.model.workers)
        return known[nth % len(known)] if known and nth < NOBODY else "nobody/0"

    def held(self, at: int) -> Session:
        """A session that a worker holds; now and then any."""
        if at < NOBODY and all(one.owner is None for one in self.model.sessions):
            if not any(one.wake for one in self.model.sessions):
                self.send([(at % 3, "enqueue", None)])
            self.claim(at, 3)
        sessions = [one for one in self.model.sessions if one.owner is not None] if at < NOBODY else []
        return (sessions or self.model.sessions)[at % len(sessions or self.model.sessions)]

    @rule(nth=mostly, slots=st.integers(1, 4))
    def claim(self, nth: int, slots: int) -> None:
        if nth < NOBODY and not any(self.model.workers.values()):
            self.register(f"w{nth % 2}")
        worker = self.worker(nth)
        claimed, span = self.timed(self.store.claim(worker, slots, Caps()))
        taken = {one.session.sid for one in claimed}
        alive = self.model.workers.get(worker, False)
        # Between the two looks at the clock either answer is right.
        must = {one.sid for one in self.model.sessions if alive and one.wake and one.wake[1] <= span[0]}
        may = {one.sid for one in self.model.sessions if alive and one.wake and one.wake[0] <= span[1]}
        assert len(taken) == len(claimed) <= slots
        assert taken <= may
        assert must <= taken or len(taken) == slots
        for one in claimed:
            event(f"claimed a {one.was} turn")
            session = next(other for other in self.model.sessions if other.sid == one.session.sid)
            turn = session.open()[0]
            assert (one.turn.turn_id, one.was, one.session.fence) == (turn.turn_id, turn.state, session.fence + 1)
            turn.state, turn.attempts = "running", turn.attempts + 1
            session.fence, session.owner, session.wake = session.fence + 1, worker, None
            session.state, session.turn = "running", turn.turn_id
            assert one.turn.attempts == turn.attempts

    # --- appends ------------------------------------------------------------------------------------------------------------

    @rule(
        at=mostly,
        stale=st.sampled_from([0, 0, 0, 0, 0, -1, -2, 1]),
        guard=st.sampled_from([None, 0, -1]),
        count=st.integers(0, 3),
        hold=st.sampled_from(["keep", "keep", "release", "park", "give_back"]),
        wait=st.sampled_from([None, 0, LONG_MS]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def append(
        self,
        at: int,
        stale: int,
        guard: int | None,
        count: int,
        hold: Hold,
        wait: int | None,
        flags: tuple[bool, bool, bool],
    ) -> None:
        """A worker writes: in time or too late, guarded or not, and keeps the session or lets it go."""
        session = self.held(at)
        append, marks = self.make(session, stale, guard, count, hold, wait, flags)
        refused = self.model.refusal(session, append)
        event(f"append {hold}: {refused.__name__ if refused else 'written'}")
        (answer,), span = self.timed(self.store.commit([append]))
        if refused is not None:
            assert type(answer) is refused
            return
        assert isinstance(answer, Appended), answer
        assert (answer.sid, answer.base) == (session.sid, len(session.entries))
        assert span[0] <= answer.at_ms <= span[1]
        self.model.append(session, append, marks, span)
        if append.entries:
            self.appended.append((append, answer))

    def make(
        self,
        session: Session,
        stale: int,
        guard: int | None,
        count: int,
        hold: Hold,
        wait: int | None,
        flags: tuple[bool, bool, bool],
    ) -> tuple[Append, list[str]]:
        progress, drained, asks = flags
        turn_id = session.turn or self.ids.uuid7()
        marks = [self.mark() for _ in range(count)]
        entries = tuple(e.new_entry(e.StepFinished(step="x", decision=mark), turn_id) for mark in marks)
        states = {"keep": "running", "release": "completed", "park": "waiting", "give_back": None}
        change = TurnChange(turn_id, state=states[hold], progress=progress)  # type: ignore[arg-type]
        approvals = (NewApproval(self.ids.uuid7(), turn_id, 1, "uncertain", b"{}"),) if asks and hold == "park" else ()
        append = Append(
            id=self.ids.uuid7(),
            sid=session.sid,
            fence=session.fence + stale,
            entries=entries,
            if_last_seq=None if guard is None else len(session.entries) + guard,
            turn=change,
            approvals=approvals,
            hold=hold,
            wake_in_ms=wait,
            drained=drained,
        )
        return append, marks

    @precondition(lambda self: self.appended)
    @rule(nth=st.integers(0, 5))
    def repeat(self, nth: int) -> None:
        """The answer of a commit was lost, and it is sent again, however late; one without a guard, until another one follows."""
        newest = {append.sid: append.id for append, _ in self.appended if append.if_last_seq is None}
        known = [one for one in self.appended if one[0].if_last_seq is not None or newest[one[0].sid] == one[0].id]
        append, first = known[-1 - nth % len(known)]
        (answer,) = self.run(self.store.commit([append]))
        assert isinstance(answer, Appended)
        assert (answer.sid, answer.base, answer.at_ms) == (first.sid, first.base, first.at_ms)

    # --- what must always be so ---------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_what_the_model_says(self) -> None:
        self.run(self.compare())

    async def compare(self) -> None:
        await asyncio.gather(*(self.compare_session(session) for session in self.model.sessions), self.compare_leases())

    async def compare_session(self, session: Session) -> None:
        entries = await self.store.read_entries(session.sid, 0, 1_000)
        assert [entry.seq for entry in entries] == list(range(1, len(session.entries) + 1))
        assert [(entry.type, mark_of(entry), entry.turn_id) for entry in entries] == session.entries
        middle = len(entries) // 2
        again = await self.store.read_entries(session.sid, 0, middle) + await self.store.read_entries(session.sid, middle, 1_000)
        assert again == entries
        row = await self.store.get_session_by_sid(session.sid)
        assert row is not None
        assert (row.state, row.turn_id, row.queued) == (session.state, session.turn, len(session.queue))
        assert (row.last_seq, row.fence, row.owner) == (len(session.entries), session.fence, session.owner)
        if session.wake is None:
            assert row.wake_at_ms is None
        else:
            assert row.wake_at_ms is not None
            assert session.wake[0] <= row.wake_at_ms <= session.wake[1]
        turns, _ = await self.store.list_turns(session.sid, "", 500)
        found = {t.turn_id: Turn(t.turn_id, t.seq, t.state, t.priority, t.attempts, t.steered) for t in turns}
        assert found == session.turns
        assert all((turn.ended_at_ms is not None) == (turn.state in ("completed", "cancelled")) for turn in turns)

    async def compare_leases(self) -> None:
        for worker in self.model.workers:
            held = {session.sid: session.fence for session in self.model.sessions if session.owner == worker}
            assert dict(await self.store.owned(worker)) == held
        alive = {row.id for row in await self.store.workers()}
        assert alive == {worker for worker, lasts in self.model.workers.items() if lasts}
        rows, _ = await self.store.list_approvals(NAMESPACE, "", "", 500)
        assert {row.id: row.state for row, _ in rows} == {name: state for name, (_, _, state) in self.model.approvals.items()}


def mark_of(entry: e.Entry) -> str:
    payload = entry.decode()
    if isinstance(payload, e.MessageReceived):
        return text_of(payload.content)
    return payload.decision if isinstance(payload, e.StepFinished) else ""


# --- both backends --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with asyncio.Runner() as runner:
        if request.param == "sqlite":
            yield on_sqlite(runner, tmp_path)
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            url: str = request.getfixturevalue("database_url")
            yield from on_postgres(runner, server, url)


def on_sqlite(runner: asyncio.Runner, directory: Path) -> Backend:
    """A file of its own for each run of the machine."""
    made = 0

    async def fresh() -> Store:
        nonlocal made
        made += 1
        place = directory / str(made)
        place.mkdir()
        store = await sqlite.open_store(place / "talon.db", SystemClock(), SystemIds())
        await store.migrate()
        return store

    async def done(store: Store) -> None:
        await store.close()

    return Backend(runner, fresh, done)


def on_postgres(runner: asyncio.Runner, server: PostgresServer, url: str) -> Iterator[Backend]:
    """One store, whose tables are emptied for each run of the machine."""
    store = runner.run(postgres.open_store(url, SystemIds()))
    tables = server.sql(
        "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_info'",
        database_of(url),
    )

    async def fresh() -> Store:
        await asyncio.to_thread(server.sql, f"TRUNCATE {tables}", database_of(url))
        return store

    async def done(_store: Store) -> None:
        return None

    yield Backend(runner, fresh, done)
    runner.run(store.close())


@pytest.mark.timeout(600)  # finding the shortest order of a failure takes its time
def test_any_order_of_events_gives_what_the_model_says(backend: Backend) -> None:
    seed = int(os.environ.get("TALON_TEST_SEED") or random.randrange(2**32))
    print(f"seed {seed}; TALON_TEST_SEED={seed} repeats it")

    class Machine(StoreMachine):
        pass

    Machine.backend = backend
    run_state_machine_as_test(  # pyright: ignore[reportUnknownMemberType]
        hypothesis.seed(seed)(Machine),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
