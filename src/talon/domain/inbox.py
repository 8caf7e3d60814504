"""Inbox operations: what others than a session's worker may write to it, decided purely (kernel §5).

A store locks the session, reads a `View`, asks `operation.admit(view)` what to write, and writes it in the same transaction.
So the meaning of every strategy stands here once, for all stores. `admit` raises `Refused` or `Throttled`; then nothing is written.

Inbox entries need no fence and change nothing that a worker decides between two looks. The exception is the end of a turn that
nobody runs (queued, waiting): its requester ends it and raises the fence, so that a worker which is just claiming it is fenced out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from talon.domain import entries as e
from talon.domain.content import Content
from talon.domain.errors import Conflict, NotFound, Throttled
from talon.domain.schedules import Firing
from talon.domain.session import ApprovalRow, SessionRow, Strategy, TurnRow


class Key(msgspec.Struct, frozen=True):
    """An idempotency key (K9), scoped to (namespace, source, key). `body_sha256` tells another body under the same key."""

    source: str
    key: str
    body_sha256: str


class View(msgspec.Struct, frozen=True):
    """What `admit` may look at: the locked session row and, if the operation `needs_turns`, its open turns by queue order
    (the running or waiting one first), the approval it names, and, if it `needs_revision`, the agent's newest revision now."""

    session: SessionRow
    turns: tuple[TurnRow, ...] = ()
    approval: ApprovalRow | None = None
    revision: int = 0


class NewTurn(msgspec.Struct, frozen=True):
    """A turn row to insert in state `queued`. `entry` is the index, within the write's entries, of its `message.received`."""

    turn_id: str
    entry: int
    strategy: str
    source: str
    priority: int = 0


class EndedTurn(msgspec.Struct, frozen=True):
    """A queued or waiting turn that ends here. `was_current`: it was the session's waiting turn, not a queued one."""

    turn_id: str
    reason: str
    was_current: bool


class Claim(msgspec.Struct, frozen=True):
    """The accepting process has a free worker slot: the new turn starts in this very transaction (commit ① of kernel §4)."""

    owner: str
    turn_id: str
    revision: int = 0


class InboxWrite(msgspec.Struct, frozen=True):
    """What to write for one operation, all in one transaction.

    - `entries` are appended in order.
    - `queue` turns are inserted, `end` turns become `cancelled`; `session.queued` follows both.
    - `raise_fence` adds one to the fence, unless somebody owns the session: its owner runs another turn than the one that ends.
    - `cancel_approvals` closes the open approvals of these turn ids as `cancelled`.
    - `steer` names the turn that the message was steered to. - `resolve` closes an approval: (id, outcome, by).
    - `wake`: the session becomes runnable now, if nobody owns it. A session that is idle with something queued is always
      woken; this flag is for a *waiting* one, and for a running one that was given back and now has a cancel request.
    - `claim` starts a turn in the same transaction (fence + 1, owner, state running, turn attempts 1).
    - `delete` tombstones the session.
    - `turn_id`, `strategy`, `message` (index of the entry whose seq is answered) make the receipt.
    """

    entries: tuple[e.NewEntry, ...] = ()
    queue: tuple[NewTurn, ...] = ()
    end: tuple[EndedTurn, ...] = ()
    cancel_approvals: tuple[str, ...] = ()
    steer: str = ""
    resolve: tuple[str, str, str] | None = None
    raise_fence: bool = False
    wake: bool = False
    claim: Claim | None = None
    delete: bool = False
    turn_id: str = ""
    strategy: str = ""
    message: int = 0


class Receipt(msgspec.Struct, frozen=True):
    """What the requester gets. `seq` is that of the answered entry (the message), `replayed` that a key was used before.
    `entries` are those just committed, for the stream; empty when replayed. `claimed` are session and turn as after the
    claim, when the write had one."""

    sid: int
    session_uid: str
    seq: int
    turn_id: str
    strategy: str
    replayed: bool = False
    entries: tuple[e.Entry, ...] = ()
    claimed: tuple[SessionRow, TurnRow] | None = None


@runtime_checkable
class Operation(Protocol):
    """One inbox operation on one session, named by (namespace, agent, session id)."""

    @property
    def where(self) -> tuple[str, str, str]:
        """(namespace, agent, session id)."""
        ...

    @property
    def key(self) -> Key | None:
        """The idempotency key under which the receipt is remembered, or None."""
        ...

    @property
    def needs_turns(self) -> bool:
        """Whether `admit` wants `View.turns`; reading them costs a query."""
        ...

    @property
    def needs_revision(self) -> bool:
        """Whether `admit` wants `View.revision`."""
        ...

    @property
    def approval(self) -> str:
        """The id of the approval that `admit` wants in its view; empty for none."""
        ...

    @property
    def creation(self) -> Creation | None:
        """How the session is created where it is missing; None: it must exist."""
        ...

    @property
    def firing(self) -> Firing | None:
        """The schedule's occurrence that it stands for: written if and only if the schedule's row moves on with it."""
        ...

    def admit(self, view: View) -> InboxWrite:
        """What to write. Pure: the same view gives the same write. Raises `Refused` | `Throttled`."""
        ...


