"""Resources by label, by what they refer to, by namespace."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from talon.store.conformance import support as s
from talon.store.conformance.resources import change, put
from talon.store.conformance.sessions import pages
from talon.store.protocols import Store
from talon.store.resources import DeleteResource, Ref, Requirement, ResourceRow
from talon.store.selecting import CANDIDATES_MAX

FAST, BASE = Ref("McpServer", "fast"), Ref("AgentTemplate", "base")

LABELLED = {
    "a": {"app": "x", "env": "dev"},
    "b": {"app": "x", "env": "prod", "old": ""},
    "c": {"app": "y"},
    "d": {},
    "e": {"app": "x", "env": "test"},
    "f": {"tier": "x"},
}
#: selector -> names
SELECTED: list[tuple[tuple[Requirement, ...], str]] = [
    ((), "abcdef"),
    ((Requirement("app", "in", ("x",)),), "abe"),
    ((Requirement("old", "in", ("",)),), "b"),
    ((Requirement("app", "in", ("x", "y")),), "abce"),
    ((Requirement("app", "in", ("x",)), Requirement("env", "notin", ("dev", "test"))), "b"),
    ((Requirement("env", "notin", ("dev",)),), "bcdef"),
    ((Requirement("old", "exists"),), "b"),
    ((Requirement("old", "absent"), Requirement("app", "exists")), "ace"),
    ((Requirement("env", "absent"), Requirement("app", "in", ("x",))), ""),
    ((Requirement("app", "in", ("x",)), Requirement("app", "in", ("y",))), ""),
    ((Requirement("none", "in", ("x",)),), ""),
    ((Requirement("none", "absent"),), "abcdef"),
]


async def labelled(store: Store, namespace: str = "acme", kind: str = "Agent") -> None:
    puts = [put(name, labels=labels, namespace=namespace, kind=kind) for name, labels in LABELLED.items()]
    await change(store, *puts)


def names(rows: list[ResourceRow]) -> str:
    return "".join(row.name for row in rows)


class SelectorSuite:
    """Lists by label."""

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_a_selector_finds_what_meets_all_of_it(self, store: Store, limit: int) -> None:
        await labelled(store)
        await labelled(store, kind="Knowledge")
        await labelled(store, "acme:eu")
        for selector, expected in SELECTED:
            here = await pages(lambda cursor, n, by=selector: store.list_resources("acme", "Agent", cursor, n, by), limit)
            assert names(here) == expected, selector
            every = await pages(lambda cursor, n, by=selector: store.list_resources("*", "Agent", cursor, n, by), limit)
            assert [(row.namespace, row.name) for row in every] == [(n, name) for n in ("acme", "acme:eu") for name in expected]

    async def test_labels_follow_the_body(self, store: Store) -> None:
        by = (Requirement("app", "in", ("x",)),)

        async def found() -> str:
            return names((await store.list_resources("acme", "Agent", "", 10, by))[0])

        await labelled(store)
        await change(store, put("a", 1, b"2", labels={"app": "y"}), put("d", 1, b"2", labels={"app": "x"}))
        assert await found() == "bde"
        await change(store, put("b", 1, None, effective=b"{}", digest="d"))
        assert await found() == "bde"
        await change(store, deletes=(DeleteResource("acme", "Agent", "b", 1),))
        assert await found() == "de"
        await change(store, put("b"))
        assert await found() == "de"

    async def test_a_page_looks_at_no_more_than_so_many(self, store: Store) -> None:
        many = [put(f"n{number:05}", labels={"odd": str(number % 2)}) for number in range(CANDIDATES_MAX + 10)]
        await change(store, *many, put("z", labels={"last": "yes"}))
        for by in ((Requirement("last", "exists"),), (Requirement("last", "in", ("yes", "no")),)):
            rows, cursor = await store.list_resources("acme", "Agent", "", 5, by)
            assert rows == []
            assert cursor
            rows, cursor = await store.list_resources("acme", "Agent", cursor, 5, by)
            assert (names(rows), cursor) == ("z", "")
        assert names((await store.list_resources("acme", "Agent", "", 5, (Requirement("last", "in", ("yes",)),)))[0]) == "z"

    async def test_of_several_labels_the_one_that_the_fewest_have_leads(self, store: Store) -> None:
        many = [put(f"n{number:05}", labels={"all": "yes", "odd": str(number % 2)}) for number in range(CANDIDATES_MAX + 10)]
        await change(store, *many, put("z", labels={"all": "yes", "odd": "0", "last": "yes"}))
        common, half, rare = (Requirement(key, "in", (value,)) for key, value in (("all", "yes"), ("odd", "0"), ("last", "yes")))
        for namespace in ("acme", "*"):
            for by in itertools.permutations((common, half, rare)):
                rows, cursor = await store.list_resources(namespace, "Agent", "", 5, by)
                assert (names(rows), cursor) == ("z", "")
        every = await pages(lambda cursor, n: store.list_resources("acme", "Agent", cursor, n, (common, half)), 200)
        assert [row.name for row in every] == [one.name for one in many[::2]] + ["z"]


class RelationSuite:
    """Who refers to whom, and what lies where."""

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_users_are_those_in_the_namespace_and_below_it_for_inherited_kinds(self, store: Store, limit: int) -> None:
        for namespace in ("acme", "acme:eu", "acme:eu:fr", "acme-2", "acmex", "bcme"):
            await change(store, put("a", namespace=namespace, refs=(BASE, FAST)))
        await change(store, put("bind", kind="McpBinding", refs=(FAST, Ref("Secret", "fast"))), put("b", refs=(BASE, BASE)))

        async def users(namespace: str, ref: Ref) -> list[tuple[str, str, str, int]]:
            return await pages(lambda cursor, n: store.users(namespace, ref, cursor, n), limit)

        below = [("acme:eu", "Agent", "a", 1), ("acme:eu:fr", "Agent", "a", 1)]
        assert await users("acme", BASE) == [("acme", "Agent", "a", 1), ("acme", "Agent", "b", 1), *below]
        assert await users("acme", FAST) == [("acme", "Agent", "a", 1), ("acme", "McpBinding", "bind", 1), *below]
        assert await users("acme:eu", BASE) == below
        assert await users("acme", Ref("Secret", "fast")) == [("acme", "McpBinding", "bind", 1)]
        assert await users("acme", Ref("Knowledge", "base")) == []

    async def test_references_follow_the_body(self, store: Store) -> None:
        a, b = ("acme", "Agent", "a"), ("acme", "Agent", "b")
        await change(store, put("a", refs=(FAST, BASE)), put("b"))
        assert await store.refs_of([a, b, ("acme:eu", "Agent", "a")]) == {a: (BASE, FAST)}
        await change(store, put("a", 1, b"2", refs=(FAST,)), put("b", 1, b"2", refs=(BASE,)))
        await change(store, put("a", 2, None, effective=b"{}", digest="d"))
        assert await store.refs_of([a, b]) == {a: (FAST,), b: (BASE,)}
        assert (await store.users("acme", BASE, "", 10))[0] == [("acme", "Agent", "b", 2)]
        await change(store, deletes=(DeleteResource("acme", "Agent", "b", 2),))
        assert await store.refs_of([a, b]) == {a: (FAST,)}
        assert await store.refs_of([]) == {}

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_everything_in_a_namespace_is_listed_by_kind_and_name(self, store: Store, limit: int) -> None:
        await change(store, put("b"), put("a"), put("a", kind="Knowledge"), put("s", kind="Secret"), put("x", namespace="acme:eu"))
        rows = await pages(lambda cursor, n: store.list_all("acme", cursor, n), limit)
        assert [(row.kind, row.name) for row in rows] == [("Agent", "a"), ("Agent", "b"), ("Knowledge", "a"), ("Secret", "s")]
        spaces = await pages(lambda cursor, n: store.list_all("", cursor, n), limit)
        assert [row.name for row in spaces] == ["acme", "acme:eu"]

    async def test_children_are_those_below_by_segment(self, store: Store) -> None:
        below = ("acme:eu", "acme:eu:fr", "acme:us")
        await s.ensure(store, *(("", "Namespace", name) for name in ("acme", "acme-2", "acme2", "acmex", "bcme", *below)))
        assert await store.list_children("acme", 10) == list(below)
        assert await store.list_children("acme", 2) == list(below[:2])
        assert await store.list_children("acme:eu", 10) == ["acme:eu:fr"]
        assert await store.list_children("acme:us", 10) == []

    async def test_many_are_read_at_once(self, store: Store) -> None:
        rows = await change(store, put("a", effective=b"1", digest="1"), put("k", kind="Knowledge"), put("a", namespace="acme:eu"))
        wanted: list[Any] = [(row.namespace, row.kind, row.name) for row in rows]
        found = await store.get_resources([*wanted, ("acme", "Agent", "k"), ("none", "Agent", "a")])
        assert sorted(found, key=str) == sorted(rows, key=str)
        assert await store.get_resources([]) == []
        (revision,) = await store.get_revisions([("acme", "a", 1), ("acme", "a", 2), ("acme:eu", "a", 1)])
        assert (revision.namespace, revision.agent, revision.revision, revision.effective) == ("acme", "a", 1, b"1")
        assert await store.get_revisions([]) == []
