"""The runner: performs what `decide` commands and writes what happened. The only impure part of a turn.

A turn that was killed forty times and one that ran through are the same code: open the ledger, decide, perform, until it ends,
waits, or is given back. What may end it early: `FencedOut` (the session is somebody else's now) and `Unavailable` (the database
stays away); in both cases nothing more is written, and the journal says where to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import msgspec

from talon.domain import entries as e
from talon.domain.errors import FencedOut, Unavailable
from talon.domain.ids import Clock, Ids
from talon.observe import tracing
from talon.store.model import Claimed, NewApproval, QueuedTurn
from talon.store.protocols import Journal
from talon.turn import machine as m
from talon.turn.attend import Attention
from talon.turn.context import ContextCache, ContextLimits
from talon.turn.definition import Definitions, Pin, Unresolved
from talon.turn.ledger import Draft, Intent, Ledger, Writer
from talon.turn.model_step import ModelStep
from talon.turn.start import bounds_of, turn_started
from talon.turn.tool_step import ToolStep, uncertain_drafts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TurnDeps:
    """What a runner needs of its worker. `lease_alive` is asked before every effect: False means stop (K8)."""

    journal: Journal
    writer: Writer
    definitions: Definitions
    models: ModelStep
    tools: ToolStep
    clock: Clock
    ids: Ids
    cache: ContextCache
    context_limits: ContextLimits
    lease_alive: Callable[[], bool]
    worker: str
    attempts_max: int = 5
    cancel_grace_s: float = 5.0


class TurnRunner:
    """Runs one claimed turn until it ends, waits or is given back. Use once."""

    def __init__(self, claimed: Claimed, deps: TurnDeps) -> None:
        self.claimed = claimed
        self.ledger = Ledger(claimed, deps.journal, deps.writer, deps.clock, deps.ids, deps.cache, deps.context_limits)
        self._deps = deps
        self._attention = Attention(self.ledger, deps.cancel_grace_s)
        self._pin: Pin | None = None
        self._bounds = bounds_of(None, claimed.turn.attempts, deps.attempts_max)
        self._draining = False
        self.released = False  # whether the session was let go by a commit of ours

    def poke(self, last_seq: int) -> None:
        """The session's journal goes up to `last_seq` at least: look, if that is news and an effect is under way."""
        self._attention.poke(last_seq)

    def drain(self) -> None:
        """Give the session back at the next decision (K8); the attempt does not count (K13)."""
        self._draining = True

    async def run(self) -> None:
        """Run. Returns when the session is released, parked or given back; raises `FencedOut`, `Unavailable`, or a defect."""
        try:
            await self.ledger.open()
        except (FencedOut, Unavailable):
            raise
        except Exception:
            if not self._exhausted:
                raise
            # A journal that this program cannot fold must not be tried for ever (K13).
            log.exception("turn %s cannot be read and is ended", self.claimed.turn.turn_id)
            await self.ledger.abandon(e.TurnFailed(reason="attempts_exhausted", detail="the turn's journal cannot be read"))
            return
        with tracing.span("turn", self._labels(), parent=self.ledger.traceparent):
            await self._run()

    @property
    def _exhausted(self) -> bool:
        return self.claimed.turn.attempts > self._deps.attempts_max

    def _labels(self) -> dict[str, str]:
        session = self.claimed.session
        return {
            "talon.namespace": session.namespace,
            "talon.agent": session.agent,
            "talon.session": session.id,
            "talon.turn": self.claimed.turn.turn_id,
        }

    async def _run(self) -> None:
        ledger = self.ledger
        ledger.traceparent = tracing.traceparent() or ledger.traceparent
        if ledger.state.began and not self._exhausted:  # an end needs no definition, and reading it may be what fails
            self._pin_to(await self._deps.definitions.pinned(ledger.state.definition))
        if ledger.state.began and self.claimed.was != "queued":
            why = "woken" if self.claimed.was == "waiting" else "takeover"
            ledger.fact(
                e.TurnResumed(
                    why=why, attempt=self.claimed.turn.attempts, worker=self._deps.worker, fence=self.claimed.session.fence
                )
            )
        while not self.released:
            command = m.decide(ledger.state, self._bounds_now(), ledger.now_ms())
            # What is announced is done, it would cost twice; an end or a wait lets go by itself.
            if self._draining and isinstance(command, m.Begin | m.CallModel | m.RunTools):
                self.released = await ledger.commit(Intent(hold="give_back", wake_in_ms=0, drained=True))
                continue
            if command is None:  # ended, and held all the same
                self.released = await ledger.commit(Intent(hold="release"))
                continue
            if not self._deps.lease_alive():
                raise FencedOut
            await self._perform(command)
        ledger.remember()

    def _pin_to(self, pin: Pin) -> None:
        self._pin = pin
        self._bounds = bounds_of(pin, self.claimed.turn.attempts, self._deps.attempts_max)
        self.ledger.iterations_max = pin.definition.limits.model_calls_max
        self._attention.wall_time_max_s = pin.definition.limits.wall_time_max_s

    def _bounds_now(self) -> m.Bounds:
        """With who is better not asked at this moment."""
        if self._pin is None:
            return self._bounds
        resting = self._deps.models.traffic.resting(self._pin.definition.profiles)
        return msgspec.structs.replace(self._bounds, resting=resting) if resting else self._bounds

    async def _perform(self, command: m.Command) -> None:
        match command:
            case m.Begin():
                await self._begin()
            case m.ResetStream(model_seq=seq, may_keep=may_keep):
                with tracing.span("stream.reset"):
                    lost = await self._account(seq, may_keep=may_keep)
                    self.ledger.fact(lost, drop_fragments=seq if isinstance(lost, e.StreamReset) else 0)
            case m.CallModel():
                held = await self._deps.models.announce(command, self.ledger, self._pinned)
                if held is not None:
                    await self._wait(held)
            case m.Listen():
                with tracing.span("model", {"talon.iteration": self.ledger.state.iteration + 1}):
                    await self._deps.models.listen(self.ledger, self._pinned, self._attention)
            case m.RunTools():
                with tracing.span("tools"):
                    await self._deps.tools.perform(command, self.ledger, self._pinned, self._attention)
            case m.Wait():
                await self._wait(command)
            case m.Finish():
                await self._finish(command)
            case _:
                assert_never(command)

    @property
    def _pinned(self) -> Pin:
        if self._pin is None:
            raise AssertionError("a turn is pinned before it does anything")
        return self._pin

    async def _begin(self) -> None:
        """Pin, and start: `turn.started` becomes durable with the first intent (commit ② of kernel §4)."""
        session, deps = self.claimed.session, self._deps
        found = await deps.definitions.pin(session, self.claimed.revision)
        if isinstance(found, Unresolved):
            await self._finish(m.Finish(e.TurnDenied(reason=found.reason, detail=found.detail)))
            return
        self._pin_to(found)
        self.ledger.fact(turn_started(found, deps.worker, session.fence))

    async def _account(self, text_seq: int, *, may_keep: bool = False) -> e.StreamReset | e.ModelFailed:
        """A model call whose worker is gone, with what it cost; without a pin nobody can tell that."""
        if self._pin is None:
            return e.StreamReset(model_seq=text_seq, reason="worker_lost", usage=e.Usage(estimated=True))
        return await self._deps.models.abandoned(self.ledger, self._pin, text_seq, may_keep=may_keep)

    def _taken_back(self) -> tuple[tuple[Draft, ...], tuple[int, ...]]:
        """The end of a broken answer that nobody goes on with: clients drop it, and its fragments go. -> (drafts, fragments)."""
        kept = self.ledger.state.kept
        return ((), ()) if kept is None else ((e.StreamReset(model_seq=kept.seq, reason="broken"),), (kept.seq,))

    async def _wait(self, command: m.Wait) -> None:
        until = None if command.delay_ms is None else self.ledger.now_ms() + command.delay_ms
        waiting = e.TurnWaiting(kind=command.kind, approvals=command.approvals, until_ms=until, detail=command.detail)
        # A row holds no half answer: whoever ended it would have to know of its fragments.
        drafts, drop = self._taken_back()
        intent = Intent((*drafts, waiting), hold="park", wake_in_ms=command.delay_ms, drop_fragments=drop)
        self.released = await self.ledger.commit(intent)

    async def _finish(self, command: m.Finish) -> None:
        """The end, in one commit: what is doubtful, what was abandoned, what goes on as a turn of its own, and the end entry."""
        state = self.ledger.state
        taken, drop = self._taken_back()
        drafts: list[Draft] = [*taken]
        approvals: list[NewApproval] = []
        if state.model is not None:
            drafts.append(await self._account(state.model.text_seq))
            drop = (state.model.text_seq,)
        for number in command.uncertain:
            more, approval = uncertain_drafts(state, number, self._deps.ids.uuid7(), "the turn ended before its receipt")
            drafts += more
            approvals.append(approval)
        drafts += [
            e.ToolFailed(call=number, error="cancelled", message="The call was not completed: the turn ended first.")
            for number in command.abandon
        ]
        queue: list[QueuedTurn] = []
        others: list[tuple[str, e.Payload]] = []
        for seq in command.requeue:
            turn_id = self._deps.ids.uuid7()
            drafts.append(e.InputSteered(message_seq=seq, state="requeued", turn=turn_id))
            queue.append(QueuedTurn(turn_id, seq, "steer", "steer"))
            others.append((turn_id, e.TurnQueued(strategy="steer", message_seq=seq, requeued_from=state.turn_id)))
        # With the usage of everything before it, the estimate of an abandoned call included.
        drafts.append(lambda after: msgspec.structs.replace(command.end, usage=after.usage, costs=after.costs))
        intent = Intent(
            tuple(drafts), hold="release", approvals=tuple(approvals), queue=tuple(queue), more=tuple(others), drop_fragments=drop
        )
        self.released = await self.ledger.commit(intent)