class Creation(msgspec.Struct, frozen=True):
    """The session may be created by the operation, in its transaction: a bare one with this `uid`, if its name was never taken and
    the agent's newest revision is still `revision` (1 or more), for which a bare session was found to be right."""

    uid: str
    revision: int


class Message(msgspec.Struct, frozen=True):
    """`POST …/message`. `turn_id` is a fresh id, used if the message becomes a turn of its own.

    `offer` is the id of a worker in this process that has a free slot: the turn starts in the same commit if the session is idle
    and `start` makes its first entries (turn.started, model.started) from this message, the session as it is and the agent's
    newest revision; None: it cannot, the turn is queued.

    A `firing` with overlap `skip` writes no message to a session that is busy: its receipt has no turn.

    `received` is the message's entry where its payload was put into a blob before (kernel §4); None: it is made from the fields.
    """

    where: tuple[str, str, str]
    content: Content
    turn_id: str
    strategy: Strategy = "enqueue"
    source: str = "http"
    metadata: dict[str, object] = {}
    key: Key | None = None
    queue_max: int = 100
    traceparent: str = ""
    offer: str = ""
    start: Callable[[Message, SessionRow, int], tuple[e.NewEntry, ...] | None] | None = None
    approval: str = ""
    creation: Creation | None = None
    received: e.NewEntry | None = None
    firing: Firing | None = None

    @property
    def needs_turns(self) -> bool:
        return self.strategy != "reject"

    @property
    def needs_revision(self) -> bool:
        return self.start is not None

    def admit(self, view: View) -> InboxWrite:
        session = view.session
        current = view.turns[0] if view.turns else None
        busy = session.turn_id is not None or session.queued > 0
        if not busy:
            return self._queue(view, priority=0)
        if self.firing is not None and self.firing.overlap == "skip":
            return InboxWrite(strategy="skip")
        if self.strategy == "reject":
            raise Conflict("session_busy", f"session {session.id!r} is {session.state}; send with another strategy, or later")
        if self.strategy == "steer" and current is not None:
            return self._steer(session, current)
        if self.strategy in ("interrupt", "rollback") and current is not None:
            return self._interrupt(view, current)
        return self._queue(view, priority=0)

    def entry(self, turn_id: str = "") -> e.NewEntry:
        """The message as an entry of that turn."""
        if self.received is not None:
            return msgspec.structs.replace(self.received, turn_id=turn_id)
        payload = e.MessageReceived(content=self.content, strategy=self.strategy, source=self.source, metadata=dict(self.metadata))
        return e.new_entry(payload, turn_id, self.traceparent)

    def _queue(self, view: View, priority: int, before: tuple[e.NewEntry, ...] = (), gone: str = "") -> InboxWrite:
        """The message becomes a turn. `before` are entries that make room for it, `gone` the turn that they end."""
        session = view.session
        left = tuple(turn for turn in view.turns if turn.turn_id != gone)
        if session.queued + 1 > self.queue_max and not before:
            raise Throttled(
                "queue_full",
                f"session {session.id!r} has {session.queued} queued turns, the most that it may have; wait for one to end",
                retry_after_s=1.0,
            )
        behind = None
        if left and not priority:
            behind = e.Behind(left[0].turn_id, left[0].state, left[0].waiting_for, len(left))
        queued = e.TurnQueued(strategy=self.strategy, message_seq=session.last_seq + len(before) + 1, behind=behind)
        turn = NewTurn(self.turn_id, len(before), self.strategy, self.source, priority)
        entries = (*before, self.entry(self.turn_id), e.new_entry(queued, self.turn_id, self.traceparent))
        claim = None
        if self.start is not None and session.state == "idle":
            first = self.start(self, session, view.revision)
            if first is not None:
                claim = Claim(self.offer, self.turn_id, view.revision)
                entries = (*entries, *first)
        return InboxWrite(
            entries=entries, queue=(turn,), claim=claim, turn_id=self.turn_id, strategy=self.strategy, message=len(before)
        )

    def _steer(self, session: SessionRow, current: TurnRow) -> InboxWrite:
        """The message joins the turn that is under way, or the first queued one."""
        return InboxWrite(
            entries=(
                self.entry(current.turn_id),
                e.new_entry(e.InputSteered(message_seq=session.last_seq + 1, state="offered"), current.turn_id, self.traceparent),
            ),
            steer=current.turn_id,
            turn_id=current.turn_id,
            strategy="steer",
        )

    def _interrupt(self, view: View, current: TurnRow) -> InboxWrite:
        """The current turn makes way (a running one by its worker, another one here) and the message goes first."""
        rollback = self.strategy == "rollback"
        reason = "rolled_back" if rollback else "interrupted"
        ended, made_room = end_turn(view, current, reason, by="message", rollback=rollback, traceparent=self.traceparent)
        # A running turn still stands before the message, but not for long: nothing to tell the sender.
        write = self._queue(view, priority=1, before=made_room, gone=current.turn_id)
        return msgspec.structs.replace(
            write,
            end=ended,
            raise_fence=bool(ended),
            cancel_approvals=(current.turn_id,) if current.state == "waiting" else (),
            wake=not ended,
        )


