"""The crash kit at every point, for every effect class, on both stores: kill, resume, ask the invariants K1-K5, K8, K10, K13."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.crashkit import NAMESPACE, Boot, Plan, Point, World, lives, new_session, prepare
from support.invariants import check
from talon.domain.entries import ToolUncertain
from talon.domain.inbox import ResolveApproval
from talon.domain.session import SessionRow, TurnRow
from talon.store.protocols import Store
from talon.tools.protocol import EFFECTS, Effect

PASSINGS_MAX = 60
END_S = 20.0


POINTS = pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name.lower())


@pytest.mark.parametrize("effect", EFFECTS)
@POINTS
async def test_a_turn_killed_at_any_passing_of_a_point_ends_with_every_effect_once(
    store: Store, tmp_path: Path, point: Point, effect: Effect
) -> None:
    await _at_every_passing(store, tmp_path, point, effect, offered=False)


@POINTS
async def test_a_turn_that_starts_in_the_accepting_commit_is_no_less_safe(store: Store, tmp_path: Path, point: Point) -> None:
    await _at_every_passing(store, tmp_path, point, "idempotent", offered=True)


async def _at_every_passing(store: Store, tmp_path: Path, point: Point, effect: Effect, *, offered: bool) -> None:
    await prepare(store)
    passings = 0
    for nth in range(1, PASSINGS_MAX + 1):
        if not await _killed_at(store, tmp_path, Plan(point, nth), effect, offered):
            break
        passings = nth
    else:
        pytest.fail(f"{point} was passed more than {PASSINGS_MAX} times: the turn does not come to an end")
    least = {Point.BEFORE_EFFECT: 3, Point.AFTER_EFFECT: 3, Point.LOST_ANSWER: 5}.get(point, 6)
    assert passings >= least, f"{point} was only met {passings} times: the kit does not reach the turn"


async def _killed_at(store: Store, tmp_path: Path, plan: Plan, effect: Effect, offered: bool) -> bool:
    """One turn with one crash; -> whether the point was reached at all."""
    session = await new_session(store, f"{plan.point.name.lower().replace('_', '-')}-{effect}-{plan.nth}")
    world = World()
    async with lives(store, world, plan, effect, tmp_path / "script.yaml") as start:
        life = await start()
        turn = await _life(store, session, life, world, offered)
        if turn is None:
            await life.end()
            turn = await _life(store, session, await start(), world, offered)
        assert turn is not None, "the second life died too"
    turn_id = turn.turn_id
    assert turn.state == "completed", turn
    await check(store, session, {turn_id: "turn.completed"}, world)
    return plan.fired


async def _life(store: Store, session: SessionRow, life: Boot, world: World, offered: bool) -> TurnRow | None:
    """A client sends, again under the same key in every life until it is heard; -> the ended turn, None if the worker died."""
    sending = asyncio.create_task(life.accept(session, session.id, offered=offered))
    dying = asyncio.create_task(life.mortal.dead.wait())
    async with asyncio.timeout(END_S):
        await asyncio.wait({sending, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if not sending.done():
        sending.cancel()
        return None
    return await _end_or_death(store, session, sending.result(), life, world)


async def _end_or_death(store: Store, session: SessionRow, turn_id: str, life: Boot, world: World) -> TurnRow | None:
    """Wait for the turn's end (then its row) or the worker's death (then None); answer what a human is asked."""
    async with asyncio.timeout(END_S):
        while not life.mortal.dead.is_set():
            turn = await store.get_turn(session.sid, turn_id)
            assert turn is not None
            if turn.ended_at_ms is not None:
                return turn
            if turn.state == "waiting":
                await _answer(store, session, world)
            await asyncio.sleep(0.005)
    return None


async def _answer(store: Store, session: SessionRow, world: World) -> None:
    """Do what an operator does: look outside, then say `done` or `retry`."""
    rows, _ = await store.list_approvals(NAMESPACE, "open", "", 10)
    for row, asked in rows:
        if asked.sid != session.sid:
            continue
        uncertain = await store.read_entries(session.sid, 0, 1000, ("tool.uncertain",))
        keys = {p.approval: p.key for entry in uncertain if isinstance(p := entry.decode(), ToolUncertain)}
        done = world.effects[keys[row.id]] > 0
        operation = ResolveApproval(
            (NAMESPACE, session.agent, session.id), row.id, "done" if done else "retry", result="it was done" if done else ""
        )
        await store.deliver([operation])
