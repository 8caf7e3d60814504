"""The second wall: row-level security for what gateways read for their callers (decision 0017), asked of PostgreSQL itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from support.postgres import PostgresServer, database_of
from talon.cli.system import SystemIds
from talon.domain.errors import Unavailable
from talon.domain.inbox import Key
from talon.domain.resources import Ref, Requirement
from talon.domain.schedules import encode_plan
from talon.store.access import LogFilter, LogRow, NewCredential
from talon.store.conformance import support as s
from talon.store.conformance.resources import put
from talon.store.conformance.schedules import plan
from talon.store.model import Fragment
from talon.store.postgres import PostgresStore, open_store
from talon.store.postgres.commit_sql import PARTS, commit
from talon.store.postgres.deliver_sql import FOUND, PART_NAMES, write
from talon.store.postgres.driver import Connection, Row, connect
from talon.store.postgres.pool import POOL_MAX, Pool
from talon.store.postgres.queue_sql import CLAIM
from talon.store.postgres.walled import settings_of
from talon.store.resources import Changes, UseRow
from talon.store.schedules import Fires
from talon.store.sight import NOTHING, Sight, looking_up, seeing

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: Above, below and beside each other, and apart; `acme` begins three that do not lie in it.
PLACES = ("acme", "acme:eu", "acme:eu:de", "acme-two", "acmex", "beta")
#: Tables that say of no namespace what is in it. The role of the wall may not read them.
NOBODYS = {"schema_info", "workers", "definitions", "access_state", "shared_states", "dropped_occurrences"}
_SESSIONS = "(SELECT s.namespace FROM sessions s WHERE s.sid = t.sid)"
_KINDS = "CASE t.kind WHEN 'Namespace' THEN t.name ELSE t.namespace END"
#: Where the rows of a table belong; of one that is not here, its column `namespace` says so.
PLACE_OF = {
    **dict.fromkeys(("turns", "journal", "fragments", "held"), _SESSIONS),
    **dict.fromkeys(("resources", "resource_labels", "resource_refs", "resource_events"), _KINDS),
    "firings": "(SELECT s.namespace FROM schedules s WHERE s.uid = t.uid)",
    "credentials": "array_to_string(t.places, ' ')",
}
SEE = (
    "SELECT set_config('talon.namespaces', $1, false), set_config('talon.above', $2, false), "
    "set_config('talon.agent', $3, false), set_config('talon.session', $4, false)"
)


def covers(granted: str, place: str) -> bool:
    """By segment, worked out otherwise than the product does."""
    mine, theirs = granted.split(":"), place.split(":")
    return theirs[: len(mine)] == mine


def seen(sight: Sight) -> set[str]:
    return {place for place in PLACES if any(covers(one, place) for one in sight.namespaces)}


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walled(postgres: PostgresServer, url: str) -> AsyncIterator[PostgresStore]:
    """With the wall up, and something of each of `PLACES` in every table."""
    store = await open_store(url, SystemIds())
    await s.register(store)
    for number, place in enumerate(PLACES):
        await _furnish(store, place, number)
    fired = "SELECT s.uid, 1, 'fired', 0, 0, 1, 0, 0, false, 'a', 's', 0, '', '' FROM schedules s"
    postgres.sql(f"INSERT INTO firings {fired}", database_of(url))
    for name, places in (("both", ("acme", "beta")), ("all", ("*",)), ("none", ())):
        assert await store.add_credential(NewCredential(name, "key", b"", b"", "local", places=places)) is not None
    wall = await store.raise_wall()
    assert (wall.role, wall.missing) == ("talon_gateway", "")
    yield store
    await store.close()


async def _furnish(store: PostgresStore, place: str, number: int) -> None:
    await s.ensure(store, ("", "Namespace", place))
    named: dict[str, Any] = {"namespace": place, "labels": {"team": "one", "tier": "two"}, "refs": (Ref("AgentTemplate", "base"),)}
    fires = Fires(encode_plan(plan()), True, "2025a")
    puts = (
        put("base", kind="AgentTemplate", namespace=place),
        put(s.AGENT, effective=b"{}", digest="d", **named),
        put("token", kind="Secret", sealed=b"sealed", key_id="k", namespace=place),
        put("nightly", kind="Schedule", fires=fires, namespace=place),
    )
    await store.change(Changes(puts))
    await store.record_use(UseRow(place, "token", "w", "test", 0))
    await store.put_blob(place, place.encode())
    await store.append_log([LogRow(1, "key:a", "v", "o", place, "x", "ok", "r", "", "http")])
    assert await store.add_credential(NewCredential(f"c{number}", "key", b"", b"", "local", places=(place,))) is not None
    for name in ("s1", "s2"):
        session = await s.create(store, name, namespace=place)
        await s.send(store, session, key=Key("http", f"{name}-{place}", "aa"))
        claimed = await s.claim_one(store)
        await s.commit(store, s.append(claimed, fragments=(Fragment(claimed.session.last_seq, 0, "text"),)))
        if name == "s1":
            await s.park(store, claimed, approval=s.fresh_id())
    # The second one stays held.


@contextlib.asynccontextmanager
async def at_the_wall(url: str, sight: Sight | None) -> AsyncGenerator[Connection]:
    """A connection with the role and the settings of a sight; of none, with the role alone."""
    connection = await connect(url, "talon_gateway")
    try:
        if sight is not None:
            await connection.fetchrow(SEE, *settings_of(sight))
        yield connection
    finally:
        await connection.close()


async def tables(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1")
    return [row[0] for row in rows]


async def places_in(connection: Connection, table: str) -> set[str]:
    place = PLACE_OF.get(table, "t.namespace")
    return {row[0] for row in await connection.fetch(f"SELECT DISTINCT {place} FROM {table} t")}


class TestDirectly:
    """With the role and the settings: `SELECT` without `WHERE`."""

    async def test_every_table_is_behind_the_wall_or_nobodys(self, walled: PostgresStore, url: str) -> None:
        """A new table without a policy fails here."""
        behind = (
            "SELECT count(*) = 2 AND bool_and(c.relrowsecurity) FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid "
            "WHERE c.oid = $1::text::regclass"
        )
        async with at_the_wall(url, Sight(("acme",))) as connection:
            for table in await tables(connection):
                if table in NOBODYS:
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.fetch(f"SELECT * FROM {table}")
                else:
                    assert await connection.fetchval(behind, table), (
                        f"{table} has no policies: say who sees its rows (migration 0002)"
                    )

    @pytest.mark.parametrize(
        "sight",
        [Sight(("acme",)), Sight(("acme:eu",)), Sight(("acme-two", "beta")), Sight(PLACES), Sight(("gone",)), NOTHING, None],
    )
    async def test_a_select_without_where_shows_ones_own_rows_and_all_of_them(
        self, walled: PostgresStore, url: str, sight: Sight | None
    ) -> None:
        expected = seen(sight or NOTHING)
        owner = await connect(url)
        try:
            async with at_the_wall(url, sight) as connection:
                for table in set(await tables(owner)) - NOBODYS:
                    there, found = await places_in(owner, table), await places_in(connection, table)
                    assert set(PLACES) <= there, f"{table}: the test has put nothing there"
                    if table == "credentials":
                        expected_here = {one for one in there if one and set(one.split()) <= expected}
                    else:
                        expected_here = expected | {""} if table == "namespace_versions" else expected
                    assert found == expected_here, table
                    count = f"SELECT count(*) FROM {table} t WHERE {PLACE_OF.get(table, 't.namespace')} = ANY($1::text[])"
                    everything = await owner.fetchval(count, sorted(expected_here))
                    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == everything, table
        finally:
            await owner.close()

    async def test_a_clients_token_has_a_wall_as_narrow_as_it(self, walled: PostgresStore, url: str) -> None:
        for sight, sessions in ((Sight(("acme",), s.AGENT), {"s1", "s2"}), (Sight(("acme",), s.AGENT, "s1"), {"s1"})):
            async with at_the_wall(url, sight) as connection:
                rows = await connection.fetch("SELECT namespace, agent, id FROM sessions")
                assert {tuple(row) for row in rows} == {(place, s.AGENT, one) for place in seen(sight) for one in sessions}
                for table in ("turns", "journal", "fragments"):
                    found = await connection.fetch(
                        f"SELECT DISTINCT (SELECT s.id FROM sessions s WHERE s.sid = t.sid) FROM {table} t"
                    )
                    assert {row[0] for row in found} == sessions, table
                assert {row[0] for row in await connection.fetch("SELECT kind FROM resources")} == {"Namespace", "Agent"}
                assert await connection.fetchval("SELECT count(*) FROM revisions") == len(seen(sight))
                for table in ("access_log", "credentials", "schedules", "firings", "sealed_values", "resource_events", "keys"):
                    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        async with at_the_wall(url, Sight(("acme",), "other")) as connection:
            assert await connection.fetchval("SELECT count(*) FROM journal") == 0

    async def test_of_what_lies_above_only_what_is_inherited_is_seen_and_only_where_references_are_resolved(
        self, walled: PostgresStore, url: str
    ) -> None:
        own = Sight(("acme:eu:de",))
        with seeing(own), looking_up():
            wanted = [(place, kind, name) for place in PLACES for kind, name in (("AgentTemplate", "base"), ("Agent", s.AGENT))]
            wanted += [("", "Namespace", place) for place in PLACES] + [(place, "Secret", "token") for place in PLACES]
            rows = await walled.get_resources(wanted)
        found = {(row.kind, row.namespace or row.name) for row in rows}
        above = {("AgentTemplate", "acme"), ("AgentTemplate", "acme:eu"), ("Namespace", "acme"), ("Namespace", "acme:eu")}
        assert found == above | {(kind, "acme:eu:de") for kind in ("AgentTemplate", "Agent", "Namespace", "Secret")}
        with seeing(own):
            assert {row.namespace or row.name for row in await walled.get_resources(wanted)} == {"acme:eu:de"}

    async def test_the_role_changes_nothing(self, walled: PostgresStore, url: str) -> None:
        async with at_the_wall(url, Sight(PLACES)) as connection:
            for table in await tables(connection):
                for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table}"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)
            await connection.execute("RESET ROLE")
            assert await connection.fetchval("SELECT current_user::text") == "talon_gateway"


async def asked(store: PostgresStore, schedule: str) -> dict[str, Any]:
    """What callers can read of `acme:eu`."""
    session = await store.get_session(("acme:eu", s.AGENT, "s1"))
    sid = session.sid if session else 0
    selector = (Requirement("team", "in", ("one",)), Requirement("tier", "exists"))
    return {
        "session": session,
        "sessions of an agent": (await store.list_sessions("acme:eu", s.AGENT, "", 10))[0],
        "sessions": (await store.list_sessions("acme:eu", "", "", 1))[0],
        "journal": await store.read_entries(sid, 0, 100),
        "messages": await store.read_messages(sid, 0, 100),
        "turns": (await store.list_turns(sid, "", 10))[0],
        "approvals": (await store.list_approvals("acme:eu", "open", "", 3))[0],
        "namespace": await store.get_resources([("", "Namespace", "acme:eu")]),
        "agents": (await store.list_resources("acme:eu", "Agent", "", 3))[0],
        "agents with labels": (await store.list_resources("acme:eu", "Agent", "", 3, selector))[0],
        "everything": (await store.list_all("acme:eu", "", 3))[0],
        "references": dict(await store.refs_of([("acme:eu", "Agent", s.AGENT)])),
        "users": (await store.users("acme:eu", Ref("AgentTemplate", "base"), "", 3))[0],
        "revisions": (await store.list_revisions("acme:eu", s.AGENT, "", 3))[0],
        "changes": (await store.read_events("acme:eu", 0, 3))[0],
        "changes of agents": (await store.read_events("acme:eu", 0, 1, "Agent"))[0],
        "uses of a secret": (await store.list_uses("acme:eu", "token", "", 3))[0],
        "value": await store.get_sealed("acme:eu", "token"),
        "log": (await store.list_log(LogFilter(namespace="acme:eu"), "", 3))[0],
        "schedule": await store.get_schedules([schedule]),
        "firings": (await store.list_firings(schedule, "", 3))[0],
        "keys": (await store.list_credentials("key", "", 3, ["acme:eu"]))[0],
    }


class TestThroughTheStore:
    async def test_each_read_shows_what_is_in_sight(self, walled: PostgresStore) -> None:
        """Also those that are asked otherwise through the wall, because of their indexes."""
        (schedule,) = await walled.get_resources([("acme:eu", "Schedule", "nightly")])
        everything = await asked(walled, schedule.uid)
        for sight in (Sight(("acme:eu",)), Sight(("acme", "beta"))):
            with seeing(sight):
                assert await asked(walled, schedule.uid) == everything
        with seeing(Sight(("beta", "acme:e", "acme:eu-two"))):
            now = await asked(walled, schedule.uid)
        for name, before in everything.items():
            assert before, f"the test has put nothing there for {name}"
            assert not now[name], name

    async def test_a_watch_of_namespaces_misses_nothing_behind_what_it_does_not_see(self, walled: PostgresStore) -> None:
        for kind in ("", "Namespace"):
            with seeing(Sight(("beta",))):
                events, upto = await walled.read_events("", 0, 2, kind)
                assert [one.row.name for one in events] == ["beta"]
            assert upto == (await walled.versions([""]))[""]

    async def test_no_connection_shows_what_its_last_user_sees(self, walled: PostgresStore) -> None:
        """More at once than there are connections, some of them cancelled at any moment."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        dice = random.Random(seed)
        sights = [Sight((place,)) for place in PLACES] + [Sight(("acme", "beta")), NOTHING, None]
        wrong: list[str] = []

        async def reader(choice: random.Random) -> None:
            for _ in range(40):
                sight = choice.choice(sights)
                with seeing(sight):
                    rows = await walled.list_resources("*", "Agent", "", 100)
                    found = {row.namespace for row in rows[0]}
                    if found != (set(PLACES) if sight is None else seen(sight)):
                        wrong.append(f"{sight} saw {found}")

        readers = [asyncio.create_task(reader(random.Random(dice.random()))) for _ in range(POOL_MAX * 4)]
        cancelled = dice.sample(readers, POOL_MAX)
        for one in cancelled:
            await asyncio.sleep(dice.random() * 0.02)
            one.cancel()
        done = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 60)
        assert wrong == []
        assert [one for one in done if one is not None and not isinstance(one, asyncio.CancelledError)] == []

    async def test_the_wall_is_asked_once_whether_it_covers_a_place(self, walled: PostgresStore) -> None:
        assert await walled.covers(("beta", s.AGENT, "s1"))
        with seeing(Sight(("acme",))):
            assert await walled.covers(("acme:eu", s.AGENT, "new"))
            assert not await walled.covers(("acmex", s.AGENT, "s1"))
        with seeing(Sight(("acme",), s.AGENT, "s1")):
            assert await walled.covers(("acme", s.AGENT, "s1"))
            assert not await walled.covers(("acme", s.AGENT, "s2"))
            assert not await walled.covers(("acme", "other", "s1"))

    async def test_what_workers_and_writers_ask_is_planned_as_if_there_were_no_wall(self, walled: PostgresStore, url: str) -> None:
        connection = await connect(url)
        try:
            for number, statement in enumerate((CLAIM, FOUND, write(PART_NAMES, notify=True), commit(tuple(PARTS), notify=True))):
                await connection.execute(f"PREPARE s{number} AS {statement}")
                count = max(int(one) for one in re.findall(r"\$(\d+)", statement))
                rows = await connection.fetch(f"EXPLAIN (VERBOSE) EXECUTE s{number} ({', '.join(['NULL'] * count)})")
                assert not re.search("current_setting|wall_role|in_sight", "".join(row[0] for row in rows))
        finally:
            await connection.close()


