"""Migrations, versions, and whether the database is there."""

from __future__ import annotations

import asyncio

import pytest

from talon.domain.errors import Unavailable
from talon.store.conformance import support as s
from talon.store.protocols import Store


class SchemaSuite:
    """The database as a whole."""

    async def test_the_newest_migration_is_the_version(self, store: Store) -> None:
        version, known = await store.schema_version()
        assert version == known >= 1

    async def test_migrating_again_changes_nothing(self, store: Store, second: Store) -> None:
        session = await s.create(store)
        answers = await asyncio.wait_for(asyncio.gather(*(handle.migrate() for handle in (store, second) for _ in range(3))), 60)
        assert answers == [[]] * 6
        assert await store.get_session(s.where(session)) == session

    async def test_a_newer_database_that_still_takes_this_program_is_used(self, store: Store, execute: s.Execute) -> None:
        _, known = await store.schema_version()
        await execute(f"INSERT INTO schema_info (version, min_program, at_ms) VALUES ({known + 1}, {known}, 0)")
        assert await store.migrate() == []
        assert await store.schema_version() == (known + 1, known)
        await s.send(store, await s.create(store))

    async def test_a_database_that_needs_a_newer_program_is_refused(self, store: Store, execute: s.Execute) -> None:
        _, known = await store.schema_version()
        await execute(f"INSERT INTO schema_info (version, min_program, at_ms) VALUES ({known + 1}, {known + 1}, 0)")
        with pytest.raises(Unavailable) as raised:
            await store.migrate()
        assert raised.value.code == "database_newer"
        assert str(known + 1) in raised.value.detail

    async def test_a_database_that_answers_and_takes_writes_answers_a_ping(self, store: Store) -> None:
        await store.ping()
