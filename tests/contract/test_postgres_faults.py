"""What only PostgreSQL can do to a store: lose an answer, go away, come back, refuse, deadlock, plan badly."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from support.pgproxy import Cut, Proxy, proxy
from support.postgres import PostgresServer, database_of
from talon.cli.system import SystemIds
from talon.domain import entries as e
from talon.domain.errors import Invalid, Unavailable
from talon.domain.inbox import Creation, DeleteSession, Key, Message, Receipt
from talon.domain.session import SessionRow
from talon.store.conformance import support as s
from talon.store.model import Appended, Caps, Claimed, Fragment, NewSession
from talon.store.postgres import PostgresStore, commit_sql, deliver_sql, open_store, queue_sql
from talon.store.postgres.driver import connect
from talon.store.resources import Changes, PutResource

STEP = e.StepFinished(step="look", decision="go on")
IMPATIENT_S = 0.3
PlanOf = Callable[[str], Any]
#: What is written of a message, and of a session that is only deleted, on the wire; a look has neither.
SAID, AT_REST = b'"pack":', b'"idle"'


@asynccontextmanager
async def opened(url: str, patience_s: float = 8.0) -> AsyncGenerator[PostgresStore]:
    store = await open_store(url, SystemIds(), patience_s=patience_s)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with opened(database_url) as one:
        yield one


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[PostgresStore]:
    async with opened(database_url) as one:
        yield one


@pytest.fixture
async def cable(database_url: str) -> AsyncIterator[Proxy]:
    async with proxy(database_url) as made:
        yield made


@pytest.fixture
async def far(cable: Proxy) -> AsyncIterator[PostgresStore]:
    """A store at the other end of a cable that can be cut."""
    async with opened(cable.url) as one:
        yield one


async def waits_for_locks(postgres: PostgresServer, url: str, statements: int) -> None:
    async def waiting() -> bool:
        count = postgres.sql(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database_of(url)}' AND wait_event_type = 'Lock'"
        )
        return int(count) >= statements

    await s.until(waiting)


class TestLostAnswers:
    """A commit whose answer was lost is found out, not guessed."""

    @pytest.mark.parametrize("cut", list(Cut))
    @pytest.mark.parametrize("hold", ["keep", "release", "park"])
    async def test_an_append_is_written_once_and_answered(
        self, far: PostgresStore, cable: Proxy, store: PostgresStore, cut: Cut, hold: str
    ) -> None:
        claimed = await s.running(far)
        await s.commit(far, s.append(claimed, STEP))
        one = s.append(claimed, STEP, STEP, hold=hold, if_last_seq=3)
        cable.arm(cut, one.id.encode())
        answer = await s.commit(far, one)
        assert cable.cuts == 1
        entries = await s.journal(store, claimed)
        assert s.types(entries)[2:] == ["step.finished"] * 3
        assert answer == Appended(claimed.session.sid, 3, entries[-1].at_ms)
        assert (await s.again(store, claimed.session)).owner == (s.WORKER if hold == "keep" else None)

    @pytest.mark.parametrize("cut", list(Cut))
    async def test_fragments_alone_are_there_once(self, far: PostgresStore, cable: Proxy, store: PostgresStore, cut: Cut) -> None:
        claimed = await s.running(far)
        await s.commit(far, s.append(claimed, STEP))
        one = s.append(claimed, fragments=(Fragment(3, 0, "a"), Fragment(3, 1, "b")))
        cable.arm(cut, one.id.encode())
        await s.commit(far, one)
        assert cable.cuts == 1
        assert [fragment.text for fragment in await store.read_fragments(claimed.session.sid, 3)] == ["a", "b"]

    @pytest.mark.parametrize("cut", list(Cut))
    @pytest.mark.parametrize("key", [None, Key("http", "k", "aa")])
    async def test_a_message_is_accepted_once_and_answered(
        self, far: PostgresStore, cable: Proxy, store: PostgresStore, cut: Cut, key: Key | None
    ) -> None:
        session = await s.create(far)
        await s.send(far, session)
        cable.arm(cut, SAID)
        receipt = await s.send(far, session, key=key)
        assert cable.cuts == 1
        assert (receipt.seq, receipt.replayed) == (3, False)
        assert list(receipt.entries) == (await s.journal(store, session))[2:]
        assert (await s.again(store, session)).queued == 2
        assert (await s.turn_of(store, session, receipt.turn_id)).state == "queued"

    @pytest.mark.parametrize("cut", [Cut.WORK, Cut.ANSWER])
    @pytest.mark.parametrize("new", [False, True])
    async def test_a_commit_that_is_still_under_way_is_waited_for(
        self,
        far: PostgresStore,
        cable: Proxy,
        store: PostgresStore,
        postgres: PostgresServer,
        database_url: str,
        cut: Cut,
        new: bool,
    ) -> None:
        """The old connection is gone, what it asked for is not: the look on the new one must not come too early."""
        slow = """
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON turns DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION slow()"""
        await s.ensure(store, ("", "Namespace", s.NAMESPACE))
        await store.change(Changes((PutResource(s.NAMESPACE, "Agent", s.AGENT, "u", 0, b"{}", effective=b"{}", digest="d"),)))
        where = (s.NAMESPACE, s.AGENT, "s1")
        if not new:
            await s.create(store)
        await far.deliver([s.message(await s.create(store, "warm"))])
        postgres.sql(slow, database_of(database_url))
        cable.arm(cut, SAID)
        creation = Creation(s.fresh_id(), 1) if new else None
        receipt = await s.deliver(far, Message(where, "hello", s.fresh_id(), creation=creation))
        assert cable.cuts == 1
        row = await store.get_session(where)
        assert row is not None
        assert (row.sid, row.queued, row.last_seq) == (receipt.sid, 1, 2)
        assert list(receipt.entries) == await s.journal(store, row)

    @pytest.mark.parametrize("cut", list(Cut))
    async def test_a_delivery_without_any_entry_is_found_by_what_it_leaves(
        self, far: PostgresStore, cable: Proxy, store: PostgresStore, cut: Cut
    ) -> None:
        session = await s.create(far)
        cable.arm(cut, AT_REST)
        receipt = await s.deliver(far, DeleteSession(s.where(session)))
        assert cable.cuts == 1
        assert receipt.strategy == "delete"
        assert (await s.again(store, session)).deleted_at_ms is not None

    async def test_any_number_of_losses_leaves_every_append_once(
        self, far: PostgresStore, cable: Proxy, store: PostgresStore, postgres: PostgresServer, database_url: str
    ) -> None:
        seed = int(os.environ.get("TALON_TEST_SEED") or random.randrange(2**32))
        print(f"seed {seed}")
        dice = random.Random(seed)
        claimed = [await s.running(far, f"s{number}") for number in range(3)]
        spans: dict[int, list[int]] = {one.session.sid: [] for one in claimed}
        written = dict.fromkeys(spans, 0)
        for _ in range(60):
            batch = [s.append(one, *[STEP] * dice.randint(1, 3)) for one in claimed if dice.random() < 0.7]
            if not batch:
                continue
            if dice.random() < 0.5:
                cable.arm(dice.choice(list(Cut)), batch[-1].id.encode())
            elif dice.random() < 0.3:
                postgres.sql(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_of(database_url)}'"
                )
            for one, answer in zip(batch, await far.commit(batch), strict=True):
                assert isinstance(answer, Appended)
                spans[one.sid] += range(answer.base + 1, answer.base + 1 + len(one.entries))
                written[one.sid] += len(one.entries)
        assert cable.cuts > 0
        for one in claimed:
            assert len(await s.journal(store, one)) == 2 + written[one.session.sid]
            assert spans[one.session.sid] == list(range(3, 3 + written[one.session.sid]))


class TestAServerThatGoes:
    async def test_commits_and_deliveries_outlive_a_restart(self, store: PostgresStore, postgres: PostgresServer) -> None:
        claimed = await s.running(store)
        for number in range(3):
            postgres.restart()
            assert (await s.commit(store, s.append(claimed, STEP))).base == 2 + 3 * number
            postgres.restart()
            await s.send(store, claimed.session)
            postgres.restart()
            assert await store.heartbeat(s.WORKER, s.LONG_MS)
        assert len(await s.journal(store, claimed)) == 2 + 3 * 3

    async def test_a_commit_waits_for_a_server_that_comes_back(self, store: PostgresStore, postgres: PostgresServer) -> None:
        claimed = await s.running(store)
        postgres.stop()
        commit = asyncio.ensure_future(store.commit([s.append(claimed, STEP)]))
        done, _ = await asyncio.wait([commit], timeout=0.3)
        postgres.start()
        assert not done
        assert isinstance((await asyncio.wait_for(commit, 20))[0], Appended)

    async def test_a_killed_server_keeps_all_that_was_answered(
        self, durable_postgres: PostgresServer, durable_database_url: str
    ) -> None:
        async with opened(durable_database_url) as store:
            claimed = [await s.running(store, f"s{number}") for number in range(4)]
            answered = dict.fromkeys((one.session.sid for one in claimed), 0)
            stop = False

            async def work() -> None:
                while not stop:
                    for one, answer in zip(claimed, await store.commit([s.append(one, STEP) for one in claimed]), strict=True):
                        assert isinstance(answer, Appended)
                        assert answer.base == 2 + answered[one.session.sid]
                        answered[one.session.sid] += 1

            async def crash() -> None:
                nonlocal stop
                for number in range(1, 6):
                    await s.until(lambda wanted=number * 20: _reached(answered, wanted))
                    await asyncio.to_thread(durable_postgres.kill)
                    await asyncio.to_thread(durable_postgres.start)
                stop = True

            async with asyncio.TaskGroup() as group:
                group.create_task(work())
                group.create_task(crash())
            assert durable_postgres.sql("SHOW fsync") == "on"
            for one in claimed:
                assert len(await s.journal(store, one)) == 2 + answered[one.session.sid]


async def _reached(answered: dict[int, int], wanted: int) -> bool:
    return min(answered.values()) >= wanted


class TestRefusals:
    """Each is `Unavailable` with a code, in bounded time, and tells no secret."""

    async def everything(self, store: PostgresStore, claimed: Claimed) -> list[str]:
        """The codes of every kind of use."""
        codes: list[str] = []
        uses = (
            store.commit([s.append(claimed, STEP)]),
            store.deliver([s.message(claimed.session)]),
            store.heartbeat(s.WORKER, s.LONG_MS),
            store.ping(),
        )
        for use in uses:
            with pytest.raises(Unavailable) as raised:
                await asyncio.wait_for(use, 20)
            assert raised.value.retry_after_s is not None
            assert "s3cret" not in f"{raised.value} {raised.value.__cause__}"
            codes.append(raised.value.code)
        return codes

    async def test_a_server_that_is_gone(self, postgres: PostgresServer, database_url: str) -> None:
        async with opened(database_url.replace("talon@", "talon:s3cret@"), IMPATIENT_S) as store:
            claimed = await s.running(store)
            postgres.stop()
            try:
                assert await self.everything(store, claimed) == ["database_unavailable"] * 4
                with pytest.raises(Unavailable, match="database_unavailable"):
                    await open_store(database_url, SystemIds())
            finally:
                postgres.start()
            await s.commit(store, s.append(claimed, STEP))

    async def test_a_database_that_takes_no_writes(self, postgres: PostgresServer, database_url: str) -> None:
        async with opened(database_url) as writing:
            claimed = await s.running(writing)
        postgres.sql(f"ALTER DATABASE {database_of(database_url)} SET default_transaction_read_only = on")
        async with opened(database_url, IMPATIENT_S) as store:
            assert await self.everything(store, claimed) == ["database_unavailable"] * 4
            assert len(await s.journal(store, claimed)) == 2

    async def test_a_full_disk(self, postgres: PostgresServer, database_url: str) -> None:
        # The server's own error, raised where a full disk would raise it.
        full = """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON journal EXECUTE FUNCTION full_disk()"""
        async with opened(database_url) as store:
            claimed = await s.running(store)
            postgres.sql(full, database_of(database_url))
            for use in (store.commit([s.append(claimed, STEP)]), store.deliver([s.message(claimed.session)])):
                with pytest.raises(Unavailable) as raised:
                    await asyncio.wait_for(use, 5)
                assert raised.value.code == "storage_full"
            postgres.sql("DROP TRIGGER full_disk ON journal", database_of(database_url))
            await s.commit(store, s.append(claimed, STEP))
            await s.send(store, claimed.session)
            assert len(await s.journal(store, claimed)) == 5

    async def test_more_connections_than_the_server_grants(self, postgres: PostgresServer, database_url: str) -> None:
        grants = """
            CREATE ROLE poor LOGIN CONNECTION LIMIT 1;
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO poor"""
        postgres.sql(grants, database_of(database_url))
        try:
            async with opened(database_url.replace("talon@", "poor@"), IMPATIENT_S) as store:
                session = await s.create(store)
                with pytest.raises(Unavailable, match="too many connections"):
                    await s.send(store, session)
                assert await store.get_session(s.where(session)) == session
        finally:
            postgres.sql("DROP OWNED BY poor; DROP ROLE poor", database_of(database_url))

    async def test_a_user_or_a_database_that_is_not_there_is_told_at_once(self, database_url: str) -> None:
        for url in (database_url.replace("talon@", "nobody:s3cret@"), database_url.replace("/test_", "/none_")):
            with pytest.raises(Unavailable) as raised:
                await asyncio.wait_for(open_store(url, SystemIds()), 2)
            assert raised.value.code == "database_unavailable"
            assert "s3cret" not in str(raised.value)

    @pytest.mark.parametrize(
        "url", ["", "talon.db", "mysql://u:s3cret@h/d", "postgresql://u:s3cret/x@h/d", "postgresql://u:s3cret@h:port/d"]
    )
    async def test_a_url_that_cannot_be_read_is_invalid_and_not_shown(self, url: str) -> None:
        with pytest.raises(Invalid) as raised:
            await open_store(url, SystemIds())
        assert "s3cret" not in f"{raised.value} {raised.value.__cause__} {raised.value.__context__}"

    async def test_a_database_that_would_lose_commits_is_made_to_keep_them(
        self, postgres: PostgresServer, database_url: str
    ) -> None:
        postgres.sql(f"ALTER DATABASE {database_of(database_url)} SET synchronous_commit = off")
        probe = "CREATE TABLE seen (setting text); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; \
            CREATE TRIGGER look AFTER INSERT ON journal EXECUTE FUNCTION look()"
        postgres.sql(probe, database_of(database_url))
        async with opened(database_url) as store:
            claimed = await s.running(store)
            await s.commit(store, s.append(claimed, STEP))
        assert postgres.sql("SELECT DISTINCT setting FROM seen", database_of(database_url)) == "on"


class TestLocks:
    async def test_overlapping_batches_of_two_writers_never_deadlock(
        self, store: PostgresStore, second: PostgresStore, postgres: PostgresServer, database_url: str
    ) -> None:
        seed = int(os.environ.get("TALON_TEST_SEED") or random.randrange(2**32))
        print(f"seed {seed}")
        dice = random.Random(seed)
        claimed = [await s.running(store, f"s{number}") for number in range(12)]
        counts = dict.fromkeys((one.session.sid for one in claimed), 0)

        async def write(handle: PostgresStore) -> None:
            for _ in range(150):
                batch = dice.sample(claimed, dice.randint(2, len(claimed)))
                answers = await handle.commit([s.append(one, STEP) for one in batch])
                assert all(isinstance(answer, Appended) for answer in answers)
                for one in batch:
                    counts[one.session.sid] += 1

        async def talk(handle: PostgresStore) -> None:
            for number in range(60):
                batch = dice.sample(claimed, dice.randint(2, len(claimed)))
                keys = [Key("http", f"{number % 7}-{one.session.id}", "aa") for one in batch]
                answers = await handle.deliver(
                    [s.message(one.session, key=key, queue_max=10_000) for one, key in zip(batch, keys, strict=True)]
                )
                for answer in answers:
                    assert isinstance(answer, Receipt)
                    counts[answer.sid] += 0 if answer.replayed else 2

        async def sweep(handle: PostgresStore) -> None:
            for _ in range(60):
                assert await handle.sweep() == 0
                assert await handle.claim(s.WORKER, 3, Caps(per_agent=100)) == []

        jobs = [job(handle) for handle in (store, second) for job in (write, talk, sweep)]
        await asyncio.wait_for(asyncio.gather(*jobs), 100)
        for one in claimed:
            assert len(await s.journal(store, one)) == 2 + counts[one.session.sid]
        deadlocks = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database_of(database_url)}'"
        assert postgres.sql(deadlocks) == "0"

    async def test_a_release_sees_the_message_that_was_queued_while_it_waited(
        self, store: PostgresStore, second: PostgresStore, postgres: PostgresServer, database_url: str
    ) -> None:
        slow = """
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON turns DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION slow()"""
        claimed = await s.running(store)
        postgres.sql(slow, database_of(database_url))
        holder = await connect(database_url)
        try:
            await holder.execute("SELECT pg_advisory_lock(1)")
            delivery = asyncio.ensure_future(s.send(second, claimed.session, "late"))  # holds its session's row until it may commit
            await waits_for_locks(postgres, database_url, 1)
            release = asyncio.ensure_future(s.finish(store, claimed))
            await waits_for_locks(postgres, database_url, 2)
            await holder.execute("SELECT pg_advisory_unlock(1)")
        finally:
            await holder.close()
        receipt, done = await delivery, await asyncio.wait_for(release, 20)
        assert done.base == receipt.seq + 1
        row = await s.again(store, claimed.session)
        assert (row.state, row.queued, row.owner) == ("queued", 1, None)
        assert row.wake_at_ms is not None
        assert (await s.claim_one(store)).turn.turn_id == receipt.turn_id

    async def test_a_heartbeat_does_not_wait_for_a_commit_that_hangs(
        self, store: PostgresStore, postgres: PostgresServer, database_url: str
    ) -> None:
        claimed = await s.running(store)
        blocker = await connect(database_url)
        try:
            await blocker.execute(f"BEGIN; SELECT FROM sessions WHERE sid = {claimed.session.sid} FOR UPDATE")
            commit = asyncio.ensure_future(store.commit([s.append(claimed, STEP)]))
            delivery = asyncio.ensure_future(store.deliver([s.message(claimed.session)]))
            await waits_for_locks(postgres, database_url, 1)
            assert await asyncio.wait_for(store.heartbeat(s.WORKER, s.LONG_MS), 2)
            assert await asyncio.wait_for(store.get_session_by_sid(claimed.session.sid), 2) is not None
            assert not commit.done()
            await blocker.execute("ROLLBACK")
            assert isinstance((await asyncio.wait_for(commit, 10))[0], Appended)
            assert isinstance((await asyncio.wait_for(delivery, 10))[0], Receipt)
        finally:
            await blocker.close()

    async def test_times_are_those_of_the_statement_not_of_an_old_transaction(self, store: PostgresStore) -> None:
        claimed = await s.running(store)
        first = await s.commit(store, s.append(claimed, STEP))
        await asyncio.sleep(0.25)
        later = await s.commit(store, s.append(claimed, STEP))
        assert later.at_ms - first.at_ms >= 250


class TestPlans:
    async def test_nothing_is_ever_read_sequentially(
        self, store: PostgresStore, postgres: PostgresServer, database_url: str
    ) -> None:
        """Plans are made on empty tables here, as on every first start, and must still be right on large ones."""
        worker = await s.register(store)
        for number in range(30):
            session = await s.create(store, f"s{number}")
            await s.send(store, session, key=Key("http", f"k{number}", "aa"))
        for claimed in await store.claim(worker, 30, Caps(per_agent=100)):
            await s.commit(store, s.append(claimed, STEP, fragments=(Fragment(3, 0, "x"),)))
            await s.send(store, claimed.session, strategy="steer")
            await use_everything(store, claimed)
        await store.sweep()
        await store.collect_blobs()
        await store.close()
        # `schema_info` and `workers` have a handful of rows, which are read whole, and `held` one for each turn that runs now.
        scans = """
            SELECT string_agg(relname || ' ' || seq_scan, ', ') FROM pg_stat_user_tables
            WHERE seq_scan > 0 AND relname NOT IN ('schema_info', 'workers', 'held')"""
        unused = """
            SELECT string_agg(indexrelname, ', ' ORDER BY indexrelname) FROM pg_stat_user_indexes WHERE idx_scan = 0
            AND indexrelname IN ('journal_context', 'journal_messages', 'sessions_wake', 'sessions_wake_agent', 'turns_queued',
                'held_pkey', 'keys_pkey', 'turns_of_session', 'journal_pkey')"""
        assert await s.until(lambda: self.settled(postgres, database_url))
        assert postgres.sql(scans, database_of(database_url)) == ""
        assert postgres.sql(unused, database_of(database_url)) == ""

    @pytest.fixture(params=[0, 20_000])
    def plan_of(self, request: pytest.FixtureRequest, postgres: PostgresServer, database_url: str) -> PlanOf:
        """How the server means to run a statement, of whatever values, with so many rows in the tables."""
        if int(postgres.sql("SHOW server_version_num")) < 160_000:
            pytest.skip("EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16")
        database = database_of(database_url)
        if request.param:
            postgres.sql(FILL.format(rows=request.param), database)

        def explain(statement: str) -> Any:
            told = f"SET enable_seqscan = off; SET jit = off; EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}"
            return msgspec.json.decode(postgres.sql(told, database))[0]["Plan"]

        return explain

    def test_every_row_is_looked_up_by_an_index_whatever_the_tables_hold(
        self, plan_of: PlanOf, postgres: PostgresServer, database_url: str
    ) -> None:
        """A sequential scan is not the only trap: a plan from an empty table may just as well read a whole index each time, and one
        from a full table may look up by an index's second column alone."""
        told = postgres.sql(FIRST_COLUMNS, database_of(database_url))
        first = dict(one.split(":") for one in told.split())
        for name, statement in HOT.items():
            for scan in table_scans(plan_of(statement)):
                index, condition = scan.get("Index Name", ""), scan.get("Index Cond", "")
                where = (name, scan.get("Relation Name"), index, condition)
                if index not in READ_WHOLE and scan.get("Relation Name") != "held":
                    assert condition, where
                    assert first.get(index, "") in condition, where

    def test_sessions_are_locked_one_by_one_in_the_order_of_the_batch(self, plan_of: PlanOf) -> None:
        """The batch comes in the order of ids: overlapping batches lock in one order while it is the outer side of the join."""
        for name in ("commit", "commit of text", "commit of everything", "write", "write everything"):
            plans = [plan_of(HOT[name])]
            found = 0
            while plans:
                plan = plans.pop()
                plans += plan.get("Plans", [])
                if plan["Node Type"] == "ModifyTable" and (plan["Operation"], plan["Relation Name"]) == ("Update", "sessions"):
                    (join,) = plan["Plans"]
                    outer, inner = join["Plans"]
                    assert join["Node Type"] == "Nested Loop", name
                    assert outer["Node Type"] in ("CTE Scan", "Function Scan"), name
                    assert inner["Index Name"] == "sessions_pkey", name
                    found += 1
            assert found == 1, name

    async def settled(self, postgres: PostgresServer, url: str) -> bool:
        """Whether the statistics of the closed connections have been counted."""
        counted = postgres.sql("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'sessions'", database_of(url))
        backends = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database_of(url)}' AND pid <> pg_backend_pid()"
        return counted == "30" and postgres.sql(backends) == "0"

    async def test_a_batch_of_a_thousand_takes_no_long_time(self, store: PostgresStore) -> None:
        sessions = [await s.create(store, f"s{number}") for number in range(1_000)]
        loop = asyncio.get_running_loop()
        start = loop.time()
        answers = await store.deliver([s.message(session) for session in sessions])
        delivered = loop.time() - start
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        claimed = await store.claim(await s.register(store), 1_000, Caps())
        assert len(claimed) == 1_000
        start = loop.time()
        done = await store.commit([s.append(one, STEP, STEP) for one in claimed])
        committed = loop.time() - start
        assert all(isinstance(answer, Appended) for answer in done)
        print(f"1,000 sessions: delivered in {delivered * 1000:.0f} ms, committed in {committed * 1000:.0f} ms")
        assert max(delivered, committed) < 2.0


