"""The crash kit at every point, for every effect class, on both stores: kill, resume, ask the invariants K1-K5, K8, K10, K13."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.crashkit import NAMESPACE, Boot, Plan, Point, World, deliver, lives, new_session, prepare
from support.invariants import check
from talon.domain.entries import ToolUncertain
from talon.domain.inbox import ResolveApproval
from talon.domain.session import SessionRow, TurnRow
from talon.store.protocols import Store
from talon.tools.protocol import EFFECTS, Effect

PASSINGS_MAX = 60
END_S = 20.0


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name.lower())
async def test_a_turn_killed_at_any_passing_of_a_point_ends_with_every_effect_once(
    store: Store, tmp_path: Path, point: Point, effect: Effect
) -> None:
    await prepare(store)
    passings = 0
    for nth in range(1, PASSINGS_MAX + 1):
        if not await _killed_at(store, tmp_path, Plan(point, nth), effect):
            break
        passings = nth
    else:
        pytest.fail(f"{point} was passed more than {PASSINGS_MAX} times: the turn does not come to an end")
    least = {Point.BEFORE_EFFECT: 3, Point.AFTER_EFFECT: 3, Point.LOST_ANSWER: 5}.get(point, 6)
    assert passings >= least, f"{point} was only met {passings} times: the kit does not reach the turn"


async def _killed_at(store: Store, tmp_path: Path, plan: Plan, effect: Effect) -> bool:
    """One turn with one crash; -> whether the point was reached at all."""
    session = await new_session(store, f"{plan.point.name.lower().replace('_', '-')}-{effect}-{plan.nth}")
    world = World()
    turn_id = await deliver(store, session.id)
    async with lives(store, world, plan, effect, tmp_path / "script.yaml") as start:
        life = await start()
        turn = await _end_or_death(store, session, turn_id, life, world)
        if turn is None:
            await life.end()
            turn = await _end_or_death(store, session, turn_id, await start(), world)
        assert turn is not None, "the second life died too"
    assert turn.state == "completed", turn
    await check(store, session, {turn_id: "turn.completed"}, world)
    return plan.fired


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
