"""A pure simulation of a runner and its surroundings: random, but legal. No I/O, no event loop.

It keeps the runner's contract: facts are lost with their worker, intents are committed together with the facts before them, and an
intent that somebody else's entry has overtaken is dropped. What the law asks of every history is asked at each step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from support.turns import BOUNDS, Story, resumed
from talon.domain import entries as e
from talon.turn import machine as m
from talon.turn.ledger import PROGRESS
from talon.turn.machine import Bounds

EFFECTS = {"look": "read", "pay": "idempotent", "ship": "reconcilable", "mail": "unsafe"}
#: What no repetition mends.
GRAVE = ("authentication", "bad_request", "context_overflow", "content_filter", "refusal")
STEPS_MAX = 2_000
CHAOS_MAX = 60


class Crash(Exception):
    """The worker is gone."""


class Session:
    """A journal with several turns, one after the other, and a queue of those that have not run."""

    def __init__(self, turns_max: int = 0) -> None:
        self.journal = Story(step_ms=10)
        self.turns_max = turns_max
        self.queue: list[str] = []
        self.borrowed: dict[str, int] = {}  # turn -> seq of the steering message that it was
        self.turns: list[str] = []
        self._count = 0

    def enqueue(self) -> None:
        """A message arrives for a turn of its own."""
        self._count += 1
        turn_id = f"t{self._count}"
        message = e.MessageReceived(content=f"question of {turn_id}")
        self.journal.add(message, e.TurnQueued(message_seq=self.journal.seq + 1), turn_id=turn_id)
        self.queue.append(turn_id)

    def requeue(self, turn_id: str, seq: int, of: str) -> None:
        """A steering message of turn `of` becomes a turn of its own."""
        self.journal.add(e.TurnQueued(strategy="steer", message_seq=seq, requeued_from=of), turn_id=turn_id)
        self.borrowed[turn_id] = seq
        self.queue.append(turn_id)

    def next_turn(self) -> str:
        """The turn that runs now."""
        if not self.queue:
            self.enqueue()
        self.turns.append(self.queue.pop(0))
        self.journal.turn_id = self.turns[-1]
        return self.turns[-1]

    def fold(self, turn_id: str) -> m.State:
        entries = self.journal.entries
        seq = self.borrowed.get(turn_id)
        if seq is not None:
            entries = [msgspec.structs.replace(entries[seq - 1], turn_id=turn_id), *entries]
        return m.fold(entries, turn_id)


class Simulation:
    """One turn. `random` decides everything that the world decides; after `CHAOS_MAX` mishaps the world is kind."""

    def __init__(self, random: Random, bounds: Bounds = BOUNDS, session: Session | None = None) -> None:
        self.random, self.bounds = random, bounds
        self.session = session or Session()
        self.journal = self.session.journal
        self.turn_id = self.session.next_turn()
        self.facts: list[e.Payload] = []
        self.row_attempts = 0  # the turn's row: claims since the last progress
        self.attempts = 0  # as the claim found it
        self.parked = False
        self.chaos = 0
        self.now_ms = self.journal.at_ms
        self.started: Counter[int] = Counter()
        self.commands: list[m.Command] = []
        self.claimed()

    # --- what happens ------------------------------------------------------------------------------------------------------

    def maybe(self, chance: float) -> bool:
        """Whether a mishap happens now."""
        if self.chaos >= CHAOS_MAX or self.random.random() >= chance:
            return False
        self.chaos += 1
        return True

    def run(self) -> m.State:
        """To the end. Raises `AssertionError` when a law is broken or no end comes."""
        for _ in range(STEPS_MAX):
            try:
                if self.maybe(0.1):
                    raise Crash
                self.somebody_writes()
                command = m.decide(self.state(), self.now_bounds(), self.now_ms)
                if command is None:
                    return self.finished()
                self.commands.append(command)
                self.perform(command)
            except Crash:
                self.facts.clear()
                self.now_ms += self.random.choice((10, 1_000, 100_000_000))
                left = self.state()
                if left.ended is None:  # nobody claims what has ended
                    self.wake(left) if self.parked else self.claimed()
        raise AssertionError(f"no end after {STEPS_MAX} steps: {self.commands[-10:]}")

    def claimed(self) -> None:
        self.parked = False
        self.row_attempts += 1
        self.attempts = self.row_attempts
        if self.session.fold(self.turn_id).began:
            self.facts.append(resumed())

    def now_bounds(self) -> Bounds:
        return msgspec.structs.replace(self.bounds, attempts=self.attempts)

    def state(self) -> m.State:
        """With the facts that are not durable yet."""
        state = self.session.fold(self.turn_id)
        for number, fact in enumerate(self.facts, self.journal.seq + 1):
            state = m.apply(state, fact, number, self.now_ms)
        return state

    def commit(self, intents: Sequence[e.Payload] = (), requeue: Mapping[int, str] | None = None) -> bool:
        """Facts and intents together, unless somebody has written in between; with them, messages that become turns."""
        if self.maybe(0.1):
            raise Crash
        if intents and self.somebody_writes():
            return False
        self.now_ms = max(self.now_ms, self.journal.at_ms)
        for payload in (*self.facts, *intents):
            self.journal.add(payload, after_ms=self.now_ms - self.journal.at_ms)
            if payload.type in PROGRESS:
                self.row_attempts = 0
            self.parked = payload.type == "turn.waiting"
        self.facts.clear()
        for seq, turn_id in (requeue or {}).items():
            self.session.requeue(turn_id, seq, self.turn_id)
        if self.maybe(0.1):
            raise Crash
        return True

    def somebody_writes(self) -> bool:
        """An inbox entry: a steering message, a cancel request, a human's answer."""
        before = self.journal.seq
        if self.state().ended is not None:
            return False
        if self.maybe(0.05):
            self.journal.add(e.MessageReceived(content=f"steered {before + 1}"), e.InputSteered(message_seq=before + 1))
        if self.session.turns_max and self.maybe(0.05):
            self.session.enqueue()
        if self.maybe(0.01):
            rollback = self.random.random() < 0.5
            self.journal.add(e.TurnCancelRequested(reason="rolled_back" if rollback else "cancelled", rollback=rollback))
        return self.journal.seq > before

    # --- the runner ----------------------------------------------------------------------------------------------------------

    def perform(self, command: m.Command) -> None:
        match command:
            case m.Begin():
                self.facts.append(e.TurnStarted(agent="a", revision=1))
            case m.ResetStream(model_seq=seq):
                self.facts.append(e.StreamReset(model_seq=seq, usage=e.Usage(5, 5, estimated=True)))
            case m.CallModel():
                self.announce(command)
            case m.Listen(model_seq=seq):
                self.listen(seq)
            case m.RunTools():
                self.run_tools(command)
            case m.Wait():
                self.wait(command)
            case m.Finish():
                self.finish(command)

    def announce(self, command: m.CallModel) -> None:
        state = self.state()
        assert state.model is None, "a model call is under way already"
        assert not [c for c in state.calls if c.status != "closed"], "a requested call has no receipt"
        assert set(command.joined) == {seq for seq, _ in state.offered}
        profile = self.bounds.profiles[command.profile]
        joined = [e.InputSteered(message_seq=seq, state="joined") for seq in command.joined]
        intents = [*joined, e.ModelStarted(iteration=command.iteration, provider="p", model="m", profile=profile)]
        self.commit(intents)

    def listen(self, model_seq: int) -> None:
        announced = self.state().model
        assert announced is not None
        assert announced.seq == model_seq
        assert not announced.orphaned, "the call of a dead worker is made again without a reset"
        self.now_ms += self.random.choice((100, 400))
        if self.maybe(0.3):
            error = self.random.choice(("timeout", "connection", "rate_limit", "server", *GRAVE)) if self.maybe(0.5) else "server"
            wait_s = self.random.choice((None, 0.5, 90.0))
            self.facts.append(e.ModelFailed(error=error, retryable=error not in GRAVE, retry_after_s=wait_s))
            return
        first = len(self.state().calls) + 1
        tools = self.random.choices([*EFFECTS, "unknown"], k=self.random.randint(1, 3)) if self.random.random() < 0.7 else []
        self.facts.append(e.ModelFinished(stop_reason="stop", calls=len(tools), usage=e.Usage(10, 10)))
        self.facts += [
            e.ToolRequested(call=number, call_id=f"c{number}", name=name, arguments="{}")
            for number, name in enumerate(tools, first)
        ]
        if not tools:
            self.facts.append(e.MessageCompleted(content=f"answer of {self.turn_id}"))

    def run_tools(self, command: m.RunTools) -> None:
        state = self.state()
        drafts: list[e.Payload] = []
        for number in command.settle:
            outcome, result = state.call(number).human or ("", "")
            assert outcome in ("done", "failed")
            drafts.append(
                e.ToolFinished(call=number, output=result, source="human")
                if outcome == "done"
                else e.ToolFailed(call=number, error="human", message=result)
            )
        again, doubtful = list(command.run), list(command.uncertain)
        for number in command.probe:
            assert state.call(number).effect == "reconcilable"
            found = self.random.choice(("done", "not_done", "unknown"))
            if found == "done":
                drafts.append(e.ToolFinished(call=number, output="", source="probe"))
            else:
                (again if found == "not_done" else doubtful).append(number)
        drafts += [e.ToolUncertain(call=number, key=f"k{number}", approval=f"a{self.journal.seq}-{number}") for number in doubtful]
        running: list[int] = []
        for number in again:
            call = state.call(number)
            if call.name not in EFFECTS:
                drafts.append(e.ToolDenied(call=number, reason="unknown_tool", message="no"))
                continue
            self.may_start(call, probed=number in command.probe)
            running.append(number)
            drafts.append(e.ToolStarted(call=number, key=f"k{number}", attempt=call.attempt + 1, effect=EFFECTS[call.name]))
        if not self.commit(drafts):
            return
        self.started.update(running)
        self.random.shuffle(running)
        for number in running:
            self.receipt(number)

    def may_start(self, call: m.Call, probed: bool) -> None:
        """K5: what may run (again)."""
        if call.status in ("requested", "retry") or call.effect == "read":
            return
        if call.effect == "idempotent":
            assert self.now_ms - call.first_started_ms <= self.bounds.key_ttl_s[call.name] * 1000, "its key runs again too late"
            return
        assert call.effect == "reconcilable", f"{call.effect} runs again"
        assert probed, "a reconcilable call runs again without a probe"

    def receipt(self, number: int) -> None:
        self.now_ms += self.random.choice((1, 50))
        if self.maybe(0.1):
            raise Crash
        if self.maybe(0.1):
            self.facts.append(e.ToolUncertain(call=number, key=f"k{number}", approval=f"b{self.journal.seq}-{number}"))
        elif self.random.random() < 0.3:
            self.facts.append(e.ToolFailed(call=number, error="exception", message="no"))
        else:
            self.facts.append(e.ToolFinished(call=number, output="4"))
        if self.random.random() < 0.5:
            self.commit()

    def wait(self, command: m.Wait) -> None:
        uncertain = [call.approval for call in self.state().with_status("uncertain")]
        assert list(command.approvals) == uncertain, "it waits for other questions than are open"
        assert command.approvals or command.delay_ms, f"nothing will wake it: {command}"
        if not self.commit([e.TurnWaiting(kind=command.kind, approvals=command.approvals)]):
            return
        self.wake(self.state())

    def wake(self, state: m.State) -> None:
        """What a waiting turn waits for comes, or somebody ends it: that needs no worker."""
        if self.maybe(0.05):
            if state.offered:  # its worker is asked: only that one knows what was not seen
                self.journal.add(e.TurnCancelRequested(reason="cancelled"))
                self.claimed()
            else:
                self.journal.add(e.TurnCancelled(reason="cancelled", usage=state.usage))
            return
        if state.waiting == "backoff":
            self.now_ms += 90_000
        else:
            self.now_ms += self.random.choice((1_000, 100_000_000))
            asked = [call for call in state.with_status("uncertain") if call.human is None]
            for call in asked[: self.random.randint(1, len(asked))]:
                outcome = self.random.choice(("retry", "done", "failed"))
                self.journal.add(e.ApprovalResolved(approval=call.approval, call=call.call, outcome=outcome))
        self.claimed()

    def finish(self, command: m.Finish) -> None:
        state = self.state()
        drafts: list[e.Payload] = []
        if state.model is not None:
            drafts.append(e.StreamReset(model_seq=state.model.seq))
        drafts += [e.ToolUncertain(call=number, key=f"k{number}", approval=f"e{number}") for number in command.uncertain]
        drafts += [e.ToolFailed(call=number, error="cancelled", message="") for number in command.abandon]
        fresh = {seq: f"{self.turn_id}+{seq}" for seq in command.requeue}
        drafts += [e.InputSteered(message_seq=seq, state="requeued", turn=turn_id) for seq, turn_id in fresh.items()]
        self.commit([*drafts, command.end], fresh)

    # --- the law ---------------------------------------------------------------------------------------------------------------

    def finished(self) -> m.State:
        """The whole history, asked again from its entries."""
        state = self.state()
        own = [(entry.seq, entry.decode()) for entry in self.journal.entries if entry.turn_id == self.turn_id]
        kinds = Counter(payload.type for _, payload in own)
        assert sum(kinds[end] for end in e.TURN_ENDS) == 1, f"K10: {kinds}"
        assert not self.facts, "something happened that is in no entry"
        told = {p.call for _, p in own if isinstance(p, e.ToolFinished | e.ToolFailed | e.ToolDenied | e.ToolUncertain)}
        requested = [p.call for _, p in own if isinstance(p, e.ToolRequested)]
        assert requested == list(range(1, len(requested) + 1))
        assert set(requested) == told, "K5: a call without any word about it"
        assert kinds["model.started"] == kinds["model.finished"] + kinds["model.failed"] + kinds["stream.reset"]
        fates = {p.message_seq: p.state for _, p in own if isinstance(p, e.InputSteered)}
        began = next((seq for seq, p in own if isinstance(p, e.TurnStarted)), self.journal.seq)
        lost = [seq for seq, fate in fates.items() if fate == "offered" and seq > began]
        assert not lost, f"steering messages {lost} were lost"
        for call, times in self.started.items():
            retries = sum(isinstance(p, e.ApprovalResolved) and p.call == call and p.outcome == "retry" for _, p in own)
            if state.call(call).effect == "unsafe":
                assert times <= 1 + retries, "K5: an unsafe call ran again unseen"
        return state