#: The statements of every message and every step.
HOT = {
    "commit": commit_sql.commit(("turned", "written"), notify=True),
    "commit of text": commit_sql.commit(("streamed",), notify=True),
    "commit of everything": commit_sql.commit(tuple(commit_sql.PARTS), notify=True),
    "why refused": commit_sql.REFUSED,
    "look": deliver_sql.look(("places",)),
    "look everywhere": deliver_sql.look(deliver_sql.LOOK_PARTS),
    "write": deliver_sql.write(("moved", "written", "queued"), notify=True),
    "write everything": deliver_sql.write(deliver_sql.PART_NAMES, notify=True),
    "found": deliver_sql.FOUND,
    "claim": queue_sql.CLAIM,
    "sweep": queue_sql.GIVE_BACK_LOST,
    "heartbeat": queue_sql.HEARTBEAT,
}
#: index:column …, of those that begin with a column and not with an expression.
FIRST_COLUMNS = """
    SELECT string_agg(c.relname || ':' || a.attname, ' ') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"""
#: Indexes that may be read whole: the first of what is runnable, the handful of workers. Of what runs now a table is read whole.
READ_WHOLE = {"sessions_wake_agent", "workers_pkey", "held_pkey"}
FILL = """
    INSERT INTO sessions (uid, namespace, agent, id, state, first_seq, last_seq, fence, queued, metadata, features, profile, key_id,
        created_at_ms, updated_at_ms)
    SELECT gen_random_uuid(), 'acme', 'a' || n % 5, 's' || n, 'idle', 1, 0, 0, 0, '', '', '', '', 0, 0
    FROM generate_series(1, {rows}) n;
    INSERT INTO turns (turn_id, sid, seq, state, queued, strategy, source, priority, attempts, revision, reason, waiting_for, loop,
        input_tokens, output_tokens, created_at_ms)
    SELECT gen_random_uuid(), n / 10, n, 'completed', false, '', '', 0, 0, 0, '', '', '', 0, 0, 0
    FROM generate_series(1, {rows}) n;
    INSERT INTO journal SELECT n / 100, n, 0, 1 << 20, gen_random_uuid(), '' FROM generate_series(1, {rows}) n;
    INSERT INTO approvals (id, sid, namespace, turn_id, call, kind, state, payload, outcome, resolved_by, created_at_ms)
    SELECT 'a' || n, n / 10, 'acme', gen_random_uuid(), 1, '', 'resolved', '', '', '', 0 FROM generate_series(1, {rows}) n;
    INSERT INTO fragments SELECT n / 10, n, 'text', 0, '' FROM generate_series(1, {rows}) n;
    INSERT INTO keys SELECT 'acme', 'http', 'k' || n, '', 1, '', 1, '', '', 0 FROM generate_series(1, {rows}) n;
    ANALYZE"""


