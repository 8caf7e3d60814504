"""What watches read: versions and changes, in order and without a gap."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from talon.domain.errors import Conflict, Gone, Invalid
from talon.store.conformance import support as s
from talon.store.conformance.resources import change, put
from talon.store.protocols import Store
from talon.store.resources import EVENTS_KEEP_MAX, EVENTS_KEEP_MS, Changes, DeleteResource, ResourceEvent, ResourceRow

WRITERS, ROUNDS = 4, 25


async def everything(store: Store, namespace: str = "acme") -> list[ResourceRow]:
    return (await store.list_all(namespace, "", 10_000))[0]


class WatchSuite:
    """Versions and changes."""

    async def test_each_change_of_a_row_is_told_in_order(self, store: Store, second: Store) -> None:
        (one,) = await change(store, put("a", labels={"app": "x"}))
        two, other = await change(store, put("a", 1, b"2", labels={"app": "y", "new": ""}), put("k", kind="Knowledge"))
        (three,) = await change(store, put("a", 2, None, effective=b"{}", digest="d"))
        (four,) = await change(store, put("a", 2, None, deleting=True))
        assert await change(store, put("k", 1, other.body, kind="Knowledge")) == [other]
        await change(store, deletes=(DeleteResource("acme", "Agent", "a", 2),))
        events, newest = await second.read_events("acme", 0, 100)
        last = {"app": "y", "new": ""}
        gone = events[-1].row
        assert events == [
            ResourceEvent("added", one),
            ResourceEvent("modified", two, {"app": "x"}),
            ResourceEvent("added", other),
            ResourceEvent("modified", three, last),
            ResourceEvent("modified", four, last),
            ResourceEvent("deleted", gone, last),
        ]
        assert [event.row.version for event in events] == [1, 2, 3, 4, 5, 6]
        assert (gone.generation, gone.body, gone.deleting_at_ms) == (2, b"2", four.deleting_at_ms)
        assert newest == 6
        assert await store.versions(["acme", "", "none"]) == {"acme": 6, "": 1, "none": 0}
        assert await store.versions([]) == {}

    async def test_a_read_says_up_to_where_all_is_told(self, store: Store) -> None:
        for number in range(3):
            await change(store, put(f"a{number}"), put(f"k{number}", kind="Knowledge"))
        all_of_them, newest = await store.read_events("acme", 0, 100)
        assert newest == 6
        assert await store.read_events("acme", 0, 2) == (all_of_them[:2], 2)
        assert await store.read_events("acme", 2, 3) == (all_of_them[2:5], 5)
        assert await store.read_events("acme", 6, 3) == ([], 6)
        assert await store.read_events("acme", 0, 100, "Agent") == (all_of_them[::2], 6)
        assert await store.read_events("acme", 0, 2, "Agent") == (all_of_them[:4:2], 3)
        assert await store.read_events("acme", 3, 2, "Agent") == ([all_of_them[4]], 6)
        assert await store.read_events("acme", 0, 2, "Secret") == ([], 6)
        assert await store.read_events("none", 0, 2) == ([], 0)
        assert [event.row.name for event in (await store.read_events("", 0, 9))[0]] == ["acme"]

    @pytest.mark.parametrize("kind", ["", "Agent", "Secret"])
    async def test_a_version_that_nobody_was_told_is_refused(self, store: Store, kind: str) -> None:
        await change(store, put("a"))
        for namespace, after in (("acme", 2), ("none", 1)):
            with pytest.raises(Invalid) as raised:
                await store.read_events(namespace, after, 10, kind)
            assert raised.value.code == "version_ahead"
            assert raised.value.errors[0].field == "resource_version"

    async def test_a_namespace_that_comes_again_counts_on(self, store: Store) -> None:
        await change(store, put("a"))
        ends = (DeleteResource("acme", "Agent", "a", 1), DeleteResource("", "Namespace", "acme", 1))
        await store.change(Changes(deletes=ends))
        (row,) = await change(store, put("a"))
        assert row.version == 3
        assert [event.event for event in (await store.read_events("acme", 0, 10))[0]] == ["added", "deleted", "added"]

    @pytest.mark.parametrize("kind", ["", "Agent"])
    async def test_what_is_old_is_forgotten_and_said_to_be(self, store: Store, execute: s.Execute, kind: str) -> None:
        for number in range(4):
            await change(store, put(f"a{number}"))
        await change(store, put("x", namespace="acme:eu"))
        old = f"UPDATE resource_events SET at_ms = at_ms - {EVENTS_KEEP_MS + 60_000} WHERE namespace = 'acme' AND version"
        await execute(f"{old} IN (1, 3)")
        assert await store.forget_events() == 3
        assert await store.forget_events() == 0
        with pytest.raises(Gone) as raised:
            await store.read_events("acme", 2, 10, kind)
        assert raised.value.code == "version_gone"
        events, newest = await store.read_events("acme", 3, 10, kind)
        assert ([event.row.name for event in events], newest) == (["a3"], 4)
        assert (await store.read_events("acme:eu", 0, 10, kind))[1] == 1
        await execute(f"{old} = 4")
        assert await store.forget_events() == 1
        assert await store.read_events("acme", 4, 10, kind) == ([], 4)
        assert (await change(store, put("a4")))[0].version == 5
        assert [row.name for row in await everything(store)] == ["a0", "a1", "a2", "a3", "a4"]

    async def test_so_many_changes_are_kept(self, store: Store, execute: s.Execute) -> None:
        await change(store, put("a"), put("b"), put("c"))
        beyond = EVENTS_KEEP_MAX + 1
        await execute(f"UPDATE resource_events SET version = version + {beyond} WHERE namespace = 'acme' AND version > 1")
        await execute(f"UPDATE namespace_versions SET version = version + {beyond} WHERE namespace = 'acme'")
        assert await store.forget_events() == 1
        with pytest.raises(Gone):
            await store.read_events("acme", 3, 10)
        assert [event.row.name for event in (await store.read_events("acme", 4, 10))[0]] == ["b", "c"]

    async def test_a_watcher_misses_nothing_whatever_writes_at_once(self, store: Store, second: Store) -> None:
        """Each version once, in order, and at the end exactly what the store holds."""
        await s.ensure(store, *(("", "Namespace", name) for name in ("acme", "acme:eu")))
        writing = WRITERS
        numbers = count()

        async def write(handle: Store, mine: int) -> None:
            nonlocal writing
            for turn in range(ROUNDS):
                shared = await handle.get_resource("acme", "Agent", f"shared-{turn % 3}")
                puts = [put(f"shared-{turn % 3}", shared.generation if shared else 0, b"%d" % next(numbers))]
                puts.append(put(f"w{mine}-{turn}", namespace=("acme", "acme:eu")[turn % 2]))
                previous = await handle.get_resource("acme", "Agent", f"w{mine}-{turn - 2}")
                deletes = () if previous is None else (DeleteResource("acme", "Agent", previous.name, 1),)
                try:
                    await handle.change(Changes(tuple(puts), deletes))
                except Conflict:
                    await handle.change(Changes(tuple(puts[1:]), deletes))
            writing -= 1

        async def watch(handle: Store, namespace: str, kind: str, limit: int) -> tuple[list[int], dict[str, ResourceRow]]:
            seen: list[int] = []
            state: dict[str, ResourceRow] = {}
            after = 0
            while True:
                done = not writing
                events, up_to = await handle.read_events(namespace, after, limit, kind)
                for event in events:
                    assert (event.event == "added") == (event.row.name not in state)
                    seen.append(event.row.version)
                    if event.event == "deleted":
                        del state[event.row.name]
                    else:
                        state[event.row.name] = event.row
                assert up_to >= after
                if done and up_to == after:
                    return seen, state
                after = up_to

        writers = [write((store, second)[n % 2], n) for n in range(WRITERS)]
        asked = [("acme", "", 100), ("acme", "Agent", 3), ("acme:eu", "", 1)]
        watchers = [watch((second, store)[n % 2], *how) for n, how in enumerate(asked)]
        answers = await asyncio.wait_for(asyncio.gather(*watchers, *writers), 100)
        newest = await store.versions(["acme", "acme:eu"])
        for (namespace, *_), told in zip(asked, answers[: len(asked)], strict=True):
            assert told is not None
            assert told[0] == list(range(1, newest[namespace] + 1))
            assert sorted(told[1].values(), key=lambda row: row.name) == await everything(store, namespace)
