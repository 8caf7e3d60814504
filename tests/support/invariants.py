"""The kernel's invariants, asked of a journal after whatever happened to its workers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from support.crashkit import World
from talon.domain import entries as e
from talon.domain.session import SessionRow
from talon.store.protocols import Store
from talon.tools.keys import idempotency_key
from talon.turn.machine import fold


async def whole_journal(store: Store, session: SessionRow) -> list[e.Entry]:
    """Every entry of the session."""
    return await store.read_entries(session.sid, session.first_seq - 1, 100_000)


async def check(store: Store, session: SessionRow, turns: dict[str, str], world: World | None = None) -> list[e.Entry]:
    """Assert K1, K2, K3, K4, K5, K10 for `turns` (turn id -> expected end) of `session`; -> its journal."""
    journal = await whole_journal(store, session)
    assert [entry.seq for entry in journal] == list(range(session.first_seq, session.first_seq + len(journal))), "K3: a gap"
    assert len({(entry.type, entry.payload, entry.seq) for entry in journal}) == len(journal), "K3: an entry twice"
    fences = [p.fence for entry in journal if isinstance(p := entry.decode(), e.TurnStarted | e.TurnResumed)]
    assert fences == sorted(set(fences)), f"K2: fences do not grow: {fences}"
    for turn_id, expected in turns.items():
        own = [entry for entry in journal if entry.turn_id == turn_id]
        assert own, f"K1: turn {turn_id} was accepted and is not in the journal"
        ends = [entry.type for entry in own if entry.type in e.TURN_ENDS]
        assert ends == [expected], f"K10: turn {turn_id} ends with {ends}"
        _one_answer_each(own)
        await _row_is_the_replay(store, session, turn_id, own)
        if world is not None:
            _effects(session, own, world)
    assert not [f for entry in journal if entry.type == "model.started" for f in await store.read_fragments(session.sid, entry.seq)]
    return journal


def _one_answer_each(own: list[e.Entry]) -> None:
    kinds = Counter(entry.type for entry in own)
    settled = kinds["model.finished"] + kinds["model.failed"]
    lost = [p.model_seq for entry in own if isinstance(p := entry.decode(), e.StreamReset) and p.reason == "worker_lost"]
    assert kinds["model.started"] == settled + len(set(lost)), f"K4: a model call without an end: {kinds}"
    receipts = Counter(p.call for entry in own if isinstance(p := entry.decode(), e.ToolFinished | e.ToolFailed | e.ToolDenied))
    requested = [p.call for entry in own if isinstance(p := entry.decode(), e.ToolRequested)]
    assert receipts == Counter(requested), f"K4: receipts {receipts} for calls {requested}"


async def _row_is_the_replay(store: Store, session: SessionRow, turn_id: str, own: list[e.Entry]) -> None:
    row = await store.get_turn(session.sid, turn_id)
    state = fold(own, turn_id)
    assert row is not None
    assert state.ended is not None
    assert row.state == state.ended.type.removeprefix("turn.")
    assert (row.input_tokens, row.output_tokens) == (state.usage.input_tokens, state.usage.output_tokens)
    assert row.seq == own[0].seq


def _effects(session: SessionRow, own: list[e.Entry], world: World) -> None:
    seq_of: dict[int, int] = {}
    intents: Counter[str] = Counter()
    effects: dict[str, Any] = {}
    retried: set[str] = set()
    for entry in own:
        match entry.decode():
            case e.ToolRequested(call=call):
                seq_of[call] = entry.seq
            case e.ToolStarted(call=call, key=key, effect=effect):
                assert key == idempotency_key(session.uid, seq_of[call]), "K5: the key derives from session and seq"
                intents[key] += 1
                effects[key] = effect
            case e.ApprovalResolved(call=call, outcome="retry"):
                retried.add(idempotency_key(session.uid, seq_of[call]))
            case _:
                pass
    for key, times in intents.items():
        assert world.attempts[key] <= times, "K5: an attempt without its intent"
        if effects[key] != "read":
            assert world.effects[key] == 1, f"K5: {effects[key]} took effect {world.effects[key]} times"
        if effects[key] == "reconcilable":
            assert world.attempts[key] == 1, "K5: a reconcilable call was repeated"
        if effects[key] == "unsafe" and key not in retried:
            assert world.attempts[key] == 1, "K5: an unsafe call was silently repeated"
