"""The hand with which a turn writes: facts gather, and are committed with the next intent (kernel §4).

*Facts* are what happened (an answer, a receipt): they are kept until they are durable. *Intents* are what the turn is about to do
or how it ends; they are decided on what the journal holds, so an append that carries intents is refused (`Behind`) if anybody else
has written meanwhile: the ledger reads what is new, the facts stay, the intents are dropped, and the turn decides again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Protocol

import msgspec

from talon.domain import entries as e
from talon.domain.errors import Behind
from talon.domain.ids import Clock, Ids
from talon.store.model import Append, Appended, Claimed, Fragment, Hold, NewApproval, QueuedTurn, TurnChange
from talon.store.protocols import Journal
from talon.turn.context import ContextCache, ContextLimits
from talon.turn.machine import State, apply, fold
from talon.turn.projection import turn_change

#: A payload, or how to make it from the state just before it (a key derives from a seq that only the append decides).
Draft = e.Payload | Callable[[State], e.Payload]


class Writer(Protocol):
    """The worker's journal writer (`talon.store.writer`)."""

    async def append(self, op: Append) -> Appended:
        """Commit, with others, one append. Raises `FencedOut`, `Behind`, `Unavailable`."""
        ...

    def put(self, op: Append, answered: Callable[[Appended | Exception], None]) -> None:
        """The same without waiting: `answered` is told what `append` would return or raise."""
        ...

    async def spill(self, namespace: str, entries: Sequence[e.NewEntry]) -> tuple[e.NewEntry, ...]:
        """The entries, those with large payloads put into blobs first."""
        ...


class Intent(msgspec.Struct, frozen=True):
    """What is decided, to be committed only if nobody has written since it was."""

    drafts: tuple[Draft, ...] = ()
    hold: Hold = "keep"
    wake_in_ms: int | None = None
    approvals: tuple[NewApproval, ...] = ()
    queue: tuple[QueuedTurn, ...] = ()
    more: tuple[tuple[str, e.Payload], ...] = ()  # entries of other turns: (turn id, payload)
    drop_fragments: tuple[int, ...] = ()
    drained: bool = False


