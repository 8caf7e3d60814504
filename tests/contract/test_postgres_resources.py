"""What only PostgreSQL can do to resources: two changes that really run at once, a plan that was made on empty tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from support.pgproxy import Cut, proxy
from support.postgres import PostgresServer, database_of
from support.stores import on_server
from talon.cli.system import SystemIds
from talon.domain.errors import Conflict, NotFound, Unavailable
from talon.store.conformance import support as s
from talon.store.conformance.creation import first
from talon.store.conformance.resources import put
from talon.store.model import NewSession
from talon.store.postgres import PostgresStore, deliver_sql, open_store, resources_sql
from talon.store.postgres.driver import Connection, connect
from talon.store.resources import Changes, DeleteResource, PutResource, Ref, SameUsers, Unchanged

BASE = Ref("AgentTemplate", "base")
GATE = 4_711_001


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with on_server(database_url) as opened:
        yield opened


@pytest.fixture
async def blocker(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url)
    yield connection
    await connection.close()


class Meeting:
    """Two transactions at once: the first has written and cannot commit before the second has come to wait, or is done."""

    def __init__(self, postgres: PostgresServer, url: str, blocker: Connection) -> None:
        self._postgres, self._database, self._blocker = postgres, database_of(url), blocker

    async def of(self, table: str, one: Awaitable[Any], two: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
        """The answers (or exceptions) of `one`, which inserts into `table`, and of `two`."""
        gate = f"""
            CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION gate()"""
        self._postgres.sql(gate, self._database)
        await self._blocker.execute(f"SELECT pg_advisory_lock({GATE})")
        early = asyncio.ensure_future(one)
        await s.until(lambda: self._waiting(1, early))
        late = asyncio.ensure_future(two())
        await s.until(lambda: self._waiting(2, late))
        await self._blocker.execute(f"SELECT pg_advisory_unlock({GATE})")
        answers = await asyncio.wait_for(asyncio.gather(early, late, return_exceptions=True), 20)
        return answers[0], answers[1]

    async def _waiting(self, number: int, task: asyncio.Future[Any]) -> bool:
        count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self._database}' AND wait_event_type = 'Lock'"
        return task.done() or int(self._postgres.sql(count)) >= number


@pytest.fixture
def meeting(postgres: PostgresServer, database_url: str, blocker: Connection) -> Meeting:
    return Meeting(postgres, database_url, blocker)


AGENT_ENDS = Changes(deletes=(DeleteResource("acme", "Agent", s.AGENT, 1),))


class TestAtOnce:
    async def with_agent(self, store: PostgresStore) -> None:
        await s.ensure(store, ("", "Namespace", "acme"))
        await store.change(Changes((put(s.AGENT, effective=b"{}", digest="d"),)))

    async def test_an_agent_is_not_deleted_beside_a_session_that_begins(self, store: PostgresStore, meeting: Meeting) -> None:
        await self.with_agent(store)
        new = NewSession(s.fresh_id(), "acme", s.AGENT, "s1")
        made, refusal = await meeting.of("sessions", store.create_session(new), lambda: store.change(AGENT_ENDS))
        assert made[1] is True
        assert isinstance(refusal, Conflict)
        assert refusal.code == "in_use"
        assert await store.get_resource("acme", "Agent", s.AGENT) is not None

    async def test_an_agent_is_not_deleted_beside_a_first_message(self, store: PostgresStore, meeting: Meeting) -> None:
        await self.with_agent(store)
        receipt, refusal = await meeting.of("sessions", s.deliver(store, first(1)), lambda: store.change(AGENT_ENDS))
        assert receipt.seq == 1
        assert isinstance(refusal, Conflict)
        assert await store.get_resource("acme", "Agent", s.AGENT) is not None

    @pytest.mark.parametrize("by", ["route", "message", "apply"])
    @pytest.mark.parametrize("ends", ["deleted", "marked", "namespace"])
    async def test_no_session_begins_beside_the_end_of_its_agent(
        self, store: PostgresStore, meeting: Meeting, by: str, ends: str
    ) -> None:
        await self.with_agent(store)
        new = NewSession(s.fresh_id(), "acme", s.AGENT, "new")
        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "route": lambda: store.create_session(new),
            "message": lambda: s.deliver(store, first(1)),
            "apply": lambda: store.change(Changes(sessions=(new,))),
        }
        marked = put(s.AGENT, 1, None, deleting=True)
        space = PutResource("", "Namespace", "acme", "u", 1, None, deleting=True)
        changes = {"deleted": AGENT_ENDS, "marked": Changes((marked,)), "namespace": Changes((space, marked))}
        _, refusal = await meeting.of("resource_events", store.change(changes[ends]), ways[by])
        assert isinstance(refusal, Conflict | NotFound), refusal
        assert await store.get_session(("acme", s.AGENT, "new")) is None

    @pytest.mark.parametrize("namespace", ["acme", "acme:eu", "acme:eu:fr"])
    async def test_a_template_is_not_deleted_beside_an_agent_made_from_it(
        self, store: PostgresStore, meeting: Meeting, namespace: str
    ) -> None:
        await s.ensure(store, *(("", "Namespace", name) for name in sorted({"acme", namespace})))
        await store.change(Changes((put("base", kind="AgentTemplate"),)))
        made = Changes((put("a", namespace=namespace, refs=(BASE,)),), unchanged=(Unchanged("acme", "AgentTemplate", "base", 1),))
        gone = Changes(deletes=(DeleteResource("acme", "AgentTemplate", "base", 1),), same_users=(SameUsers("acme", BASE, ()),))
        rows, refusal = await meeting.of("resources", store.change(made), lambda: store.change(gone))
        assert [row.name for row in rows] == ["a"]
        assert isinstance(refusal, Conflict)
        assert await store.get_resource("acme", "AgentTemplate", "base") is not None

    async def test_users_are_guarded_also_where_nothing_else_is_written(self, store: PostgresStore, meeting: Meeting) -> None:
        await s.ensure(store, *(("", "Namespace", name) for name in ("acme", "acme:eu", "other")))
        made = Changes((put("a", namespace="acme:eu", refs=(BASE,)),))
        guarded = Changes((put("x", namespace="other", kind="Knowledge"),), same_users=(SameUsers("acme", BASE, ()),))
        _, refusal = await meeting.of("resources", store.change(made), lambda: store.change(guarded))
        assert isinstance(refusal, Conflict)

    @pytest.mark.parametrize("inside", ["acme", "acme:eu"])
    async def test_a_namespace_is_not_deleted_beside_what_is_put_into_it(
        self, store: PostgresStore, meeting: Meeting, inside: str
    ) -> None:
        await s.ensure(store, ("", "Namespace", "acme"))
        made = put("a") if inside == "acme" else PutResource("", "Namespace", "acme:eu", "u", 0, b"{}")
        gone = Changes(deletes=(DeleteResource("", "Namespace", "acme", 1),))
        _, refusal = await meeting.of("resources", store.change(Changes((made,))), lambda: store.change(gone))
        assert isinstance(refusal, Conflict)
        assert refusal.code == "in_use"
        assert await store.get_resource("", "Namespace", "acme") is not None

    async def test_a_version_is_not_seen_before_those_below_it(self, store: PostgresStore, meeting: Meeting) -> None:
        await s.ensure(store, ("", "Namespace", "acme"))

        async def later() -> list[int]:
            (row,) = await store.change(Changes((put("b", kind="Knowledge"),)))
            events, newest = await store.read_events("acme", 0, 10)
            assert newest == row.version
            return [event.row.version for event in events]

        _, seen = await meeting.of("resources", store.change(Changes((put("a"),))), later)
        assert seen == [1, 2]

    async def test_namespaces_do_not_wait_for_each_other(self, store: PostgresStore, meeting: Meeting) -> None:
        await s.ensure(store, *(("", "Namespace", name) for name in ("acme", "acme:eu", "acme:us")))
        done: list[str] = []

        async def write(namespace: str, **more: Any) -> None:
            await store.change(Changes((put("a", namespace=namespace, **more),)))
            done.append(namespace)

        held = write("acme:eu", effective=b"{}", digest="d")
        assert await meeting.of("revisions", held, lambda: write("acme:us")) == (None, None)
        assert done == ["acme:us", "acme:eu"]


class TestLostAnswers:
    @pytest.mark.parametrize("cut", [Cut.WORK, Cut.ANSWER])
    async def test_a_change_whose_answer_is_lost_is_whole_or_absent_and_its_guards_tell(
        self, store: PostgresStore, database_url: str, cut: Cut
    ) -> None:
        await s.ensure(store, ("", "Namespace", "acme"))
        changes = Changes((put("a", labels={"app": "x"}, refs=(BASE,), effective=b"{}", digest="d"), put("k", kind="Knowledge")))
        async with proxy(database_url) as cable:
            far = await open_store(cable.url, SystemIds())
            await far.versions(["acme"])
            cable.arm(cut, b"COMMIT\x00")
            with pytest.raises(Unavailable):
                await far.change(changes)
            await far.close()
            assert cable.cuts == 1
        if cut == Cut.ANSWER:
            await s.until(lambda: self.events(store))
        found = len(await self.events(store))
        try:
            assert len(await store.change(changes)) == 2
            again = True
        except Conflict:
            again = False
        # A COMMIT that the server has may take effect between the look and the change, which waits for its locks.
        assert (found, again) in ({(2, False)} if cut == Cut.ANSWER else {(0, True), (0, False), (2, False)})
        assert len(await self.events(store)) == 2
        assert (await store.versions(["acme"])) == {"acme": 2}
        assert len((await store.list_revisions("acme", "a", "", 10))[0]) == 1

    async def events(self, store: PostgresStore) -> list[Any]:
        return (await store.read_events("acme", 0, 10))[0]


# --- what a statement costs (K11) -------------------------------------------------------------------------------------------

FILL = """
    INSERT INTO namespace_versions VALUES ('acme', {rows}, 0) ON CONFLICT (namespace) DO UPDATE SET version = {rows};
    INSERT INTO resources SELECT 'acme', kind, 'r' || n, 'u', 1, 1, n, body, 0, 0, CASE WHEN n = {rows} THEN 1 END
        FROM generate_series({start}, {rows}) n, unnest(ARRAY['Agent', 'Secret', 'AgentTemplate']) kind,
        convert_to(repeat('x', 800), 'UTF8') body;
    INSERT INTO resources SELECT '', 'Namespace', 'n' || n, 'u', 1, 0, n, '', 0, 0 FROM generate_series({start}, {rows}) n;
    INSERT INTO resource_labels SELECT 'acme', 'Agent', 'r' || n, key, 'r' || n % (1 + {rows} / 5)
        FROM generate_series({start}, {rows}) n, unnest(ARRAY['app', 'env']) key;
    INSERT INTO resource_refs SELECT 'acme', 'Agent', 'r' || n, 'AgentTemplate', 'r' || n % (1 + {rows} / 5)
        FROM generate_series({start}, {rows}) n;
    INSERT INTO resource_events
        SELECT 'acme', n, 'added', 'Agent', 'r' || n, 'u', 1, 1, body, 0, 0, NULL, '{{}}', 0
        FROM generate_series({start}, {rows}) n, convert_to(repeat('x', 800), 'UTF8') body;
    INSERT INTO revisions SELECT 'acme', 'r' || n % 10, n, '', 'd', '', '', 0 FROM generate_series({start}, {rows}) n;
    INSERT INTO sealed_values SELECT 'acme', 'r' || n, 'u', 'k', '' FROM generate_series({start}, {rows}) n;
    INSERT INTO secret_uses (namespace, name, used_by, purpose, at_ms)
        SELECT 'acme', 'r' || n % 10, '', '', 0 FROM generate_series({start}, {rows}) n;
    INSERT INTO sessions (uid, namespace, agent, id, state, first_seq, last_seq, fence, queued, metadata, features, profile, key_id,
        created_at_ms, updated_at_ms)
    SELECT gen_random_uuid(), 'acme', 'r' || n, 's' || n, 'idle', 1, 0, 0, 0, '', '', '', '', 0, 0
        FROM generate_series({start}, {rows}) n;"""
ONE = (["acme"], ["Agent"], ["r3"])
PLACE = '[{"namespace": "acme", "agent": "r3", "id": "x"}]'
#: Statement and arguments that concern the same few rows, however many others there are.
USED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "get": (resources_sql.GET, ("Agent", "acme", "r3")),
    "get many": (resources_sql.GET_MANY, ONE),
    "list": (resources_sql.LIST, ("Agent", "acme", "r1", 5)),
    "list everywhere": (resources_sql.LIST_EVERYWHERE, ("Agent", "acme", "r1", 5)),
    "list all": (resources_sql.LIST_ALL, ("acme", "Agent", "r1", 5)),
    "children": (resources_sql.CHILDREN, ("n3", 5)),
    "deleting": (resources_sql.DELETING, (5,)),
    "by label": (resources_sql.CANDIDATES[True, False], ("Agent", 5, ["app"], "acme", "", "app", "r1")),
    "by label everywhere": (resources_sql.CANDIDATES[True, True], ("Agent", 5, ["app"], "", "", "app", "r1")),
    "counted": (resources_sql.COUNTED[False], ("Agent", ["app", "env"], ["r1", "r1"], "acme", "", 5)),
    "counted everywhere": (resources_sql.COUNTED[True], ("Agent", ["app", "env"], ["r1", "r1"], "", "", 5)),
    "candidates": (resources_sql.CANDIDATES[False, False], ("Agent", 5, ["app"], "acme", "r1")),
    "candidates everywhere": (resources_sql.CANDIDATES[False, True], ("Agent", 5, ["app"], "acme", "r1")),
    "users": (resources_sql.USERS[False], ("AgentTemplate", "r1", "acme", "", "", "", 5)),
    "users below": (resources_sql.USERS[True], ("AgentTemplate", "r1", "acme", "", "", "", 5)),
    "refs": (resources_sql.REFS_OF, (["acme/Agent/r3"],)),
    "labels": (resources_sql.LABELS_OF, (["acme/Agent/r3"],)),
    "revision": (resources_sql.GET_REVISION, ("acme", "r3", 3)),
    "revisions": (resources_sql.GET_REVISIONS, (["acme"], ["r3"], [3])),
    "list revisions": (resources_sql.LIST_REVISIONS, ("acme", "r3", 1_000_000, 5)),
    "newest revisions": (resources_sql.NEWEST, (["acme"], ["r3"])),
    "versions": (resources_sql.VERSIONS, (["acme"],)),
    "counters": (resources_sql.NOW_AND_VERSIONS, (["acme"],)),
    "events": (resources_sql.EVENTS[False], ("acme", 3, 5)),
    "events of a kind": (resources_sql.EVENTS[True], ("acme", 3, 5, "Agent")),
    "clear": (resources_sql.CLEAR, (*ONE, ["acme/Agent/r3"])),
    "agent in use": (resources_sql.OCCUPIED, ONE),
    "namespace in use": (resources_sql.OCCUPIED, ([""], ["Namespace"], ["acme"])),
    "namespace not in use": (resources_sql.OCCUPIED, ([""], ["Namespace"], ["none"])),
    "agent of a session": (resources_sql.AGENT, ("acme", "r3")),
    "agent of a message": (deliver_sql.look(("places", "free")), (PLACE, PLACE)),
    "value": (resources_sql.SEALED, ("acme", "r3")),
    "values": (resources_sql.HAVE_VALUES, (["acme"], ["r3"])),
    "other keys": (resources_sql.LIST_SEALED, ("acme", "r1", "other", 5)),
    "uses": (resources_sql.USES, ("acme", "r3", 1_000_000, 5)),
}


def literal(value: Any) -> str:
    if isinstance(value, list):
        kind = "int" if value and isinstance(value[0], int) else "text"
        return f"ARRAY[{', '.join(map(literal, value))}]::{kind}[]"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return f"'{value}'" if isinstance(value, str) else str(value)


async def test_nothing_costs_more_among_twenty_thousand_than_among_ten(
    postgres: PostgresServer, database_url: str, blocker: Connection
) -> None:
    """By pages read, under plans that were made when the tables were empty, and under plans that know better."""
    database = database_of(database_url)
    for number, (statement, _) in enumerate(USED.values()):
        await blocker.execute(f"PREPARE s{number} AS {statement}")
        # The generic plan is made with the first execution.
        await blocker.execute(f"BEGIN; {executed(number)}; ROLLBACK")

    async def pages() -> list[int]:
        found: list[int] = []
        for number in range(len(USED)):
            await blocker.execute("BEGIN")
            plan = await blocker.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {executed(number)}")
            await blocker.execute("ROLLBACK")
            root = msgspec.json.decode(plan)[0]["Plan"]
            found.append(root["Shared Hit Blocks"] + root["Shared Read Blocks"])
        return found

    postgres.sql(FILL.format(start=1, rows=10), database)
    await pages()
    few = await pages()
    postgres.sql(FILL.format(start=11, rows=20_000), database)
    await pages()
    many = await pages()
    postgres.sql("VACUUM ANALYZE", database)
    await pages()
    analyzed = await pages()
    table = dict(zip(USED, zip(few, many, analyzed, strict=True), strict=True))
    print(table)
    assert {name: row for name, row in table.items() if max(row[1:]) > 2 * row[0] + 16} == {}


def executed(number: int) -> str:
    arguments = list(USED.values())[number][1]
    return f"EXECUTE s{number} ({', '.join(map(literal, arguments))})"
