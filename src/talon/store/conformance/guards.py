"""What a change of resources refuses because of what happened meanwhile."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from talon.domain.errors import Conflict
from talon.store.conformance import support as s
from talon.store.conformance.resources import change, put
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, PutResource, Ref, SameUsers, Unchanged

TEMPLATE = Ref("AgentTemplate", "base")


def agent_of(name: str, if_generation: int = 0, namespace: str = "acme") -> PutResource:
    """An agent that is made from the template."""
    return put(name, if_generation, b"%d" % if_generation, namespace=namespace, refs=(TEMPLATE,))


async def refused(store: Store, changes: Changes, code: str = "conflict") -> str:
    """Refused whole; -> what is said."""
    namespaces = sorted({"", "acme", *(one.namespace for one in (*changes.puts, *changes.deletes))})
    before = await store.versions(namespaces)
    with pytest.raises(Conflict) as raised:
        await store.change(changes)
    assert raised.value.code == code
    assert await store.versions(namespaces) == before
    return raised.value.detail


class GuardSuite:
    """Change, and what must not have happened meanwhile."""

    async def test_what_must_be_unchanged_is_looked_at(self, store: Store) -> None:
        await change(store, put("base", kind="AgentTemplate"))
        at = Unchanged("acme", "AgentTemplate", "base", 1)
        (row,) = await change(store, agent_of("a"), unchanged=(at, Unchanged("acme", "AgentTemplate", "none", 0)))
        assert row.generation == 1
        await change(store, put("base", 1, b"2", kind="AgentTemplate"))
        for guard in (at, Unchanged("acme", "AgentTemplate", "base", 0), Unchanged("acme", "AgentTemplate", "none", 1)):
            await refused(store, Changes((agent_of("b"),), unchanged=(guard,)))
        await refused(store, Changes(unchanged=(at,)))
        assert await store.change(Changes(unchanged=(Unchanged("acme", "AgentTemplate", "base", 2),))) == []

    async def test_what_is_being_deleted_is_not_unchanged(self, store: Store) -> None:
        await change(store, put("a"))
        await change(store, put("a", 1, None, deleting=True))
        await refused(store, Changes((put("b"),), unchanged=(Unchanged("acme", "Agent", "a", 1),)))

    async def test_users_must_be_those_that_were_read(self, store: Store) -> None:
        await change(store, put("base", kind="AgentTemplate"), agent_of("a"), agent_of("b"))
        await change(store, agent_of("c", namespace="acme:eu"), agent_of("d", namespace="acmex"))
        users = (("acme", "Agent", "a", 1), ("acme", "Agent", "b", 1), ("acme:eu", "Agent", "c", 1))
        same = SameUsers("acme", TEMPLATE, users)
        (row,) = await change(store, put("base", 1, b"2", kind="AgentTemplate"), same_users=(same,))
        for other in (users[:2], users[1:], (*users, ("acme:eu", "Agent", "e", 1)), ()):
            await refused(store, Changes((put("x"),), same_users=(SameUsers("acme", TEMPLATE, other),)))
        await change(store, agent_of("c", 1, namespace="acme:eu"))
        await refused(store, Changes(deletes=(DeleteResource("acme", "AgentTemplate", "base", 2),), same_users=(same,)))
        assert await store.get_resource("acme", "AgentTemplate", "base") == row

    async def test_a_template_and_an_agent_below_it_never_miss_each_other(self, store: Store, second: Store) -> None:
        """Whoever deletes the template has seen every agent made from it, in its own namespace and below."""
        await s.ensure(store, *(("", "Namespace", name) for name in ("acme", "acme:eu", "acme:eu:fr")))
        numbers = count()

        async def follow(handle: Store, namespace: str) -> int:
            made = 0
            for _ in range(12):
                template = await handle.get_resource("acme", "AgentTemplate", "base")
                if template is None:
                    await asyncio.sleep(0)
                    continue
                guard = Unchanged("acme", "AgentTemplate", "base", template.generation)
                try:
                    await handle.change(Changes((agent_of(f"a{next(numbers)}", namespace=namespace),), unchanged=(guard,)))
                    made += 1
                except Conflict:
                    continue
            return made

        async def come_and_go(handle: Store) -> None:
            for _ in range(8):
                await handle.change(Changes((put("base", kind="AgentTemplate"),)))
                while True:
                    users, _ = await handle.users("acme", TEMPLATE, "", 1_000)
                    deletes = tuple(DeleteResource(*user) for user in users)
                    same = (SameUsers("acme", TEMPLATE, tuple(users)),)
                    try:
                        await handle.change(
                            Changes(deletes=(DeleteResource("acme", "AgentTemplate", "base", 1), *deletes), same_users=same)
                        )
                        break
                    except Conflict:
                        continue
                assert (await handle.users("acme", TEMPLATE, "", 10))[0] == []

        jobs = [follow((store, second)[n % 2], ("acme:eu", "acme:eu:fr", "acme")[n % 3]) for n in range(6)]
        await asyncio.wait_for(asyncio.gather(come_and_go(store), *jobs), 100)
        assert (await store.list_resources("*", "Agent", "", 100))[0] == []

    async def test_one_resource_twice_is_a_mistake(self, store: Store) -> None:
        for changes in (
            Changes((put("x"), put("x"))),
            Changes((put("x", 1),), (DeleteResource("acme", "Agent", "x", 1),)),
            Changes(deletes=(DeleteResource("acme", "Agent", "x", 1),) * 2),
        ):
            with pytest.raises(ValueError, match="twice"):
                await store.change(changes)
