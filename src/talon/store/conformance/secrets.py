"""Encrypted values beside their resources, and their uses."""

from __future__ import annotations

import msgspec
import pytest

from talon.store.conformance import support as s
from talon.store.conformance.resources import change, put
from talon.store.conformance.sessions import pages
from talon.store.protocols import Store
from talon.store.resources import USES_KEEP_MS, DeleteResource, SealedRow, UseRow


class SecretSuite:
    """Values and uses."""

    async def test_a_value_is_kept_beside_its_resource(self, store: Store, second: Store) -> None:
        (row,) = await change(store, put("key", kind="Secret", sealed=b"\x00one", key_id="k1"))
        assert row.generation == 1
        assert await second.get_sealed("acme", "key") == SealedRow("acme", "key", row.uid, "k1", b"\x00one")
        assert await store.get_sealed("acme:eu", "key") is None
        assert b"one" not in b"".join(event.row.body for event in (await store.read_events("acme", 0, 10))[0])

    async def test_a_new_value_is_a_change_and_none_keeps_the_old(self, store: Store) -> None:
        (one,) = await change(store, put("key", kind="Secret", sealed=b"1", key_id="k1"))
        (two,) = await change(store, put("key", 1, b"2", kind="Secret"))
        assert await store.get_sealed("acme", "key") == SealedRow("acme", "key", one.uid, "k1", b"1")
        (three,) = await change(store, put("key", 2, None, kind="Secret", sealed=b"3", key_id="k2"))
        assert await store.get_sealed("acme", "key") == SealedRow("acme", "key", one.uid, "k2", b"3")
        assert [row.generation for row in (one, two, three)] == [1, 2, 3]
        assert [row.version for row in (one, two, three)] == [1, 2, 3]
        assert three.body == two.body

    async def test_a_value_goes_with_its_resource(self, store: Store) -> None:
        await change(store, put("key", kind="Secret", sealed=b"1", key_id="k1"), put("key", kind="Knowledge"))
        await change(store, put("key", kind="Secret", namespace="acme:eu", sealed=b"2", key_id="k1"))
        await change(store, deletes=(DeleteResource("acme", "Knowledge", "key", 1),))
        assert await store.get_sealed("acme", "key") is not None
        await change(store, deletes=(DeleteResource("acme", "Secret", "key", 1),))
        assert await store.get_sealed("acme", "key") is None
        assert await store.get_sealed("acme:eu", "key") is not None
        await change(store, put("key", kind="Secret"))
        assert await store.get_sealed("acme", "key") is None
        assert await store.have_values([("acme", "key"), ("acme:eu", "key"), ("none", "key")]) == {("acme:eu", "key")}
        assert await store.have_values([]) == set()

    async def test_values_under_other_keys_are_found_and_sealed_again(self, store: Store, second: Store) -> None:
        names = ["a", "b", "c", "d"]
        for name, key_id in zip(names, ("k1", "k2", "k1", "k0"), strict=True):
            await change(store, put(name, kind="Secret", sealed=name.encode(), key_id=key_id))
        await change(store, put("a", kind="Secret", namespace="acme:eu", sealed=b"e", key_id="k1"))
        old = await store.list_sealed("k2", ("", ""), 10)
        assert [(row.namespace, row.name) for row in old] == [("acme", "a"), ("acme", "c"), ("acme", "d"), ("acme:eu", "a")]
        assert await store.list_sealed("k2", ("acme", "a"), 2) == old[1:3]
        version = await store.versions(["acme"])
        new = msgspec.structs.replace(old[0], key_id="k2", sealed=b"new")
        assert await store.reseal(old[0], new)
        assert not await second.reseal(old[0], msgspec.structs.replace(new, sealed=b"late"))
        assert await second.get_sealed("acme", "a") == new
        assert await store.list_sealed("k2", ("", ""), 10) == old[1:]
        await change(store, put("c", 1, None, kind="Secret", sealed=b"changed", key_id="k2"))
        assert not await store.reseal(old[1], msgspec.structs.replace(old[1], key_id="k2", sealed=b"stale"))
        gone = await store.get_sealed("acme", "c")
        assert gone is not None
        assert gone.sealed == b"changed"
        assert {name: number - version[name] for name, number in (await store.versions(["acme"])).items()} == {"acme": 1}

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_uses_are_listed_newest_first(self, store: Store, execute: s.Execute, limit: int) -> None:
        for number in range(4):
            await store.record_use(UseRow("acme", "key", f"worker/{number}", "provider/openai", 0))
        await store.record_use(UseRow("acme", "other", "worker/9", "", 0))
        await store.record_use(UseRow("acme:eu", "key", "worker/9", "", 0))
        uses = await pages(lambda cursor, n: store.list_uses("acme", "key", cursor, n), limit)
        assert [(use.namespace, use.name, use.used_by, use.purpose) for use in uses] == [
            ("acme", "key", f"worker/{number}", "provider/openai") for number in (3, 2, 1, 0)
        ]
        assert all(use.at_ms > 0 for use in uses)
        old = f"UPDATE secret_uses SET at_ms = at_ms - {USES_KEEP_MS + 60_000} WHERE used_by IN ('worker/0', 'worker/2')"
        await execute(old)
        assert await store.forget_events() == 2
        uses = await pages(lambda cursor, n: store.list_uses("acme", "key", cursor, n), limit)
        assert [use.used_by for use in uses] == ["worker/3", "worker/1"]
