"""Wakeups that agents make for themselves: how many, in which words, and when they go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from support.stores import in_file
from support.vaults import vault_on
from talon.cli.system import SystemClock, SystemIds
from talon.domain.errors import Invalid
from talon.domain.schedules import Firing, Owner
from talon.gateway.deleting import Deletions
from talon.gateway.resources import Resources
from talon.gateway.wakeups import SessionWakeups, forget
from talon.store.conformance import support as s
from talon.store.sqlite import SqliteStore

MOST = 3
HOURLY = {"message": "look", "every": "1h"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteStore]:
    async with in_file(SqliteStore, tmp_path) as opened:
        await s.ensure_agent(opened)
        yield opened


def wakeups_on(store: SqliteStore) -> SessionWakeups:
    resources = Resources(store, SystemIds(), vault_on(store), now_ms=SystemClock().now_ms)
    return SessionWakeups(store, resources, Deletions(store, lambda _: None), MOST)


def owner(key: str, session: str = "s1") -> Owner:
    return Owner(key, s.NAMESPACE, s.AGENT, session)


async def end(store: SqliteStore, name: str) -> None:
    """It fires for the last time."""
    (found,) = await store.get_resources([(s.NAMESPACE, "Schedule", name)])
    (row,) = await store.get_schedules([found.uid])
    last = Firing(row.uid, s.NAMESPACE, name, row.generation, row.occurrence_ms, None, 0, None)
    assert await store.pass_over([last]) == [True]


async def test_a_session_has_as_many_as_it_may_and_those_that_are_over_make_room(store: SqliteStore) -> None:
    wakeups = wakeups_on(store)
    made: list[dict[str, Any]] = [await wakeups.create(owner(f"k{n}"), HOURLY) for n in range(MOST)]
    assert await wakeups.create(owner("k0"), HOURLY) == made[0]  # asked again by whoever goes on after a kill
    with pytest.raises(Invalid, match="has 3 wakeups, the most there may be; cancel one"):
        await wakeups.create(owner("k9"), HOURLY)
    await wakeups.create(owner("k9", "s2"), HOURLY)

    await end(store, made[1]["name"])
    listed = {one["name"]: one["next"] for one in await wakeups.list(owner(""))}
    assert [listed[one["name"]] is None for one in made] == [False, True, False]
    newest = await wakeups.create(owner("k9"), HOURLY)
    names = {one["name"] for one in await wakeups.list(owner(""))}
    assert names == {made[0]["name"], made[2]["name"], newest["name"]}
    with pytest.raises(Invalid, match="the most there may be"):
        await wakeups.create(owner("k10"), HOURLY)


async def test_what_is_wrong_is_said_in_the_words_of_the_tool_and_its_message_is_shown_as_it_was_given(store: SqliteStore) -> None:
    wakeups = wakeups_on(store)
    with pytest.raises(Invalid) as refused:
        await wakeups.create(owner("k"), {"message": "look", "every": "soon"})
    assert [(one.field, one.message.partition(":")[0]) for one in refused.value.errors] == [("every", "is no duration")]
    text = "say {{ hello }} and \\{{ this }}, {{{"
    assert (await wakeups.create(owner("k"), {**HOURLY, "message": text}))["message"] == text


async def test_they_go_with_their_session_and_no_others_do(store: SqliteStore) -> None:
    wakeups = wakeups_on(store)
    for session in ("s1", "s1", "s2"):
        await wakeups.create(owner(s.fresh_id(), session), HOURLY)
    await forget(store, Deletions(store, lambda _: None), (s.NAMESPACE, s.AGENT, "s1"))
    assert await wakeups.list(owner("")) == []
    assert len(await wakeups.list(owner("", "s2"))) == 1