def table_scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a plan that read a table or an index of one. A bitmap is judged by the index scans under it."""
    found = [plan] if "Scan" in plan["Node Type"] and ("Relation Name" in plan or "Index Name" in plan) else []
    if plan["Node Type"] == "Bitmap Heap Scan":
        found = []
    return found + [scan for part in plan.get("Plans", []) for scan in table_scans(part)]


async def use_everything(store: PostgresStore, claimed: Claimed) -> None:
    """Every read, once."""
    session: SessionRow = claimed.session
    await store.read_entries(session.sid, 0, 10)
    await store.read_entries(session.sid, 0, 10, ["step.finished"])
    await store.read_turn(session.sid, claimed.turn.turn_id, 1)
    await store.read_context(session.sid, 100, 10)
    await store.read_messages(session.sid, 0, 10)
    await store.read_fragments(session.sid, 3)
    await store.tails([session.sid])
    await store.heartbeat(s.WORKER, s.LONG_MS)
    await store.next_wake_ms()
    await store.workers()
    await store.owned(s.WORKER)
    await store.get_session(s.where(session))
    await store.get_turn(session.sid, claimed.turn.turn_id)
    await store.list_sessions(session.namespace, "", "", 5)
    await store.list_sessions(session.namespace, session.agent, "", 5)
    await store.list_turns(session.sid, "", 5)
    await store.get_approval(session.namespace, "none")
    await store.list_approvals(session.namespace, "", "", 5)
    await store.list_approvals(session.namespace, "open", "", 5)
    await store.list_resources("*", "Agent", "", 5)
    await store.list_resources(session.namespace, "Agent", "", 5)
    await store.list_revisions(session.namespace, session.agent, "", 5)
    await s.finish(store, claimed)


class TestSchema:
    async def test_of_many_that_start_on_an_empty_database_one_migrates(self, empty_database_url: str) -> None:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(empty_database_url)) for _ in range(4)]
            assert await stores[0].schema_version() == (0, 2)
            answers = await asyncio.wait_for(asyncio.gather(*(store.migrate() for store in stores)), 60)
            assert sorted(answers) == [[], [], [], [1, 2]]
            await s.ensure_agent(stores[0])
            row, created = await stores[1].create_session(NewSession(s.fresh_id(), "acme", "support", "s1"))
            assert created
            assert await stores[2].get_session(("acme", "support", "s1")) == row

    async def test_an_incarnation_never_counts_over_one_that_came_and_went_meanwhile(
        self, store: PostgresStore, second: PostgresStore
    ) -> None:
        new = NewSession(s.fresh_id(), "acme", "support", "s1")
        await s.ensure_agent(store)

        async def come_and_go(handle: PostgresStore) -> list[SessionRow]:
            rows: list[SessionRow] = []
            for _ in range(10):
                row, _ = await handle.create_session(msgspec.structs.replace(new, uid=s.fresh_id()))
                await handle.deliver([s.message(row), DeleteSession(s.where(row))])
                last = await handle.get_session_by_sid(row.sid)
                assert last is not None
                rows.append(last)
            return rows

        lists = await asyncio.wait_for(asyncio.gather(*(come_and_go(handle) for handle in (store, second) for _ in range(2))), 60)
        rows = sorted({row.sid: row for rows in lists for row in rows}.values(), key=lambda row: row.first_seq)
        for before, after in pairwise(rows):
            assert before.last_seq < after.first_seq
