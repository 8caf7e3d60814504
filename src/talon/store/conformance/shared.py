"""States that all workers share: each step alone, none lost."""

from __future__ import annotations

import asyncio

import pytest

from talon.store.protocols import Store


def _count(state: bytes, _: int) -> tuple[bytes, int]:
    number = int(state or b"0") + 1
    return str(number).encode(), number


class SharedSuite:
    """`talon.store.shared.SharedStates`."""

    async def test_what_was_never_written_is_nothing(self, store: Store) -> None:
        assert await store.change_shared("circuit/a", lambda state, _: (state, state)) == b""
        found, now_ms = await store.read_shared("")
        assert (dict(found), now_ms > 0) == ({}, True)

    async def test_steps_of_two_handles_at_once_are_each_made_alone(self, store: Store, second: Store) -> None:
        counts = await asyncio.gather(*(one.change_shared("quota/a", _count) for one in (store, second) for _ in range(20)))
        assert sorted(counts) == list(range(1, 41))
        found, _ = await second.read_shared("quota/")
        assert dict(found) == {"quota/a": b"40"}

    async def test_a_step_that_fails_writes_nothing(self, store: Store) -> None:
        def fails(state: bytes, now_ms: int) -> tuple[bytes, None]:
            raise ValueError("no")

        await store.change_shared("circuit/a", _count)
        with pytest.raises(ValueError, match="no"):
            await store.change_shared("circuit/a", fails)
        assert await store.change_shared("circuit/a", _count) == 2

    async def test_a_list_has_the_names_of_its_prefix_and_none_that_are_empty(self, store: Store) -> None:
        names = ("circuit/a/m", "circuit/b%/m", "circuits", "quota/a")
        for name in names:
            await store.change_shared(name, _count)
        await store.change_shared("circuit/a/m", lambda state, _: (b"", None))
        found, _ = await store.read_shared("circuit/")
        assert dict(found) == {"circuit/b%/m": b"1"}

    async def test_the_time_of_a_step_is_the_stores(self, store: Store) -> None:
        _, before = await store.read_shared("")
        at_ms = await store.change_shared("a", lambda state, now_ms: (state, now_ms))
        _, after = await store.read_shared("")
        assert before <= at_ms <= after
