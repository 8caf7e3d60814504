"""Session, turn and approval rows, and the lists of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from talon.domain import entries as e
from talon.domain.errors import Invalid
from talon.domain.inbox import CancelTurn, DeleteSession, ResolveApproval
from talon.store.conformance import support as s
from talon.store.model import Caps, NewSession, SessionPatch
from talon.store.protocols import Store
from talon.store.resources import Ref, Requirement

T = TypeVar("T")
BAD_CURSORS = ["x", "!!!", "bm9wZQ", "WzFd" * 3, "W10", "WyJcdTAwMDAiXQ", "WzEsMiwzLDQsNV0", "é", "WzFlOTld", "a" * 5_000]


async def pages(ask: Callable[[str, int], Awaitable[tuple[list[T], str]]], limit: int) -> list[T]:
    """All rows of a list, read page by page; every page but the last is full."""
    rows: list[T] = []
    cursor = ""
    for _ in range(1_000):
        page, cursor = await ask(cursor, limit)
        rows += page
        if not cursor:
            return rows
        assert len(page) == limit
    pytest.fail("the list does not end")


class SessionSuite:
    """Rows."""

    async def test_a_created_session_is_idle_and_empty(self, store: Store, second: Store) -> None:
        uid = s.fresh_id()
        new = NewSession(uid, "acme", "support", "s1", b'{"m":"\x00"}', b'{"f":1}', "fast", "key-7")
        await s.ensure_agent(store)
        row, created = await store.create_session(new)
        assert created
        assert (row.uid, row.namespace, row.agent, row.id) == (uid, "acme", "support", "s1")
        assert (row.metadata, row.features, row.profile, row.key_id) == (b'{"m":"\x00"}', b'{"f":1}', "fast", "key-7")
        assert (row.state, row.first_seq, row.last_seq, row.fence, row.queued) == ("idle", 1, 0, 0, 0)
        assert (row.owner, row.wake_at_ms, row.turn_id, row.deleted_at_ms) == (None, None, None, None)
        assert row.created_at_ms == row.updated_at_ms
        assert await second.get_session(("acme", "support", "s1")) == row
        assert await second.get_session_by_sid(row.sid) == row

    async def test_without_a_key_id_it_is_the_namespaces(self, store: Store) -> None:
        assert (await s.create(store)).key_id == s.NAMESPACE

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        session = await s.create(store)
        assert await store.get_session(("acme", "support", "none")) is None
        assert await store.get_session(("acme", "none", "s1")) is None
        assert await store.get_session(("none", "support", "s1")) is None
        assert await store.get_session_by_sid(4_711) is None
        assert await store.get_turn(session.sid, "none") is None
        assert await store.get_approval("acme", "none") is None
        assert await store.list_turns(4_711, "", 10) == ([], "")

    async def test_creating_it_again_gives_the_first_one(self, store: Store) -> None:
        first = await s.create(store)
        again, created = await store.create_session(NewSession(s.fresh_id(), "acme", "support", "s1", b'{"other":1}'))
        assert (again, created) == (first, False)

    async def test_many_creating_it_at_once_make_one(self, store: Store, second: Store) -> None:
        await s.ensure_agent(store)
        new = [NewSession(s.fresh_id(), "acme", "support", f"s{number % 3}") for number in range(12)]
        jobs = [(store, second)[number % 2].create_session(one) for number, one in enumerate(new)]
        answers = await asyncio.wait_for(asyncio.gather(*jobs), 60)
        assert len([row for row, created in answers if created]) == 3
        assert len({row.sid for row, _ in answers}) == 3

    async def test_imported_history_is_appended_at_once(self, store: Store) -> None:
        history = (
            e.new_entry(e.MessageReceived(content="hi", imported=True)),
            e.new_entry(e.MessageCompleted(content="ho", imported=True)),
        )
        await s.ensure_agent(store)
        row, _ = await store.create_session(NewSession(s.fresh_id(), "acme", "support", "s1", history=history))
        assert (row.state, row.last_seq, row.queued) == ("idle", 2, 0)
        assert [entry.payload for entry in await s.journal(store, row)] == [entry.payload for entry in history]
        assert (await s.send(store, row)).seq == 3

    async def test_history_of_a_newer_program_is_left_to_it(self, store: Store) -> None:
        history = (e.NewEntry("message.danced", b"{}", min_reader=e.READER + 1),)
        await s.ensure_agent(store)
        row, _ = await store.create_session(NewSession(s.fresh_id(), "acme", "support", "s1", history=history))
        await s.send(store, row)
        assert await store.claim(await s.register(store), 1, Caps()) == []

    async def test_a_patch_changes_what_it_names(self, store: Store) -> None:
        session = await s.create(store)
        new: dict[str, Any] = {"metadata": b'{"a":1}', "profile": "fast", "config": b'{"model":"m"}'}
        patched = await store.patch_session(s.where(session), SessionPatch(**new))
        assert patched is not None
        assert patched == await s.again(store, session)
        expected = msgspec.structs.replace(session, **new, updated_at_ms=patched.updated_at_ms)
        assert patched == expected
        more = await store.patch_session(s.where(session), SessionPatch(features=b'{"f":2}'))
        assert more is not None
        assert (more.metadata, more.features, more.profile) == (b'{"a":1}', b'{"f":2}', "fast")

    async def test_a_patch_of_what_is_not_there_is_none(self, store: Store) -> None:
        session = await s.create(store)
        await s.deliver(store, DeleteSession(s.where(session)))
        assert await store.patch_session(s.where(session), SessionPatch(profile="x")) is None
        assert (await s.again(store, session)).profile == ""

    async def test_a_patch_does_not_disturb_the_worker(self, store: Store) -> None:
        claimed = await s.running(store)
        await store.patch_session(s.where(claimed.session), SessionPatch(profile="x"))
        await s.finish(store, claimed, if_last_seq=2)

    async def test_a_turn_belongs_to_its_session(self, store: Store) -> None:
        first, other = await s.create(store, "s1"), await s.create(store, "s2")
        turn_id = (await s.send(store, first)).turn_id
        assert await store.get_turn(first.sid, turn_id) is not None
        assert await store.get_turn(other.sid, turn_id) is None

    async def test_an_approval_belongs_to_its_namespace(self, store: Store) -> None:
        claimed = await s.running(store)
        approval = s.fresh_id()
        await s.park(store, claimed, approval=approval)
        found = await store.get_approval(s.NAMESPACE, approval)
        assert found is not None
        assert found[1] == await s.again(store, claimed.session)
        assert (found[0].sid, found[0].turn_id, found[0].kind) == (claimed.session.sid, claimed.turn.turn_id, "uncertain")
        assert await store.get_approval("acme:eu", approval) is None


class ListSuite:
    """Lists, their order and their cursors."""

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    async def test_sessions_are_listed_newest_first_by_agent_and_namespace(self, store: Store, limit: int) -> None:
        rows = [await s.create(store, f"s{number}", agent=("one", "two")[number % 2]) for number in range(7)]
        await s.create(store, "elsewhere", namespace="acme:eu", agent="one")
        deleted = await s.create(store, "deleted", agent="one")
        await s.deliver(store, DeleteSession(s.where(deleted)))
        every = await pages(lambda cursor, n: store.list_sessions("acme", "", cursor, n), limit)
        assert every == rows[::-1]
        ones = await pages(lambda cursor, n: store.list_sessions("acme", "one", cursor, n), limit)
        assert ones == rows[::-2]
        assert await store.list_sessions("none", "", "", limit) == ([], "")

    @pytest.mark.parametrize("limit", [1, 2, 5, 100])
    async def test_turns_are_listed_newest_first(self, store: Store, limit: int) -> None:
        session, other = await s.create(store), await s.create(store, "s2")
        sent = [(await s.send(store, session)).turn_id for _ in range(5)]
        await s.send(store, other)
        turns = await pages(lambda cursor, n: store.list_turns(session.sid, cursor, n), limit)
        assert [turn.turn_id for turn in turns] == sent[::-1]

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_approvals_are_listed_newest_first_by_state(self, store: Store, limit: int) -> None:
        opened: list[str] = []
        for number in range(4):
            opened.append(s.fresh_id())
            await s.park(store, await s.running(store, f"s{number}"), approval=opened[-1])
        elsewhere = await s.running(store, "s9", namespace="acme:eu")
        await s.park(store, elsewhere, approval=s.fresh_id())
        await s.deliver(store, ResolveApproval((s.NAMESPACE, s.AGENT, "s1"), opened[1], "done"))
        await s.deliver(store, DeleteSession((s.NAMESPACE, s.AGENT, "s2")))
        turn_id = (await s.claim_one(store)).turn.turn_id
        await s.deliver(store, CancelTurn((s.NAMESPACE, s.AGENT, "s1"), turn_id))

        async def ids(state: str) -> list[str]:
            rows = await pages(lambda cursor, n: store.list_approvals(s.NAMESPACE, state, cursor, n), limit)
            return [row.id for row, session in rows if session.sid == row.sid]

        assert await ids("") == [opened[3], opened[1], opened[0]]
        assert await ids("open") == [opened[3], opened[0]]
        assert await ids("resolved") == [opened[1]]
        assert await ids("cancelled") == []

    async def test_a_row_that_comes_between_two_pages_does_not_move_the_others(self, store: Store) -> None:
        rows = [await s.create(store, f"s{number}") for number in range(4)]
        page, cursor = await store.list_sessions("acme", "", "", 2)
        await s.create(store, "late")
        await s.deliver(store, DeleteSession(s.where(rows[3])))
        rest, end = await store.list_sessions("acme", "", cursor, 2)
        assert (page + rest, end) == (rows[::-1], "")

    @pytest.mark.parametrize("cursor", BAD_CURSORS)
    async def test_a_cursor_that_no_list_gave_is_invalid(self, store: Store, cursor: str) -> None:
        session = await s.create(store)
        lists = (
            store.list_sessions("acme", "", cursor, 10),
            store.list_turns(session.sid, cursor, 10),
            store.list_approvals("acme", "", cursor, 10),
            store.list_resources("acme", "Agent", cursor, 10),
            store.list_resources("*", "Agent", cursor, 10),
            store.list_resources("*", "Agent", cursor, 10, (Requirement("app", "exists"),)),
            store.list_all("acme", cursor, 10),
            store.users("acme", Ref("AgentTemplate", "base"), cursor, 10),
            store.list_uses("acme", "key", cursor, 10),
            store.list_revisions("acme", "support", cursor, 10),
        )
        for ask in lists:
            with pytest.raises(Invalid) as raised:
                await ask
            assert raised.value.code == "cursor_invalid"
            assert raised.value.errors[0].field == "cursor"

    async def test_a_cursor_of_a_list_in_another_order_is_invalid(self, store: Store) -> None:
        for number in range(3):
            await s.create(store, f"s{number}")
        _, cursor = await store.list_sessions("acme", "", "", 1)
        assert cursor
        with pytest.raises(Invalid):
            await store.list_resources("*", "Agent", cursor, 10)
        with pytest.raises(Invalid):
            await store.list_approvals("acme", "", cursor, 10)
