"""Runtime rows of schedules: made by changes, moved on by firings, each occurrence once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from talon.domain.errors import Conflict, Throttled
from talon.domain.inbox import Creation, Message
from talon.domain.resources import Ref
from talon.domain.schedules import Firing, Missed, SchedulePlan, Stand, Timing, encode_plan
from talon.domain.session import SessionRow
from talon.store.conformance import support as s
from talon.store.conformance.support import Execute
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, PutResource, ResourceRow
from talon.store.schedules import Dropped, Fires, FiringRow, Look, ScheduleRow

HOUR_MS = 3_600_000
HOLD_MS = 60_000
HOURLY = Timing("every", every_ms=HOUR_MS)


def plan(timing: Timing = HOURLY, **more: Any) -> SchedulePlan:
    return SchedulePlan(timing, s.AGENT, more.pop("session", "s1"), more.pop("message", "wake up"), **more)


async def put(
    store: Store, name: str, what: SchedulePlan, enabled: bool = True, tzdata: str = "2025a", ahead_ms: int = 0
) -> ResourceRow:
    """Create or change a schedule, as any path does."""
    await s.ensure_agent(store)
    old = await store.get_resource(s.NAMESPACE, "Schedule", name)
    body = msgspec.json.encode({"spec": msgspec.to_builtins(what), "enabled": enabled})
    fires = Fires(encode_plan(what), enabled, tzdata, ahead_ms)
    uid, generation = (s.fresh_id(), 0) if old is None else (old.uid, old.generation)
    refs = (Ref("Agent", s.AGENT),)
    change = PutResource(s.NAMESPACE, "Schedule", name, uid, generation, body, refs=refs, fires=fires)
    (row,) = await store.change(Changes((change,)))
    return row


async def row_of(store: Store, uid: str) -> ScheduleRow:
    (row,) = await store.get_schedules([uid])
    return row


async def make_due(execute: Execute, uid: str, ago_ms: int = 1000) -> int:
    """Move its occurrence into the past, as time would; -> the occurrence."""
    at = 1_000_000_000_000 - ago_ms
    await execute(f"UPDATE schedules SET occurrence_ms = {at}, due_ms = {at}, look_ms = {at} WHERE uid = '{uid}'")
    return at


def firing(row: ScheduleRow, **more: Any) -> Firing:
    assert row.occurrence_ms is not None
    assert row.due_ms is not None
    fields: dict[str, Any] = {
        "uid": row.uid,
        "namespace": row.namespace,
        "name": row.name,
        "generation": row.generation,
        "at_ms": row.occurrence_ms,
        "occurrence_ms": row.occurrence_ms,
        "due_ms": row.due_ms,
        "next": Stand(row.occurrence_ms + HOUR_MS, row.occurrence_ms + HOUR_MS + 5),
        "agent": s.AGENT,
        "session": "s1",
    }
    return Firing(**(fields | more))


def wakeup(one: Firing, session: str = "s1", **more: Any) -> Message:
    return Message((s.NAMESPACE, s.AGENT, session), "wake up", s.fresh_id(), source="schedule", firing=one, **more)


async def history(store: Store, uid: str) -> list[FiringRow]:
    rows, cursor = await store.list_firings(uid, "", 100)
    assert cursor == ""
    return rows


class ScheduleRowSuite:
    """What changes of the resource do to the row."""

    async def test_a_schedule_has_a_row_from_its_creation_to_its_deletion(self, store: Store) -> None:
        made = await put(store, "hourly", plan())
        row = await row_of(store, made.uid)
        assert (row.namespace, row.name, row.generation, row.enabled, row.tzdata) == (s.NAMESPACE, "hourly", 1, True, "2025a")
        assert row.occurrence_ms == row.due_ms == row.look_ms == row.since_ms + HOUR_MS == made.updated_at_ms + HOUR_MS
        await store.change(Changes(deletes=(DeleteResource(s.NAMESPACE, "Schedule", "hourly", 1),)))
        assert await store.get_schedules([made.uid]) == []

    async def test_a_change_of_its_message_keeps_the_occurrence_one_of_its_timing_does_not(self, store: Store) -> None:
        made = await put(store, "hourly", plan())
        before = await row_of(store, made.uid)
        await put(store, "hourly", plan(message="another"))
        kept = await row_of(store, made.uid)
        assert (kept.generation, kept.occurrence_ms, kept.since_ms) == (2, before.occurrence_ms, before.since_ms)
        await put(store, "hourly", plan(Timing("every", every_ms=2 * HOUR_MS)))
        anew = await row_of(store, made.uid)
        assert (anew.generation, anew.occurrence_ms) == (3, anew.since_ms + 2 * HOUR_MS)
        assert anew.since_ms >= before.since_ms

    async def test_a_paused_one_is_never_due_and_begins_anew(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        await make_due(execute, made.uid)
        await put(store, "hourly", plan(), enabled=False)
        paused = await row_of(store, made.uid)
        assert (paused.enabled, paused.occurrence_ms, paused.look_ms) == (False, None, None)
        assert (await store.take_due(10, HOLD_MS)).rows == ()
        await put(store, "hourly", plan())
        resumed = await row_of(store, made.uid)
        assert resumed.occurrence_ms == resumed.since_ms + HOUR_MS
        assert resumed.enabled

    async def test_what_is_due_outlives_a_change_of_timing(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        await put(store, "hourly", plan(Timing("every", every_ms=2 * HOUR_MS)))
        row = await row_of(store, made.uid)
        assert (row.occurrence_ms, row.generation) == (at, 2)
        assert row.since_ms > at

    async def test_a_schedule_that_is_over_stays_over(self, store: Store) -> None:
        made = await put(store, "once", plan(Timing("at", at="2001-01-01T00:00:00Z")))
        row = await row_of(store, made.uid)
        assert (row.enabled, row.occurrence_ms) == (True, None)
        assert (await store.take_due(10, HOLD_MS)).next_in_ms is None

    async def test_a_namespaces_refused_change_leaves_the_row_as_it_is(self, store: Store) -> None:
        made = await put(store, "hourly", plan())
        before = await row_of(store, made.uid)
        stale = PutResource(
            s.NAMESPACE, "Schedule", "hourly", made.uid, 7, b"{}", fires=Fires(encode_plan(plan(message="x")), True, "")
        )
        with pytest.raises(Conflict):
            await store.change(Changes((stale,)))
        assert await row_of(store, made.uid) == before


class DueSuite:
    """Taking what is due."""

    async def test_what_is_due_is_taken_by_one_and_comes_back(self, store: Store, second: Store, execute: Execute) -> None:
        uids = [(await put(store, f"s{n}", plan())).uid for n in range(6)]
        assert (await store.take_due(10, HOLD_MS)).rows == ()
        for uid in uids:
            await make_due(execute, uid)
        taken = await asyncio.gather(*(one.take_due(2, HOLD_MS) for one in (store, second, store, second)))
        found = [row.uid for due in taken for row in due.rows]
        assert len(found) == len(set(found))
        while due := await store.take_due(2, HOLD_MS):
            found += [row.uid for row in due.rows]
            if due.next_in_ms != 0:
                break
        assert sorted(found) == sorted(uids)
        assert (await second.take_due(10, HOLD_MS)).rows == ()
        await execute("UPDATE schedules SET look_ms = due_ms + 1")  # as after the hold
        assert len((await second.take_due(10, HOLD_MS)).rows) == 6

    async def test_it_says_how_long_until_something_is_due(self, store: Store) -> None:
        assert (await store.take_due(10, HOLD_MS)).next_in_ms is None
        made = await put(store, "hourly", plan())
        due = await store.take_due(10, HOLD_MS)
        assert due.next_in_ms is not None
        assert due.next_in_ms == (await row_of(store, made.uid)).look_ms - due.now_ms  # type: ignore[operator]

    async def test_what_failed_waits_and_says_why_until_it_is_changed(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        await store.put_off(made.uid, at, HOLD_MS, "no such agent")
        await store.put_off(made.uid, at + 1, HOLD_MS, "of another occurrence")
        row = await row_of(store, made.uid)
        assert (row.failures, row.error, row.occurrence_ms) == (1, "no such agent", at)
        assert (await store.take_due(10, HOLD_MS)).rows == ()
        await put(store, "hourly", plan(message="mended"))
        (again,) = (await store.take_due(10, HOLD_MS)).rows
        assert (again.failures, again.error, again.occurrence_ms) == (0, "", at)

    async def test_a_hold_by_a_clock_that_was_ahead_ends(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        await make_due(execute, made.uid)
        await execute("UPDATE schedules SET look_ms = 9000000000000")
        (row,) = (await store.take_due(10, HOLD_MS)).rows
        assert row.uid == made.uid

    async def test_occurrences_of_older_zones_are_found_and_replaced(self, store: Store) -> None:
        old = [(await put(store, f"s{n}", plan(), tzdata="2024b")).uid for n in range(3)]
        await put(store, "new", plan(), tzdata="2025b")
        await put(store, "paused", plan(), enabled=False, tzdata="2024a")
        first = await store.list_outdated("2025b", ("", ""), 2)
        rest = await store.list_outdated("2025b", (first[-1].tzdata, first[-1].uid), 10)
        assert [row.uid for row in (*first, *rest)] == sorted(old)
        stand = Stand(first[0].since_ms + 5, first[0].since_ms + 6)
        assert await store.stand_anew(first[0], stand, "2025b")
        row = await row_of(store, first[0].uid)
        assert (row.occurrence_ms, row.due_ms, row.look_ms, row.tzdata) == (
            stand.occurrence_ms,
            stand.due_ms,
            stand.due_ms,
            "2025b",
        )
        assert not await store.stand_anew(first[0], stand, "2025c")


class AheadSuite:
    """Rows of which somebody else is told before they are due."""

    AHEAD_MS = 30 * 24 * HOUR_MS

    async def ahead(self, store: Store, what: SchedulePlan | None = None, enabled: bool = True) -> ScheduleRow:
        """A schedule of which somebody is to be told."""
        made = await put(store, "ahead", what or plan(), enabled, ahead_ms=self.AHEAD_MS)
        return await row_of(store, made.uid)

    async def told(self, store: Store) -> ScheduleRow:
        """One of which somebody was told."""
        row = await self.ahead(store)
        assert await store.look_later([self.later(row)]) == [True]
        return row

    def later(self, row: ScheduleRow, late_ms: int = 30_000) -> Look:
        assert row.occurrence_ms is not None
        assert row.due_ms is not None
        return Look(row.uid, row.since_ms, row.occurrence_ms, row.due_ms + late_ms)

    async def test_it_is_looked_at_before_it_is_due_and_not_earlier_than_that(self, store: Store) -> None:
        row = await self.ahead(store)
        assert row.look_ms == row.since_ms
        due = await store.take_due(10, HOLD_MS)
        assert [one.uid for one in due.rows] == [row.uid]
        assert due.rows[0].due_ms == row.due_ms
        assert (await store.take_due(10, HOLD_MS)).rows == ()
        far = await self.ahead(store, plan(Timing("every", every_ms=2 * self.AHEAD_MS)))
        assert far.look_ms == (far.due_ms or 0) - self.AHEAD_MS
        assert (await store.take_due(10, HOLD_MS)).rows == ()

    async def test_who_was_told_is_left_a_while_and_not_taken_for_a_clock_that_was_ahead(self, store: Store) -> None:
        row = await self.told(store)
        assert (await row_of(store, row.uid)).look_ms == (row.due_ms or 0) + 30_000
        assert (await store.take_due(10, HOLD_MS)).rows == ()
        other = [
            self.later(msgspec.structs.replace(row, occurrence_ms=1)),
            self.later(msgspec.structs.replace(row, since_ms=1)),
            self.later(msgspec.structs.replace(row, uid="nobody")),
            self.later(row, 5),
        ]
        assert await store.look_later(other) == [False, False, False, True]
        assert (await row_of(store, row.uid)).look_ms == (row.due_ms or 0) + 5

    async def test_the_next_one_is_looked_at_ahead_too(self, store: Store, execute: Execute) -> None:
        await s.create(store)
        row = await self.ahead(store)
        await make_due(execute, row.uid)
        row = await row_of(store, row.uid)
        far = Stand(row.since_ms + 2 * self.AHEAD_MS, row.since_ms + 2 * self.AHEAD_MS)
        await s.deliver(store, wakeup(firing(row, next=far, ahead_ms=self.AHEAD_MS)))
        after = await row_of(store, row.uid)
        assert (after.due_ms, after.look_ms) == (far.due_ms, far.due_ms - self.AHEAD_MS)
        stand = Stand(row.since_ms + 3 * self.AHEAD_MS, row.since_ms + 3 * self.AHEAD_MS)
        assert await store.stand_anew(after, stand, "2025b", self.AHEAD_MS)
        assert (await row_of(store, row.uid)).look_ms == stand.due_ms - self.AHEAD_MS
        assert await store.stand_anew(await row_of(store, row.uid), None, "2025b", self.AHEAD_MS)
        assert (await row_of(store, row.uid)).look_ms is None

    async def test_what_a_change_takes_away_after_somebody_was_told_is_kept_until_it_is_taken(self, store: Store) -> None:
        assert await store.take_dropped(10) == []
        row = await self.told(store)
        lost = Dropped(row.uid, row.since_ms, row.occurrence_ms or 0)
        kept = await self.ahead(store, plan(message="another"))
        assert (kept.occurrence_ms, kept.look_ms != row.look_ms) == (row.occurrence_ms, True)
        assert await store.take_dropped(10) == []
        await store.look_later([self.later(row)])
        paused = await self.ahead(store, enabled=False)
        assert paused.look_ms is None
        assert await store.take_dropped(10) == [lost]
        assert await store.take_dropped(10) == []

    async def test_a_deletion_takes_away_too_but_not_what_nobody_was_told_of(self, store: Store) -> None:
        row = await self.told(store)
        untold = await put(store, "untold", plan())
        for name in ("ahead", "untold"):
            await store.change(Changes(deletes=(DeleteResource(s.NAMESPACE, "Schedule", name, 1),)))
        assert await store.take_dropped(10) == [Dropped(row.uid, row.since_ms, row.occurrence_ms or 0)]
        assert (await store.schedule_now(untold.uid))[1] is None

    async def test_one_is_seen_with_the_stores_time_whoever_has_it_in_hand(self, store: Store) -> None:
        row = await self.ahead(store)
        (held,) = (await store.take_due(10, HOLD_MS)).rows
        now_ms, found = await store.schedule_now(row.uid)
        assert found == msgspec.structs.replace(held, look_ms=found.look_ms) if found else False
        assert row.since_ms <= now_ms < (row.due_ms or 0)


class FiringSuite:
    """One transaction wakes the session and moves the schedule on."""

    async def test_a_firing_wakes_the_session_and_moves_on(self, store: Store, second: Store, execute: Execute) -> None:
        session = await s.create(store)
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        (row,) = (await store.take_due(10, HOLD_MS)).rows
        receipt = await s.deliver(store, wakeup(firing(row)))
        assert receipt.sid == session.sid
        assert s.types(await s.journal(second, session)) == ["message.received", "turn.queued"]
        after = await row_of(second, made.uid)
        assert (after.occurrence_ms, after.due_ms, after.look_ms) == (at + HOUR_MS, at + HOUR_MS + 5, at + HOUR_MS + 5)
        assert (after.done_ms, after.fired, after.recorded) == (at, 1, 1)
        (record,) = await history(second, made.uid)
        assert (record.outcome, record.occurrence_ms, record.turn_id, record.manual) == ("fired", at, receipt.turn_id, False)
        assert (record.agent, record.session, record.turn_state) == (s.AGENT, "s1", "queued")
        assert record.at_ms >= record.due_ms

    async def test_whoever_comes_second_is_refused_and_fires_nothing(self, store: Store, second: Store, execute: Execute) -> None:
        session = await s.create(store)
        made = await put(store, "hourly", plan())
        await make_due(execute, made.uid)
        row = await row_of(store, made.uid)
        both = await asyncio.gather(*(one.deliver([wakeup(firing(row)), wakeup(firing(row))]) for one in (store, second)))
        answers = [answer for answers in both for answer in answers]
        refused = [answer for answer in answers if isinstance(answer, Conflict)]
        assert [answer.code for answer in refused] == ["firing_superseded"] * 3
        assert s.types(await s.journal(store, session)) == ["message.received", "turn.queued"]
        assert len(await history(store, made.uid)) == 1

    async def test_a_firing_of_an_older_manifest_is_refused(self, store: Store, execute: Execute) -> None:
        session = await s.create(store)
        made = await put(store, "hourly", plan())
        await make_due(execute, made.uid)
        row = await row_of(store, made.uid)
        await put(store, "hourly", plan(message="another"))
        with pytest.raises(Conflict, match="moved on"):
            await s.deliver(store, wakeup(firing(row)))
        await s.deliver(store, wakeup(firing(await row_of(store, made.uid))))
        await store.change(Changes(deletes=(DeleteResource(s.NAMESPACE, "Schedule", "hourly", 2),)))
        with pytest.raises(Conflict, match="moved on"):
            await s.deliver(store, wakeup(firing(row)))
        assert len(await s.journal(store, session)) == 2

    async def test_the_session_begins_with_its_first_firing(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        agent = await store.get_resource(s.NAMESPACE, "Agent", s.AGENT)
        assert agent is not None
        definition = PutResource(s.NAMESPACE, "Agent", s.AGENT, agent.uid, 1, None, effective=b"{}", digest="d")
        await store.change(Changes((definition,)))
        await make_due(execute, made.uid)
        row = await row_of(store, made.uid)
        creation = Creation(s.fresh_id(), 1)
        both = [wakeup(firing(row), creation=creation), wakeup(firing(row), creation=creation)]
        fired, refused = await store.deliver(both)
        assert not isinstance(fired, Exception)
        assert isinstance(refused, Conflict)
        found = await store.get_session((s.NAMESPACE, s.AGENT, "s1"))
        assert found is not None
        assert (found.sid, found.queued) == (fired.sid, 1)

    async def test_without_its_session_nothing_moves(self, store: Store, execute: Execute) -> None:
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        (answer,) = await store.deliver([wakeup(firing(await row_of(store, made.uid)))])
        assert getattr(answer, "code", "") == "session_not_found"
        assert ((await row_of(store, made.uid)).occurrence_ms, await history(store, made.uid)) == (at, [])

    async def test_a_full_queue_is_told_and_nothing_moves(self, store: Store, execute: Execute) -> None:
        session = await s.create(store)
        await s.send(store, session)
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        (answer,) = await store.deliver([wakeup(firing(await row_of(store, made.uid)), queue_max=1)])
        assert isinstance(answer, Throttled)
        assert (await row_of(store, made.uid)).occurrence_ms == at

    async def test_a_busy_session_is_skipped_and_that_is_recorded(self, store: Store, execute: Execute) -> None:
        session = await s.create(store)
        await s.send(store, session)
        made = await put(store, "hourly", plan(overlap="skip"))
        at = await make_due(execute, made.uid)
        receipt = await s.deliver(store, wakeup(firing(await row_of(store, made.uid), overlap="skip")))
        assert (receipt.turn_id, receipt.entries) == ("", ())
        assert len(await s.journal(store, session)) == 2
        after = await row_of(store, made.uid)
        assert (after.occurrence_ms, after.fired, after.recorded) == (at + HOUR_MS, 0, 1)
        (record,) = await history(store, made.uid)
        assert (record.outcome, record.turn_id) == ("skipped", "")
        assert "still at work" in record.why

    async def test_missed_ones_are_recorded_with_the_one_that_fires_or_alone(self, store: Store, execute: Execute) -> None:
        await s.create(store)
        made = await put(store, "hourly", plan())
        at = await make_due(execute, made.uid)
        row = await row_of(store, made.uid)
        missed = Missed(3, at, at + 2 * HOUR_MS, "nobody was there")
        stand = Stand(at + 4 * HOUR_MS, at + 4 * HOUR_MS)
        await s.deliver(store, wakeup(firing(row, occurrence_ms=at + 3 * HOUR_MS, next=stand, missed=missed)))
        records = await history(store, made.uid)
        assert [(one.outcome, one.occurrence_ms, one.last_ms, one.count) for one in records] == [
            ("fired", at + 3 * HOUR_MS, at + 3 * HOUR_MS, 1),
            ("missed", at, at + 2 * HOUR_MS, 3),
        ]
        row = await row_of(store, made.uid)
        over = firing(row, occurrence_ms=None, next=None, missed=Missed(1, stand.occurrence_ms, stand.occurrence_ms, "too late"))
        assert await store.pass_over([over, over]) == [True, False]
        assert await store.pass_over([over]) == [False]
        last = await row_of(store, made.uid)
        assert (last.occurrence_ms, last.look_ms, last.done_ms, last.fired) == (None, None, stand.occurrence_ms, 1)

    async def test_history_keeps_the_newest_and_goes_with_the_schedule(self, store: Store, execute: Execute) -> None:
        session = await s.create(store)
        made = await put(store, "hourly", plan())
        await make_due(execute, made.uid)
        fired: list[str] = []
        for _ in range(5):
            row = await row_of(store, made.uid)
            fired.append((await s.deliver(store, wakeup(firing(row, history_limit=3), queue_max=10))).turn_id)
        page, cursor = await store.list_firings(made.uid, "", 2)
        rest, end = await store.list_firings(made.uid, cursor, 2)
        assert [one.turn_id for one in (*page, *rest)] == fired[:1:-1]
        assert end == ""
        assert (await row_of(store, made.uid)).fired == 5
        row = await row_of(store, made.uid)
        await s.deliver(store, wakeup(firing(row, history_limit=0)))
        assert await history(store, made.uid) == []
        await store.change(Changes(deletes=(DeleteResource(s.NAMESPACE, "Schedule", "hourly", 1),)))
        assert (await history(store, made.uid), (await s.again(store, session)).queued) == ([], 6)

    async def test_a_firing_by_hand_leaves_the_schedule_where_it_is(self, store: Store) -> None:
        await s.create(store)
        made = await put(store, "hourly", plan(), enabled=False)
        row = await row_of(store, made.uid)
        by_hand = Firing(made.uid, s.NAMESPACE, "hourly", 1, None, 5, 5, None, agent=s.AGENT, session="s1", manual=True)
        await s.deliver(store, wakeup(by_hand))
        after = await row_of(store, made.uid)
        assert after == msgspec.structs.replace(row, fired=1, recorded=1)
        (record,) = await history(store, made.uid)
        assert (record.manual, record.outcome, record.occurrence_ms) == (True, "fired", 5)

    async def test_many_fire_in_one_batch_beside_messages(self, store: Store, execute: Execute) -> None:
        sessions: list[SessionRow] = [await s.create(store, f"s{n}") for n in range(8)]
        rows: list[ScheduleRow] = []
        for n in range(8):
            made = await put(store, f"hourly-{n}", plan(session=f"s{n}"))
            await make_due(execute, made.uid)
            rows.append(await row_of(store, made.uid))
        batch = [wakeup(firing(row, session=f"s{n}"), session=f"s{n}") for n, row in enumerate(rows)]
        answers = await store.deliver([*batch, *(s.message(session) for session in sessions)])
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        for session in sessions:
            assert len(await s.journal(store, session)) == 4
        assert {row.fired for row in await store.get_schedules([row.uid for row in rows])} == {1}

    async def test_a_change_and_a_firing_at_once_neither_lose_nor_double(
        self, store: Store, second: Store, execute: Execute
    ) -> None:
        session = await s.create(store)
        made = await put(store, "hourly", plan())
        for turn in range(10):
            await make_due(execute, made.uid, ago_ms=100 - turn)
            row = await row_of(store, made.uid)
            change = put(second, "hourly", plan(message=f"message {turn}"))
            (answer,), _ = await asyncio.gather(store.deliver([wakeup(firing(row))]), change)
            if isinstance(answer, Exception):
                assert getattr(answer, "code", "") == "firing_superseded"
                await s.deliver(store, wakeup(firing(await row_of(store, made.uid))))
            assert (await row_of(store, made.uid)).fired == turn + 1
        assert len(await s.journal(store, session)) == 20
