"""Rows are projections: replaying the journal gives the same ones (K3, kernel §1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from talon.domain import entries as e
from talon.domain.inbox import CancelTurn, ResolveApproval
from talon.domain.session import OPEN_TURN_STATES, SessionRow
from talon.store.conformance import support as s
from talon.store.model import Caps, Claimed, QueuedTurn, TurnChange
from talon.store.protocols import Store

STEP = e.StepFinished(step="look", decision="go on")


@dataclass
class Turn:
    seq: int
    strategy: str
    source: str
    state: str = "queued"
    reason: str = ""
    waiting_for: str = ""
    revision: int = 0
    started: bool = False
    ended_at_ms: int | None = None


@dataclass
class Replay:
    """What the entries of a session say about its rows."""

    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])
    approvals: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    owners: dict[str, str] = field(default_factory=dict[str, str])
    last_seq: int = 0

    def add(self, entry: e.Entry) -> None:
        self.last_seq = entry.seq
        payload, turn = entry.decode(), self.turns.get(entry.turn_id)
        match payload:
            case e.MessageReceived() if turn is None and not payload.imported:
                self.turns[entry.turn_id] = Turn(entry.seq, payload.strategy, payload.source)
            case e.InputSteered(state="requeued"):
                self.turns[payload.turn] = Turn(payload.message_seq, "steer", "http")
            case e.ApprovalRequested():
                self.approvals[payload.approval] = ("open", "")
                self.owners[payload.approval] = entry.turn_id
            case e.ApprovalResolved():
                self.approvals[payload.approval] = ("resolved", payload.outcome)
            case _:
                self.change(entry, payload, turn)

    def change(self, entry: e.Entry, payload: e.Payload, turn: Turn | None) -> None:
        if turn is None:
            return
        match payload:
            case e.TurnStarted():
                turn.state, turn.started, turn.revision = "running", True, payload.revision
            case e.TurnResumed():
                turn.state, turn.waiting_for = "running", ""
            case e.TurnWaiting():
                turn.state, turn.waiting_for = "waiting", payload.kind
            case e.TurnCompleted() | e.TurnFailed() | e.TurnCancelled() | e.TurnDenied():
                turn.state, turn.reason = entry.type.removeprefix("turn."), payload.reason
                turn.ended_at_ms, turn.waiting_for = entry.at_ms, ""
                if isinstance(payload, e.TurnCancelled) and payload.reason != "cancelled":
                    mine = [name for name, owner in self.owners.items() if owner == entry.turn_id]
                    self.approvals |= {name: ("cancelled", "cancelled") for name in mine if self.approvals[name][0] == "open"}
            case _:
                pass

    @property
    def session(self) -> tuple[str, str | None, int]:
        """(state, current turn, queued)."""
        current = next((name for name, turn in self.turns.items() if turn.state in ("running", "waiting")), None)
        queued = sum(turn.state == "queued" for turn in self.turns.values())
        return (self.turns[current].state if current else "queued" if queued else "idle"), current, queued


async def begin(store: Store, why: str = "") -> Claimed:
    """Claim, and write what a worker writes first."""
    claimed = await s.claim_one(store)
    change = TurnChange(claimed.turn.turn_id, state="running", revision=7, waiting_for="", progress=True)
    begun = e.TurnResumed(why=why) if why else e.TurnStarted(agent="support", revision=7)
    await s.commit(store, s.append(claimed, begun, turn=change))
    return claimed


async def wait(store: Store, claimed: Claimed) -> str:
    approval = s.fresh_id()
    await s.park(store, claimed, approval=approval)
    return approval


async def live(store: Store) -> SessionRow:
    """A session with a turn in every state that a store can bring one to."""
    session = await s.create(store)
    await s.register(store)
    place = s.where(session)
    await s.send(store, session, "answered")
    await s.finish(store, await begin(store))
    await s.send(store, session, "waits, is decided, is taken over")
    approval = await wait(store, await begin(store))
    behind = await s.send(store, session, "queued behind, cancelled there")
    await s.deliver(store, CancelTurn(place, behind.turn_id))
    await s.deliver(store, ResolveApproval(place, approval, "done", "it happened", by="ann"))
    await s.commit(store, s.append(await begin(store, "woken"), hold="give_back"))
    taken = await begin(store, "takeover")
    steered = await s.send(store, session, "too late to join", "steer")
    requeued = QueuedTurn(s.fresh_id(), steered.seq, "steer", "http")
    failed = TurnChange(taken.turn.turn_id, state="failed", reason="model_failed")
    late = e.InputSteered(message_seq=steered.seq, state="requeued", turn=requeued.turn_id)
    end = s.append(taken, late, e.TurnFailed(reason="model_failed"), turn=failed, queue=(requeued,), hold="release")
    await s.commit(store, end)
    await wait(store, await begin(store))
    await s.send(store, session, "interrupts the waiting one", "interrupt")
    await s.send(store, session, "rolls back the queued one", "rollback", source="cli")
    denied = await begin(store)
    change = TurnChange(denied.turn.turn_id, state="denied", reason="unresolved_reference")
    await s.commit(store, s.append(denied, e.TurnDenied(reason="unresolved_reference"), turn=change, hold="release"))
    await s.send(store, session, "waits and is cancelled; what it asked stays open")
    waits = await begin(store)
    await wait(store, waits)
    await s.deliver(store, CancelTurn(place, waits.turn.turn_id))
    await s.send(store, session, "still waiting")
    await wait(store, await begin(store))
    await s.send(store, session, "queued")
    return session


class ProjectionSuite:
    """One test does so."""

    async def test_replaying_the_journal_gives_the_rows(self, store: Store) -> None:
        session = await live(store)
        replay = Replay()
        for entry in await s.journal(store, session):
            replay.add(entry)
        rows, _ = await store.list_turns(session.sid, "", 500)
        assert {turn.state for turn in replay.turns.values()} >= {"completed", "failed", "cancelled", "denied", "waiting", "queued"}
        found = {
            row.turn_id: Turn(
                row.seq,
                row.strategy,
                row.source,
                row.state,
                row.reason,
                row.waiting_for if row.state in OPEN_TURN_STATES else "",
                row.revision,
                row.revision > 0,
                row.ended_at_ms,
            )
            for row in rows
        }
        assert found == replay.turns
        assert all((row.started_at_ms is not None) == replay.turns[row.turn_id].started for row in rows)
        approvals, _ = await store.list_approvals(session.namespace, "", "", 500)
        assert {row.id: (row.state, row.outcome) for row, _ in approvals} == replay.approvals
        row = await s.again(store, session)
        assert (row.last_seq, (row.state, row.turn_id, row.queued)) == (replay.last_seq, replay.session)
        assert await store.claim(s.WORKER, 1, Caps()) == []