def end_turn(
    view: View, turn: TurnRow, reason: str, *, by: str, rollback: bool, traceparent: str
) -> tuple[tuple[EndedTurn, ...], tuple[e.NewEntry, ...]]:
    """End `turn` (an open one of `view`): at once if nobody runs it, else by asking its worker. -> (ended turns, entries).

    A waiting turn that messages were steered to is asked too: only its worker knows which of them the model has not seen, and makes
    them turns of their own (nothing runs after its session is deleted).
    """
    if turn.state == "running" or (turn.state == "waiting" and turn.steered and reason != "deleted"):
        asked = e.TurnCancelRequested(reason=reason, by=by, rollback=rollback)
        return (), (e.new_entry(asked, turn.turn_id, traceparent),)
    usage = e.Usage(turn.input_tokens, turn.output_tokens)
    cancelled = e.TurnCancelled(reason=reason, by=by, rollback=rollback, usage=usage)
    ended = EndedTurn(turn.turn_id, reason, was_current=turn.turn_id == view.session.turn_id)
    return (ended,), (e.new_entry(cancelled, turn.turn_id, traceparent),)


class OnSession(msgspec.Struct, frozen=True, kw_only=True):
    """What operations have that are about a session which must exist, whatever its agent became, and about nothing else."""

    key: Key | None = None
    needs_revision: bool = False
    creation: Creation | None = None
    firing: Firing | None = None


class CancelTurn(OnSession, frozen=True):
    """`POST …/turns/{turn_id}/cancel`. A turn that has ended is `turn_ended`; one being cancelled already is a no-op receipt.

    An approval about an uncertain call stays open: what happened outside is still to be found out.
    """

    where: tuple[str, str, str]
    turn_id: str
    by: str = "http"
    traceparent: str = ""
    needs_turns: bool = True
    approval: str = ""

    def admit(self, view: View) -> InboxWrite:
        turn = next((t for t in view.turns if t.turn_id == self.turn_id), None)
        if turn is None:
            raise Conflict("turn_ended", f"turn {self.turn_id} of session {view.session.id!r} is not open any more")
        ended, entries = end_turn(view, turn, "cancelled", by=self.by, rollback=False, traceparent=self.traceparent)
        return InboxWrite(
            entries=entries, end=ended, raise_fence=bool(ended), wake=not ended, turn_id=turn.turn_id, strategy="cancel"
        )


class ResolveApproval(OnSession, frozen=True):
    """`POST …/approvals/{id}`: what to do about an uncertain call. Deciding twice is `approval_closed`."""

    where: tuple[str, str, str]
    approval: str
    outcome: str
    result: str = ""
    by: str = "http"
    note: str = ""
    traceparent: str = ""
    needs_turns: bool = False

    def admit(self, view: View) -> InboxWrite:
        row = view.approval
        if row is None:
            raise NotFound("approval_not_found", f"no approval {self.approval!r} in this namespace")
        if row.state != "open":
            raise Conflict("approval_closed", f"approval {row.id} is {row.state} ({row.outcome or 'no outcome'})")
        payload = e.ApprovalResolved(
            approval=row.id, call=row.call, outcome=self.outcome, result=self.result, by=self.by, note=self.note
        )
        return InboxWrite(
            entries=(e.new_entry(payload, row.turn_id, self.traceparent),),
            resolve=(row.id, self.outcome, self.by),
            wake=view.session.turn_id == row.turn_id,
            turn_id=row.turn_id,
            strategy="approval",
        )


class DeleteSession(OnSession, frozen=True):
    """`DELETE …/sessions/{id}`: cancels every open turn, tombstones the session, keeps its journal (kernel §8).

    A running turn is asked to end and its worker writes the end into the tombstoned journal.
    """

    where: tuple[str, str, str]
    by: str = "http"
    traceparent: str = ""
    needs_turns: bool = True
    approval: str = ""

    def admit(self, view: View) -> InboxWrite:
        ended: list[EndedTurn] = []
        entries: list[e.NewEntry] = []
        for turn in view.turns:
            more, what = end_turn(view, turn, "deleted", by=self.by, rollback=False, traceparent=self.traceparent)
            ended += more
            entries += what
        # Raising the fence would keep a running worker from writing its end; it is asked instead.
        running = any(turn.state == "running" for turn in view.turns)
        return InboxWrite(
            entries=tuple(entries),
            end=tuple(ended),
            cancel_approvals=tuple(turn.turn_id for turn in ended),
            raise_fence=not running,
            wake=running,
            delete=True,
            strategy="delete",
        )