class Ledger:
    """The journal of one claimed session, as its worker sees and writes it. Not for two coroutines at once."""

    def __init__(
        self,
        claimed: Claimed,
        journal: Journal,
        writer: Writer,
        clock: Clock,
        ids: Ids,
        cache: ContextCache,
        limits: ContextLimits,
    ) -> None:
        self.claimed = claimed
        self.session = claimed.session
        self.turn_id = claimed.turn.turn_id
        self.last_seq = claimed.session.last_seq
        self.history: tuple[e.Entry, ...] = ()
        self.state = State(turn_id=self.turn_id)  # with the facts that are not durable yet
        self.traceparent = ""
        self.got_on = False  # whether progress is durable since the claim (K13)
        self._journal, self._writer, self._clock, self._ids = journal, writer, clock, ids
        self._store_ms, self._store_s = claimed.session.updated_at_ms, clock.monotonic_s()
        self._cache, self._limits = cache, limits
        self._durable = self.state
        self._facts: list[Draft] = []
        self._made: list[e.Payload] = []  # the facts' payloads, as they are folded into `state`
        self._drop: set[int] = set()
        self._approvals: list[NewApproval] = []
        self._seen: list[e.Entry] = []  # context entries since the history, for the cache
        self._tail_is_whole = False
        self.iterations_max = 10

    def now_ms(self) -> int:
        """The store's time, as far as it is known here: limits are measured against entries, and those bear its time. It goes on
        by our monotonic clock, so that no step of a system clock ends a turn or keeps an old key in trust."""
        return self._store_ms + int((self._clock.monotonic_s() - self._store_s) * 1000)

    def _is_now(self, at_ms: int) -> None:
        if at_ms > self.now_ms():
            self._store_ms, self._store_s = at_ms, self._clock.monotonic_s()

    # --- reading ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the turn and the tail before it: what is in the cache is not read again (K11)."""
        turn = self.claimed.turn
        own: Sequence[e.Entry] = self.claimed.entries
        own = own or await self._journal.read_turn(self.session.sid, turn.turn_id, turn.seq)
        own = [entry for entry in own if entry.seq <= self.last_seq]
        self._durable = self.state = fold([*await self._borrowed(own), *own], self.turn_id)
        self.traceparent = next((entry.traceparent for entry in own if entry.traceparent), "")
        began = next((entry.seq for entry in own if entry.type == "turn.started"), None)
        before = self.last_seq + 1 if began is None else began
        known = {entry.seq for entry in own}
        self._seen = [entry for entry in own if entry.type in e.CONTEXT_TYPES]
        self.history = await self._tail(before, known)
        # What others wrote since a turn began that is taken over here is not read: then there is no whole tail to keep.
        self._tail_is_whole = all(seq in known for seq in range(before, self.last_seq + 1))

    async def _borrowed(self, own: Sequence[e.Entry]) -> list[e.Entry]:
        """The message of a turn that was a steering message of another one: it stands under that turn's id."""
        first = own[0].decode() if own else None
        if not (isinstance(first, e.TurnQueued) and first.requeued_from):
            return []
        message = await self._journal.read_entries(self.session.sid, first.message_seq - 1, 1)
        return [msgspec.structs.replace(entry, turn_id=self.turn_id) for entry in message]

    async def _tail(self, before: int, own: set[int]) -> tuple[e.Entry, ...]:
        """The last context entries with seq < `before`, without the turn's `own`."""
        sid, limit = self.session.sid, self._limits.entries_max
        if sum(seq < before for seq in own) == before - self.session.first_seq:
            return ()  # the session's first turn
        tail: list[e.Entry] | None = None
        cached = self._cache.get(sid)
        if cached is not None and cached[0] < before:
            tail = list(cached[1])
            if any(seq not in own for seq in range(cached[0] + 1, before)):
                newer = await self._journal.read_entries(sid, cached[0], limit, tuple(e.CONTEXT_TYPES))
                # A full answer may be the beginning of more than the tail: then what is cached is too old to be of use.
                tail = None if len(newer) >= limit else [*tail, *(entry for entry in newer if entry.seq < before)]
        if tail is None:
            tail = await self._journal.read_context(sid, before, limit)
        return tuple([entry for entry in tail if entry.seq not in own][-limit:])

    async def refresh(self) -> None:
        """Read what others wrote since, and fold it under the facts that are not durable yet."""
        while True:
            new = await self._journal.read_entries(self.session.sid, self.last_seq, 500)
            for entry in new:
                self._take(entry)
            if len(new) < 500:
                break
        self._refold()

    def _take(self, entry: e.Entry, payload: e.Payload | None = None) -> None:
        """Pass an entry; `payload` where it is at hand."""
        self.last_seq = entry.seq
        if entry.type in e.CONTEXT_TYPES:
            self._seen.append(entry)
        if entry.turn_id == self.turn_id:
            self._durable = apply(self._durable, payload or entry.decode(), entry.seq, entry.at_ms)

    def _refold(self) -> None:
        self.state, self._made = self._build(self._facts, self._durable, self.last_seq)

    def _build(self, drafts: Sequence[Draft], state: State, last_seq: int) -> tuple[State, list[e.Payload]]:
        payloads: list[e.Payload] = []
        at_ms = self.now_ms()
        for number, draft in enumerate(drafts, last_seq + 1):
            payload = draft if isinstance(draft, e.Payload) else draft(state)
            payloads.append(payload)
            state = apply(state, payload, number, at_ms)
        return state, payloads

    # --- writing ---------------------------------------------------------------------------------------------------------

    def fact(self, *drafts: Draft, drop_fragments: int = 0, approval: NewApproval | None = None) -> None:
        """Remember what happened, with the approval that it opens; durable with the next `commit`."""
        self._facts.extend(drafts)
        if approval is not None:
            self._approvals.append(approval)
        if drop_fragments:
            self._drop.add(drop_fragments)
        self.state, made = self._build(drafts, self.state, self.last_seq + len(self._made))
        self._made += made

    async def settle(self) -> None:
        """Make the facts durable now (a receipt, while other tools still run)."""
        while self._facts and not await self.commit(Intent()):
            pass

    async def commit(self, intent: Intent) -> bool:
        """Facts and `intent` in one commit -> True. False: somebody has written in between; the facts stay, decide again.

        Raises `FencedOut` when the session belongs to somebody else, `Unavailable` when the database stays away.
        """
        after, made = self._build(intent.drafts, self.state, self.last_seq + len(self._made))
        payloads = [*self._made, *made]
        entries = [e.new_entry(payload, self.turn_id, self.traceparent) for payload in payloads]
        entries += [e.new_entry(payload, turn_id, self.traceparent) for turn_id, payload in intent.more]
        progress = any(map(is_progress, payloads))
        op = Append(
            id=self._ids.uuid7(),
            sid=self.session.sid,
            fence=self.session.fence,
            entries=await self._writer.spill(self.session.namespace, entries),
            if_last_seq=self.last_seq,
            turn=turn_change(self._durable, after, progress=progress, iterations_max=self.iterations_max),
            queue=intent.queue,
            drop_fragments=tuple(sorted({*self._drop, *intent.drop_fragments})),
            approvals=(*self._approvals, *intent.approvals),
            hold=intent.hold,
            wake_in_ms=intent.wake_in_ms,
            drained=intent.drained,
        )
        try:
            done = await self._writer.append(op)
        except Behind:
            await self.refresh()
            return False
        self._is_now(done.at_ms)
        self.got_on = self.got_on or progress
        for number, (entry, payload) in enumerate(zip_longest(entries, payloads), done.base + 1):
            self._take(e.Entry(number, entry.type, entry.payload, entry.turn_id, done.at_ms, entry.traceparent), payload)
        self._facts.clear()
        self._drop.clear()
        self._approvals.clear()
        self._refold()
        return True

    def fragments(self, pieces: tuple[Fragment, ...], answered: Callable[[Appended | Exception], None]) -> None:
        """Begin to make streamed text durable; it has no seq of its own, so nobody's writing is in its way. `answered` is told what
        came of it."""
        op = Append(id=self._ids.uuid7(), sid=self.session.sid, fence=self.session.fence, fragments=pieces)
        self._writer.put(op, answered)

    async def abandon(self, end: e.TurnFailed) -> None:
        """End the turn without having read it."""
        await self._writer.append(
            Append(
                id=self._ids.uuid7(),
                sid=self.session.sid,
                fence=self.session.fence,
                entries=(e.new_entry(end, self.turn_id),),
                turn=TurnChange(self.turn_id, state="failed", reason=end.reason),
                hold="release",
            )
        )

    def remember(self) -> None:
        """Keep the tail for the session's next turn on this worker."""
        if not self._tail_is_whole:
            return
        tail = sorted((*self.history, *self._seen), key=lambda entry: entry.seq)
        self._cache.put(self.session.sid, self.last_seq, tail, self._limits.entries_max)


def is_progress(payload: e.Payload) -> bool:
    """Whether an entry counts as progress (K13). That a worker was lost does not, or a turn that ends its workers would never be
    given up."""
    return payload.type in PROGRESS and not (isinstance(payload, e.ModelFailed) and payload.error == "worker_lost")


#: What counts as progress (K13): an answer, a receipt, a refusal, a wait that was entered; not the mere start of something.
PROGRESS = frozenset(
    {
        "model.finished",
        "model.failed",
        "tool.denied",
        "tool.finished",
        "tool.failed",
        "tool.uncertain",
        "turn.waiting",
        "message.completed",
        *e.TURN_ENDS,
    }
)