class Owners:
    """Login roles that own a database each."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres, self._made = postgres, list[tuple[str, str]]()

    def make(self, name: str, attributes: str = "") -> str:
        """-> the URL of a database that `name` owns, a role without any right beside."""
        url = self._postgres.create_database(migrated=False)
        self._postgres.sql(f"CREATE ROLE {name} LOGIN {attributes}; ALTER DATABASE {database_of(url)} OWNER TO {name}")
        self._postgres.sql(f"ALTER SCHEMA public OWNER TO {name}", database_of(url))
        self._made.append((name, url))
        return url.replace("://talon@", f"://{name}@")

    def sql(self, text: str) -> None:
        self._postgres.sql(text)

    def drop(self) -> None:
        for name, url in self._made:
            self._postgres.drop_database(url)
            self._postgres.sql(f"DROP ROLE IF EXISTS {name}_gateway; DROP ROLE {name}")


@pytest.fixture
def owners(postgres: PostgresServer) -> Iterator[Owners]:
    made = Owners(postgres)
    yield made
    made.drop()


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresStore]:
    store = await open_store(url, SystemIds())
    try:
        await store.migrate()
        for place in ("acme", "beta"):
            await s.ensure_agent(store, place)
        yield store
    finally:
        await store.close()


async def shown(store: PostgresStore) -> list[str]:
    with seeing(Sight(("acme",))):
        return [row.namespace for row in (await store.list_resources("*", "Agent", "", 10))[0]]


class TestPuttingItUp:
    async def test_who_may_make_roles_makes_it_and_many_at_once_do(self, owners: Owners) -> None:
        url = owners.make("maker", "CREATEROLE")
        async with opened(url) as store, opened(url) as second, opened(url) as third:
            walls = await asyncio.wait_for(asyncio.gather(*(one.raise_wall() for one in (store, second, third))), 30)
            assert [(wall.stands, wall.role, wall.missing) for wall in walls] == [(True, "maker_gateway", "")] * 3
            for one in (store, second, third):
                assert await shown(one) == ["acme"]
            assert (await store.raise_wall()).stands

    async def test_who_may_not_is_told_what_to_have_done_and_goes_on_without(self, owners: Owners) -> None:
        async with opened(owners.make("plain")) as store:
            wall = await store.raise_wall()
            assert not wall.stands
            assert "there is no role 'plain_gateway', and 'plain' may not make it" in wall.missing
            assert await shown(store) == ["acme", "beta"]
            (advice,) = re.findall("`(.*)`", wall.missing)
            owners.sql("CREATE ROLE plain_gateway NOLOGIN")
            told = await store.raise_wall()
            assert "'plain' may not take the role 'plain_gateway'" in told.missing
            assert not told.stands
            owners.sql(f"DROP ROLE plain_gateway; {advice}")
            assert (await store.raise_wall()).stands
            assert await shown(store) == ["acme"]

    @pytest.mark.parametrize("attribute", ["BYPASSRLS", "SUPERUSER"])
    async def test_a_role_that_nothing_holds_back_is_no_wall(self, owners: Owners, attribute: str) -> None:
        name = f"open_{attribute.lower()}"
        async with opened(owners.make(name)) as store:
            owners.sql(f"CREATE ROLE {name}_gateway NOLOGIN {attribute}; GRANT {name}_gateway TO {name}")
            wall = await store.raise_wall()
            assert not wall.stands
            assert "is not held back from access_log, " in wall.missing

    async def test_it_never_comes_down_in_silence(self, owners: Owners) -> None:
        async with opened(owners.make("robbed", "CREATEROLE")) as store:
            assert (await store.raise_wall()).stands
            assert await shown(store) == ["acme"]
            owners.sql("REVOKE robbed_gateway FROM robbed CASCADE")
            owners.sql("SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.usename = 'robbed'")
            with pytest.raises(Unavailable, match="robbed_gateway"):
                await shown(store)
            rows, _ = await store.list_resources("*", "Agent", "", 10)  # with its own role
            assert len(rows) == 2


#: Thousands of each, most of them somebody else's.
FILL = """
CREATE TEMP TABLE n AS SELECT n, CASE WHEN n % 4 = 0 THEN 'acme:eu' ELSE 'beta' END AS place FROM generate_series(1, 5000) n;
INSERT INTO sessions (uid, first_seq, created_at_ms, namespace, agent, id, profile, key_id, metadata, features, fence, last_seq,
    updated_at_ms, queued, state)
