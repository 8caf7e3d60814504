"""Manifests, their guards and their revisions (K12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from talon.domain.errors import Conflict
from talon.store.conformance import support as s
from talon.store.conformance.sessions import pages
from talon.store.model import NewSession
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, PutResource, ResourceRow


def put(name: str, if_generation: int = 0, body: bytes | None = b'{"a":1}', kind: str = "Agent", **more: Any) -> PutResource:
    fields: dict[str, Any] = {"namespace": "acme", "uid": s.fresh_id(), "if_generation": if_generation, "body": body} | more
    return PutResource(kind=kind, name=name, **fields)


async def change(store: Store, *puts: PutResource, **more: Any) -> list[ResourceRow]:
    """Change, in namespaces that are there."""
    namespaces = {one.namespace for one in (*puts, *more.get("sessions", ()))} - {""}
    await s.ensure(store, *(("", "Namespace", name) for name in sorted(namespaces)))
    return await store.change(Changes(puts, **more))


class ResourceSuite:
    """Change."""

    async def test_a_created_resource_is_at_generation_one(self, store: Store, second: Store) -> None:
        one = put("x", body=b'{"a":"\x00"}', kind="AgentTemplate")
        (row,) = await change(store, one)
        assert (row.namespace, row.kind, row.name, row.uid) == ("acme", "AgentTemplate", "x", one.uid)
        assert (row.generation, row.revision, row.version, row.body) == (1, 0, 1, b'{"a":"\x00"}')
        assert row.created_at_ms == row.updated_at_ms
        assert await second.get_resource("acme", "AgentTemplate", "x") == row
        assert await store.get_resource("acme", "Agent", "x") is None
        assert await store.get_resource("acme:eu", "AgentTemplate", "x") is None

    async def test_generations_grow_with_the_body_only(self, store: Store) -> None:
        (first,) = await change(store, put("x", kind="AgentTemplate"))
        assert await change(store, put("x", 1, first.body, kind="AgentTemplate")) == [first]
        assert await change(store, put("x", 1, None, kind="AgentTemplate")) == [first]
        (new,) = await change(store, put("x", 1, b'{"a":2}', kind="AgentTemplate"))
        assert (new.generation, new.body, new.uid, new.created_at_ms) == (2, b'{"a":2}', first.uid, first.created_at_ms)

    @pytest.mark.parametrize("if_generation", [0, 1, 3])
    async def test_a_guard_that_fails_is_a_conflict(self, store: Store, if_generation: int) -> None:
        await change(store, put("x"))
        await change(store, put("x", 1, b'{"a":2}'))
        before = await store.get_resource("acme", "Agent", "x")
        with pytest.raises(Conflict) as raised:
            await change(store, put("x", if_generation, b'{"a":3}'))
        assert raised.value.code == "conflict"
        assert "x" in raised.value.detail
        with pytest.raises(Conflict):
            await change(store, deletes=(DeleteResource("acme", "Agent", "x", if_generation),))
        assert await store.get_resource("acme", "Agent", "x") == before

    async def test_what_is_gone_cannot_be_replaced_or_removed(self, store: Store) -> None:
        for changes in (
            Changes((put("x", 1),)),
            Changes((put("x", 1, None),)),
            Changes(deletes=(DeleteResource("acme", "Agent", "x", 1),)),
        ):
            with pytest.raises(Conflict):
                await store.change(changes)
        assert await store.list_resources("acme", "Agent", "", 10) == ([], "")

    async def test_all_or_nothing(self, store: Store) -> None:
        await change(store, put("old"), put("taken"))
        session = NewSession(s.fresh_id(), "acme", "taken", "s1")
        deletes = (DeleteResource("acme", "Agent", "old", 1),)
        with pytest.raises(Conflict):
            await change(store, put("new", effective=b"{}", digest="d"), put("taken", 0), deletes=deletes, sessions=(session,))
        assert await store.get_resource("acme", "Agent", "new") is None
        assert await store.get_resource("acme", "Agent", "old") is not None
        assert await store.get_session(("acme", "taken", "s1")) is None
        assert await store.get_revision("acme", "new", 1) is None
        rows = await change(
            store, put("new", effective=b"{}", digest="d"), put("taken", 1, b"2"), deletes=deletes, sessions=(session,)
        )
        assert [(row.name, row.generation, row.revision) for row in rows] == [("new", 1, 1), ("taken", 2, 0)]
        assert await store.get_resource("acme", "Agent", "old") is None
        assert await store.get_session(("acme", "taken", "s1")) is not None

    async def test_a_session_that_meanwhile_exists_is_a_conflict(self, store: Store) -> None:
        session = await s.create(store)
        with pytest.raises(Conflict) as raised:
            await change(store, put("new"), sessions=(NewSession(s.fresh_id(), *s.where(session)),))
        assert raised.value.code == "conflict"
        assert await store.get_resource("acme", "Agent", "new") is None

    async def test_of_many_at_once_one_wins(self, store: Store, second: Store) -> None:
        await change(store, put("x"))
        jobs = [change((store, second)[n % 2], put("x", 1, b'{"n":%d}' % n), put(f"by-{n}")) for n in range(8)]
        answers = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 60)
        assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [Conflict] * 7
        rows, _ = await store.list_resources("acme", "Agent", "", 100)
        assert len(rows) == 2
        assert next(row for row in rows if row.name == "x").generation == 2

    async def test_of_many_creating_at_once_one_wins(self, store: Store, second: Store) -> None:
        jobs = [change((store, second)[n % 2], put("x", 0, b'{"n":%d}' % n, effective=b"{}", digest=str(n))) for n in range(8)]
        answers = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 60)
        assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [Conflict] * 7
        assert len((await store.list_revisions("acme", "x", "", 10))[0]) == 1


class RevisionSuite:
    """Revisions."""

    async def test_another_digest_makes_another_revision(self, store: Store) -> None:
        (one,) = await change(store, put("x", effective=b'{"e":"\x00"}', digest="d1", cause="applied"))
        (same,) = await change(store, put("x", 1, b"2", effective=b'{"e":1}', digest="d1"))
        (two,) = await change(store, put("x", 2, None, effective=b'{"e":2}', digest="d2", cause="template"))
        (back,) = await change(store, put("x", 2, None, effective=b'{"e":3}', digest="d1", cause="template"))
        (plain,) = await change(store, put("x", 2, b"3"))
        assert [row.revision for row in (one, same, two, back, plain)] == [1, 1, 2, 3, 3]
        assert [row.generation for row in (one, same, two, back, plain)] == [1, 2, 2, 2, 3]
        first = await store.get_revision("acme", "x", 1)
        assert first is not None
        assert (first.effective, first.digest, first.cause, first.revision) == (b'{"e":"\x00"}', "d1", "applied", 1)
        assert first.created_at_ms == one.created_at_ms
        assert await store.get_revision("acme", "x", 4) is None
        assert await store.get_revision("acme:eu", "x", 1) is None

    async def test_revisions_outlive_the_agent_and_its_successor_counts_on(self, store: Store) -> None:
        await change(store, put("x", effective=b"1", digest="d1"))
        await change(store, deletes=(DeleteResource("acme", "Agent", "x", 1),))
        old = await store.get_revision("acme", "x", 1)
        assert old is not None
        (new,) = await change(store, put("x", effective=b"2", digest="d2"))
        assert (new.generation, new.revision) == (1, 2)
        assert await store.get_revision("acme", "x", 1) == old

    async def test_an_agent_that_comes_back_as_it_was_is_at_its_old_revision(self, store: Store) -> None:
        await change(store, put("x", effective=b"1", digest="d1"))
        await change(store, deletes=(DeleteResource("acme", "Agent", "x", 1),))
        (new,) = await change(store, put("x", effective=b"1", digest="d1"))
        assert new.revision == 1

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_revisions_are_listed_newest_first(self, store: Store, limit: int) -> None:
        await change(store, put("x", effective=b"1", digest="1"), put("y", effective=b"1", digest="1"))
        for number in range(2, 6):
            await change(store, put("x", 1, None, effective=b"%d" % number, digest=str(number)))
        rows = await pages(lambda cursor, n: store.list_revisions("acme", "x", cursor, n), limit)
        assert [row.revision for row in rows] == [5, 4, 3, 2, 1]

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_resources_are_listed_by_name(self, store: Store, limit: int) -> None:
        for name in ("b", "a-2", "c", "a"):
            await change(store, put(name), put(name, kind="AgentTemplate"), put(name, namespace="acme:eu"))
        here = await pages(lambda cursor, n: store.list_resources("acme", "Agent", cursor, n), limit)
        assert [row.name for row in here] == ["a", "a-2", "b", "c"]
        every = await pages(lambda cursor, n: store.list_resources("*", "Agent", cursor, n), limit)
        assert [(row.namespace, row.name) for row in every] == [
            (ns, n) for ns in ("acme", "acme:eu") for n in ("a", "a-2", "b", "c")
        ]
        spaces = await pages(lambda cursor, n: store.list_resources("", "Namespace", cursor, n), limit)
        assert [row.name for row in spaces] == ["acme", "acme:eu"]

    async def test_rows_are_as_they_were_answered(self, store: Store) -> None:
        rows = await change(store, put("x", effective=b"{}", digest="d"), put("y", kind="AgentTemplate"))
        assert rows == [await store.get_resource("acme", row.kind, row.name) for row in rows]
        assert [(row.revision, row.version) for row in rows] == [(1, 1), (0, 2)]
