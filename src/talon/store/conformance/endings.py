"""Namespaces and agents that are absent, begin, end, or hold something."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec
import pytest

from talon.domain.errors import Conflict, NotFound
from talon.domain.inbox import DeleteSession
from talon.store.conformance import support as s
from talon.store.conformance.creation import first
from talon.store.conformance.guards import refused
from talon.store.conformance.resources import change, put
from talon.store.model import NewSession
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, PutResource


def space(name: str, *, deleting: bool = False) -> PutResource:
    """A namespace to create, or to mark as being deleted."""
    if deleting:
        return PutResource("", "Namespace", name, s.fresh_id(), 1, None, deleting=True)
    return PutResource("", "Namespace", name, s.fresh_id(), 0, b"{}")


class PlaceSuite:
    """Change, in namespaces that are absent, begin, end, or hold something."""

    async def test_nothing_is_written_into_a_namespace_that_is_not_there(self, store: Store) -> None:
        assert "'acme'" in await refused(store, Changes((put("x"),)))
        await refused(store, Changes(sessions=(NewSession(s.fresh_id(), "acme", "x", "s1"),)))
        await store.change(Changes((put("x"), space("acme"))))
        assert await store.get_resource("acme", "Agent", "x") is not None
        await refused(store, Changes((put("x", namespace="acme:eu"),)))

    async def test_a_child_needs_no_parent(self, store: Store) -> None:
        await change(store, put("x", namespace="acme:eu"))
        assert [row.name for row in (await store.list_resources("", "Namespace", "", 10))[0]] == ["acme:eu"]

    async def test_nothing_begins_where_an_end_began(self, store: Store) -> None:
        await change(store, put("a"), put("b", namespace="acme:eu"), put("c", namespace="acme-2"))
        (row,) = await store.change(Changes((space("acme", deleting=True),)))
        assert row.deleting_at_ms == row.updated_at_ms
        assert row.generation == 1
        for changes in (
            Changes((put("x"),)),
            Changes((put("a", 1, b"2"),)),
            Changes((put("x", namespace="acme:eu"),)),
            Changes((space("acme:fr"),)),
            Changes(sessions=(NewSession(s.fresh_id(), "acme", "a", "s1"),)),
        ):
            assert "being deleted" in await refused(store, changes)
        await change(store, put("x", namespace="acme-2"))
        (again,) = await store.change(Changes((space("acme", deleting=True),)))
        assert again == row
        (marked,) = await store.change(Changes((put("a", 1, None, deleting=True),)))
        assert marked.deleting_at_ms is not None
        assert await store.list_deleting(10) == [row, marked]
        assert await store.list_deleting(1) == [row]

    async def test_a_namespace_goes_when_nothing_is_in_it(self, store: Store) -> None:
        await change(store, put("a"), put("k", kind="Knowledge"))
        await s.ensure(store, ("", "Namespace", "acme:eu"), ("", "Namespace", "acme-2"))
        gone = DeleteResource("", "Namespace", "acme", 1)
        everything = (DeleteResource("acme", "Agent", "a", 1), DeleteResource("acme", "Knowledge", "k", 1))
        child = DeleteResource("", "Namespace", "acme:eu", 1)
        for deletes in ((gone,), (gone, *everything), (gone, child, everything[0])):
            assert "acme" in await refused(store, Changes(deletes=deletes), "in_use")
        await store.change(Changes(deletes=(gone, child, *everything)))
        assert [row.name for row in (await store.list_resources("", "Namespace", "", 10))[0]] == ["acme-2"]
        assert (await store.list_all("acme", "", 10))[0] == []

    async def test_a_namespace_and_what_is_put_into_it_never_miss_each_other(self, store: Store, second: Store) -> None:
        async def come_and_go(handle: Store) -> None:
            for _ in range(10):
                await handle.change(Changes((space("acme"),)))
                while True:
                    rows, _ = await handle.list_all("acme", "", 100)
                    deletes = tuple(DeleteResource(row.namespace, row.kind, row.name, row.generation) for row in rows)
                    try:
                        await handle.change(Changes(deletes=(*deletes, DeleteResource("", "Namespace", "acme", 1))))
                        break
                    except Conflict:
                        continue
                assert (await handle.list_all("acme", "", 100))[0] == []

        async def fill(handle: Store, name: str) -> None:
            for number in range(20):
                try:
                    await handle.change(Changes((put(f"{name}-{number}"),)))
                except Conflict:
                    continue

        jobs = [fill((store, second)[n % 2], f"f{n}") for n in range(4)]
        await asyncio.wait_for(asyncio.gather(come_and_go(second), *jobs), 100)
        assert (await store.list_all("acme", "", 100))[0] == []


class EndingSuite:
    """Agents that end, and sessions that begin."""

    async def test_an_agent_goes_when_its_sessions_are_gone(self, store: Store) -> None:
        session = await s.create(store)
        gone = Changes(deletes=(DeleteResource("acme", "Agent", s.AGENT, 1),))
        assert s.AGENT in await refused(store, gone, "in_use")
        await s.deliver(store, DeleteSession(s.where(session)))
        await store.change(gone)
        assert await store.get_resource("acme", "Agent", s.AGENT) is None

    async def test_a_session_needs_its_agent(self, store: Store) -> None:
        new = NewSession(s.fresh_id(), "acme", s.AGENT, "s1")
        with pytest.raises(NotFound) as raised:
            await store.create_session(new)
        assert raised.value.code == "agent_not_found"
        await s.ensure_agent(store, agent="other")
        with pytest.raises(NotFound):
            await store.create_session(new)
        await refused(store, Changes(sessions=(new,)))
        await store.change(Changes((put(s.AGENT),), sessions=(new,)))
        assert await store.get_session(("acme", s.AGENT, "s1")) is not None

    async def test_a_session_of_an_agent_that_ends_is_not_begun(self, store: Store) -> None:
        session = await s.create(store)
        marked = put(s.AGENT, 1, None, deleting=True, effective=b"{}", digest="d")
        assert [row.revision for row in await store.change(Changes((marked,)))] == [1]
        new = NewSession(s.fresh_id(), "acme", s.AGENT, "s2")
        with pytest.raises(Conflict) as raised:
            await store.create_session(new)
        assert raised.value.code == "conflict"
        with pytest.raises(NotFound):
            await s.deliver(store, first(1, "s2"))
        await refused(store, Changes(sessions=(new,)))
        assert await store.create_session(NewSession(s.fresh_id(), *s.where(session))) == (session, False)
        assert [row.id for row in (await store.list_sessions("acme", s.AGENT, "", 10))[0]] == ["s1"]

    async def test_a_session_is_not_begun_below_a_namespace_that_ends(self, store: Store) -> None:
        for namespace in ("acme:eu", "acmex"):
            await change(store, put(s.AGENT, namespace=namespace, effective=b"{}", digest="d"))
        await s.ensure(store, ("", "Namespace", "acme"))
        await store.change(Changes((space("acme", deleting=True),)))
        with pytest.raises(Conflict):
            await store.create_session(NewSession(s.fresh_id(), "acme:eu", s.AGENT, "s1"))
        with pytest.raises(NotFound):
            await s.deliver(store, msgspec.structs.replace(first(1, "s1"), where=("acme:eu", s.AGENT, "s1")))
        assert (await store.create_session(NewSession(s.fresh_id(), "acmex", s.AGENT, "s1")))[1]
        await s.deliver(store, msgspec.structs.replace(first(1, "s2"), where=("acmex", s.AGENT, "s2")))

    async def test_no_session_is_left_without_its_agent(self, store: Store, second: Store) -> None:
        """Sessions begin, by both ways, while their agent comes and goes."""
        await s.ensure(store, ("", "Namespace", "acme"))
        numbers = count()

        async def begin(handle: Store) -> None:
            for _ in range(25):
                try:
                    await handle.create_session(NewSession(s.fresh_id(), "acme", s.AGENT, f"s{next(numbers)}"))
                except (Conflict, NotFound):
                    continue

        async def send(handle: Store) -> None:
            for _ in range(25):
                agent = await handle.get_resource("acme", "Agent", s.AGENT)
                await handle.deliver([first(agent.revision if agent else 1, f"m{next(numbers)}")])

        async def come_and_go(handle: Store) -> None:
            for _ in range(10):
                await handle.change(Changes((put(s.AGENT, effective=b"{}", digest="d"),)))
                while True:
                    for row in (await handle.list_sessions("acme", s.AGENT, "", 100))[0]:
                        await handle.deliver([DeleteSession(s.where(row))])
                    try:
                        await handle.change(Changes(deletes=(DeleteResource("acme", "Agent", s.AGENT, 1),)))
                        break
                    except Conflict:
                        continue
                assert (await handle.list_sessions("acme", s.AGENT, "", 100))[0] == []

        jobs = [job(handle) for handle in (store, second) for job in (begin, send)]
        await asyncio.wait_for(asyncio.gather(come_and_go(store), *jobs), 100)
        assert (await store.list_sessions("acme", "", "", 100))[0] == []