SELECT gen_random_uuid(), 1, 0, place, 'support', 'n' || n, '', '', '', '', 1, 3, 0, 0, 'idle' FROM n;
INSERT INTO turns (turn_id, sid, seq, created_at_ms, strategy, source, queued, priority, revision, attempts, input_tokens,
    output_tokens, state, reason, waiting_for, loop)
SELECT gen_random_uuid(), s.sid, 1, 0, '', '', false, 0, 1, 1, 0, 0, 'completed', '', '', '' FROM sessions s WHERE s.id LIKE 'n%';
INSERT INTO journal (sid, last_seq, at_ms, types, pack)
SELECT s.sid, q, 0, j.types, j.pack FROM sessions s, generate_series(1, 3) q, (SELECT * FROM journal LIMIT 1) j
WHERE s.id LIKE 'n%';
INSERT INTO approvals (id, sid, namespace, turn_id, call, kind, state, payload, outcome, resolved_by, created_at_ms)
SELECT 'a' || s.sid, s.sid, s.namespace, gen_random_uuid(), 1, '', 'open', '', '', '', 0 FROM sessions s WHERE s.id LIKE 'n%';
INSERT INTO resources (namespace, kind, name, uid, generation, revision, version, body, created_at_ms, updated_at_ms)
SELECT place, 'Agent', 'zz' || n, 'u' || n, 1, 1, n + 100, '', 0, 0 FROM n;
INSERT INTO resource_labels SELECT place, 'Agent', 'zz' || n, 'team', 'two' FROM n;
INSERT INTO resource_refs SELECT place, 'Agent', 'zz' || n, 'AgentTemplate', 'base' FROM n;
INSERT INTO revisions SELECT place, 'zz' || n, 1, '', '', '', '', 0 FROM n;
INSERT INTO resource_events (namespace, version, event, kind, name, uid, generation, revision, body, created_at_ms, updated_at_ms,
    labels_before, at_ms)
