"""Both brokers carry bells alike; the PostgreSQL one does so across the loss of its connection, and hears what the store writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from support.postgres import PostgresServer, database_of
from support.stores import on_server
from support.waiting import until
from talon.cli.system import SystemIds
from talon.dispatch.brokers.local import LocalBroker
from talon.dispatch.brokers.postgres import PostgresBroker
from talon.dispatch.brokers.protocol import Broker
from talon.domain import entries as e
from talon.domain.bell import CHANNEL, EVERYTHING, Bell, encode
from talon.store.conformance import support as s
from talon.store.model import Fragment
from talon.store.postgres import PostgresStore, open_store


@dataclass
class Ear:
    """A listener that remembers."""

    bells: list[Bell] = field(default_factory=list[Bell])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, bell: Bell) -> None:
        self.bells.append(bell)
        self._news.set()

    async def until(self, wanted: Callable[[list[Bell]], bool], timeout_s: float = 10.0) -> list[Bell]:
        """Wait until `wanted` of what was heard is true; -> all that was heard."""
        async with asyncio.timeout(timeout_s):
            while not wanted(self.bells):
                self._news.clear()
                await self._news.wait()
        return self.bells


@dataclass
class SessionEar(Ear):
    """Remembers what is told of sessions, and apart from that in which namespaces resources changed."""

    namespaces: list[str] = field(default_factory=list[str])

    def __call__(self, bell: Bell) -> None:
        self.namespaces += bell.namespaces
        if not bell.namespaces:
            super().__call__(bell)


@dataclass
class Rig:
    """A started broker, and a way to send a bell to it as another process would."""

    broker: Broker
    send: Callable[[Bell], Awaitable[None]]


@pytest.fixture(params=["local", "postgres"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "local":
        local = LocalBroker()

        async def ring(bell: Bell) -> None:
            local.ring(bell)

        made = Rig(local, ring)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url: str = request.getfixturevalue("database_url")
        made = Rig(PostgresBroker(url), notifier(server, url))
    await made.broker.start()
    yield made
    await made.broker.close()


def notifier(server: PostgresServer, url: str) -> Callable[[Bell], Awaitable[None]]:
    async def notify(bell: Bell) -> None:
        server.sql(f"SELECT pg_notify('{CHANNEL}', '{encode(bell)}')", database_of(url))

    return notify


class TestEveryBroker:
    async def test_a_bell_reaches_every_listener_in_order(self, rig: Rig) -> None:
        ears = Ear(), Ear()
        for ear in ears:
            rig.broker.listen(ear)
        bells = [Bell(tails=((1, 1),)), Bell(runnable=True), Bell(True, ((1, 2), (7, 9_000_000_000))), EVERYTHING]
        for bell in bells:
            await rig.send(bell)
        for ear in ears:
            assert await ear.until(lambda heard: len(heard) >= len(bells)) == bells

    async def test_a_listener_that_fails_silences_nobody(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        def deaf(_bell: Bell) -> None:
            raise ZeroDivisionError

        ear = Ear()
        rig.broker.listen(deaf)
        rig.broker.listen(ear)
        for seq in (1, 2):
            await rig.send(Bell(tails=((1, seq),)))
        await ear.until(lambda heard: len(heard) == 2)
        assert len([record for record in caplog.records if record.exc_info]) == 2

    async def test_one_that_rings_here_is_heard_here_at_once(self, rig: Rig) -> None:
        ear = Ear()
        rig.broker.listen(ear)
        rig.broker.ring(Bell(runnable=True))
        assert ear.bells == [Bell(runnable=True)]

    async def test_a_bell_that_says_nothing_is_not_rung(self, rig: Rig) -> None:
        ear = Ear()
        rig.broker.listen(ear)
        rig.broker.ring(Bell())
        assert ear.bells == []

    async def test_after_closing_nobody_is_called_and_closing_twice_is_fine(self, rig: Rig) -> None:
        ear = Ear()
        rig.broker.listen(ear)
        await rig.broker.close()
        await rig.send(Bell(runnable=True))
        rig.broker.ring(Bell(runnable=True))
        await rig.broker.close()
        assert ear.bells == []


class TestPostgresBroker:
    """What can happen to a connection."""

    @pytest.fixture
    async def ear(self) -> Ear:
        return Ear()

    @pytest.fixture
    async def broker(self, database_url: str, ear: Ear) -> AsyncIterator[PostgresBroker]:
        made = PostgresBroker(database_url, probe_every_s=0.1)
        made.listen(ear)
        await made.start()
        yield made
        await made.close()

    async def test_it_begins_with_a_look_at_everything(self, broker: PostgresBroker, ear: Ear) -> None:
        assert ear.bells == [EVERYTHING]

    @pytest.mark.parametrize("how", ["backend", "restart", "kill"])
    async def test_after_a_loss_it_looks_at_everything_and_hears_again(
        self, broker: PostgresBroker, ear: Ear, postgres: PostgresServer, database_url: str, how: str
    ) -> None:
        if how == "backend":
            postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'talon-bells'")
        elif how == "restart":
            postgres.restart()
        else:
            postgres.kill()
            postgres.start()
        await ear.until(lambda heard: heard.count(EVERYTHING) == 2)
        await notifier(postgres, database_url)(Bell(tails=((3, 4),)))
        await ear.until(lambda heard: Bell(tails=((3, 4),)) in heard)

    async def test_it_starts_without_a_database_and_hears_when_one_comes(
        self, ear: Ear, postgres: PostgresServer, database_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        postgres.stop()
        made = PostgresBroker(database_url.replace("talon@", "talon:s3cret@"))
        made.listen(ear)
        try:
            await made.start()
            assert ear.bells == []
        finally:
            postgres.start()
        await ear.until(lambda heard: heard == [EVERYTHING])
        await made.close()
        assert "s3cret" not in caplog.text
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1

    async def test_what_it_cannot_read_means_look_at_everything(
        self, broker: PostgresBroker, ear: Ear, postgres: PostgresServer, database_url: str
    ) -> None:
        postgres.sql(f"SELECT pg_notify('{CHANNEL}', 'v2 something newer')", database_of(database_url))
        await ear.until(lambda heard: heard == [EVERYTHING, EVERYTHING])

    async def test_a_silent_connection_is_probed_and_kept(self, broker: PostgresBroker, ear: Ear, postgres: PostgresServer) -> None:
        asked = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'talon-bells'"
        before = postgres.sql(asked)

        async def probed() -> bool:
            return postgres.sql(asked) != before

        await s.until(probed)
        assert ear.bells == [EVERYTHING]


class TestWhoElseListens:
    """A process that is alone need not ring; it learns at once of who comes, and in time of who goes."""

    @pytest.fixture
    async def told(self, database_url: str) -> AsyncIterator[list[bool]]:
        told: list[bool] = []
        broker = PostgresBroker(database_url, others=told.append, probe_every_s=0.1)
        await broker.start()
        yield told
        await broker.close()

    async def test_who_is_alone_is_told_of_the_one_that_comes_and_goes(self, told: list[bool], database_url: str) -> None:
        assert told == [False]
        second, newcomer = list[bool](), PostgresBroker(database_url, others=lambda others: second.append(others))
        await newcomer.start()
        assert second == [True]
        await until(lambda: told[-1])
        await newcomer.close()
        await until(lambda: not told[-1])

    async def test_deaf_it_takes_others_to_be_there(self, told: list[bool], postgres: PostgresServer) -> None:
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'talon-bells'")
        await until(lambda: True in told and not told[-1])  # until it hears again, and finds nobody


class TestWhatTheStoreRings:
    """NOTIFY comes with the commit, for everything that somebody may wait for."""

    @pytest.fixture
    async def store(self, database_url: str) -> AsyncIterator[PostgresStore]:
        async with on_server(database_url) as opened:
            yield opened

    @pytest.fixture
    async def ear(self, database_url: str) -> AsyncIterator[SessionEar]:
        ear, broker = SessionEar(), PostgresBroker(database_url)
        await broker.start()
        broker.listen(ear)
        yield ear
        await broker.close()

    async def test_a_message_an_append_and_the_end_of_a_turn(self, store: PostgresStore, ear: Ear) -> None:
        session, worker = await s.create(store), await s.register(store)
        sid = session.sid
        await s.send(store, session)
        claimed = await s.claim_one(store, worker)
        await s.commit(store, s.append(claimed, e.StepFinished(step="x", decision="y")))
        await s.commit(store, s.append(claimed, fragments=(Fragment(3, 0, "text"),)))
        await s.send(store, session)
        await s.finish(store, claimed)
        heard = await ear.until(lambda heard: len(heard) == 5)
        assert heard == [
            Bell(True, ((sid, 2),)),
            Bell(False, ((sid, 3),)),
            Bell(False, ((sid, 3),)),
            Bell(False, ((sid, 5),)),
            Bell(True, ((sid, 7),)),
        ]

    async def test_a_process_does_not_hear_the_echo_of_its_own_commits(
        self, store: PostgresStore, ear: Ear, database_url: str
    ) -> None:
        other = await open_store(database_url, SystemIds())
        own, broker = SessionEar(), PostgresBroker(database_url, is_ours=store.is_ours)
        await broker.start()
        broker.listen(own)
        await ear.until(lambda heard: heard == [EVERYTHING])  # the greeting
        try:
            session = await s.create(store)
            await s.send(store, session)  # over the connection of deliveries
            claimed = await s.claim_one(store, await s.register(store))
            await s.commit(store, s.append(claimed, e.StepFinished(step="x", decision="y")))  # over that of appends
            await s.send(other, session)
            await own.until(lambda heard: bool(heard))
            await ear.until(lambda heard: len(heard) == 4)
            assert own.bells == [Bell(False, ((session.sid, 5),))]
        finally:
            await broker.close()
            await other.close()

    async def test_nothing_is_rung_where_nobody_else_hears_it(self, store: PostgresStore, ear: Ear) -> None:
        session, worker = await s.create(store), await s.register(store)
        store.heard(by_others=False)
        await s.send(store, session)
        claimed = await s.claim_one(store, worker)
        await s.commit(store, s.append(claimed, e.StepFinished(step="x", decision="y")))
        store.heard(by_others=True)
        await s.commit(store, s.append(claimed, e.StepFinished(step="x", decision="z")))
        assert await ear.until(lambda heard: bool(heard)) == [Bell(False, ((session.sid, 4),))]

    async def test_a_change_of_resources_tells_its_namespaces(self, store: PostgresStore, ear: SessionEar) -> None:
        session = await s.create(store)  # with its namespace and its agent
        await s.send(store, session)
        await ear.until(lambda heard: bool(heard))
        assert set(ear.namespaces) == {"", session.namespace}

    async def test_one_bell_for_a_whole_batch(self, store: PostgresStore, ear: Ear) -> None:
        sessions = [await s.create(store, f"s{number}") for number in range(3)]
        await store.deliver([s.message(session) for session in sessions])
        (bell,) = await ear.until(lambda heard: bool(heard))
        assert (bell.runnable, sorted(bell.tails)) == (True, [(session.sid, 2) for session in sessions])
        claimed = await store.claim(await s.register(store), 3, s.Caps())
        await store.commit([s.append(one, e.StepFinished(step="x", decision="y")) for one in claimed])
        bell = (await ear.until(lambda heard: len(heard) == 2))[1]
        assert (bell.runnable, sorted(bell.tails)) == (False, [(session.sid, 3) for session in sessions])

    async def test_what_was_refused_rings_nothing(self, store: PostgresStore, ear: Ear) -> None:
        claimed = await s.running(store)
        await store.commit([s.append(claimed, e.StepFinished(step="x", decision="y"), fence=0)])
        await store.deliver([s.message(claimed.session, strategy="reject")])
        await s.send(store, claimed.session)
        heard = await ear.until(lambda heard: len(heard) == 2)
        assert heard == [Bell(True, ((claimed.session.sid, 2),)), Bell(False, ((claimed.session.sid, 4),))]

    async def test_sessions_that_are_given_back_are_runnable(self, store: PostgresStore, ear: Ear) -> None:
        await s.running(store)
        await store.retire(s.WORKER)
        await ear.until(lambda heard: heard[1:] == [Bell(runnable=True)])
        await s.claim_one(store, await s.register(store, "w2"))
        await store.heartbeat("w2/boot", -1)
        await store.sweep()
        await store.sweep()
        third = await s.register(store, "w3")
        await s.until(lambda: store.claim(third, 1, s.Caps()))
        await s.register(store, "w3", boot="again")
        await ear.until(lambda heard: heard[1:] == [Bell(runnable=True)] * 3)

    async def test_a_batch_too_long_for_a_bell_says_look_at_everything(
        self, store: PostgresStore, ear: Ear, postgres: PostgresServer, database_url: str
    ) -> None:
        postgres.sql("ALTER TABLE sessions ALTER COLUMN sid RESTART WITH 1000000000000", database_of(database_url))
        for number in range(500):
            await s.create(store, f"s{number}")
        sessions, _ = await store.list_sessions(s.NAMESPACE, "", "", 500)
        await store.deliver([s.message(session) for session in sessions])
        await ear.until(lambda heard: heard == [EVERYTHING])
        claimed = await store.claim(await s.register(store), 500, s.Caps())
        assert len(claimed) == 500
        await store.commit([s.append(one, e.StepFinished(step="x", decision="y")) for one in claimed])
        await ear.until(lambda heard: heard == [EVERYTHING] * 2)

    async def test_a_store_that_shall_not_notify_is_silent(self, store: PostgresStore, ear: Ear, database_url: str) -> None:
        silent = await open_store(database_url, SystemIds(), notify=False)
        claimed = await s.running(silent)
        await s.commit(silent, s.append(claimed, e.StepFinished(step="x", decision="y")))
        await silent.retire(s.WORKER)
        await silent.close()
        await s.send(store, claimed.session)
        assert await ear.until(lambda heard: bool(heard)) == [Bell(True, ((claimed.session.sid, 5),))]