SELECT place, n + 100, 'added', 'Agent', 'zz' || n, 'u' || n, 1, 1, '', 0, 0, '', 0 FROM n;
UPDATE namespace_versions SET version = 30000;
INSERT INTO secret_uses (namespace, name, used_by, purpose, at_ms) SELECT place, 'other' || n, '', '', 0 FROM n;
INSERT INTO access_log (at_ms, who, verb, operation, namespace, object, outcome, request_id, address, via)
SELECT 1, '', '', '', CASE place WHEN 'beta' THEN place ELSE 'acmex' END, '', 'ok', '', '', '' FROM n;
INSERT INTO firings SELECT 'u' || n, 1, 'fired', 0, 0, 1, 0, 0, false, '', '', 0, '', '' FROM n;
INSERT INTO credentials (id, kind, digest, name, grants, agent, session, parent, created_by, created_at_ms, places)
SELECT 'f' || n, 'key', '', '', '', '', '', '', '', 0, ARRAY['beta'] FROM n;
"""


async def test_what_is_read_through_the_wall_costs_the_same_among_many(
    walled: PostgresStore, postgres: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pages, statement by statement, under plans that were made before. Comes last: it fills the tables."""
    (schedule,) = await walled.get_resources([("acme:eu", "Schedule", "nightly")])
    pages: dict[str, int] = {}

    async def counting(self: Pool, query: str, *args: object, again: bool = True) -> list[Row]:
        async def explained(connection: Connection) -> list[Row]:
            told = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *args)
            root = msgspec.json.decode(told)[0]["Plan"]
            pages[query] = max(pages.get(query, 0), root["Shared Hit Blocks"] + root["Shared Read Blocks"])
            return await connection.fetch(query, *args)

        return await self.run(explained, again=again)

    async def row(self: Pool, query: str, *args: object, again: bool = True) -> Row | None:
        return next(iter(await counting(self, query, *args, again=again)), None)

    monkeypatch.setattr(Pool, "fetch", counting)
    monkeypatch.setattr(Pool, "fetchrow", row)
    found: list[dict[str, int]] = []
    for after in ("", FILL, "VACUUM ANALYZE"):
        postgres.sql(after, database_of(url))
        for _ in range(2):
            pages.clear()
            with seeing(Sight(("acme:eu",))):
                await asked(walled, schedule.uid)
        found.append(dict(pages))
    few, many, analyzed = found
    print({query: (few[query], many[query], analyzed[query]) for query in few})
    assert len(few) >= 20
    assert {
        query: (few[query], many[query], analyzed[query])
        for query in few
        if max(many[query], analyzed[query]) > 2 * few[query] + 40
    } == {}
