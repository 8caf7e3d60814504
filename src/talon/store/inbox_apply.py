"""What a write does to its session's row, purely: one meaning for both stores.

A store locks the row, computes the new one here and writes it. Nothing here decides whether a message is accepted (that is
`Operation.admit`) or what a worker does next; it only says how the columns follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from talon.domain.entries import Entry, NewEntry
from talon.domain.errors import Behind, Conflict, FencedOut, NotFound
from talon.domain.inbox import Creation, InboxWrite, Receipt
from talon.domain.session import SessionRow, TurnRow
from talon.store.model import Append, NewSession, QueuedTurn

#: How long a session given back by a sweep waits, by the `attempts` of its turn (K13); the last one holds for all above.
BACKOFF_MS = (0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
#: Seqs left free behind an incarnation whose turn was still running when it was deleted: its worker may yet write the end.
TAIL_RESERVE = 1_000
#: A row that was written so much later than now is from before the clock was set back.
CLOCK_SET_BACK_MS = 1_000


def backoff_ms(attempts: int) -> int:
    """How long a session waits after its worker was lost while its turn had `attempts` claims without progress."""
    return BACKOFF_MS[min(attempts, len(BACKOFF_MS) - 1)]


def first_seq_after(old: SessionRow | None) -> int:
    """The first seq of a new incarnation after `old`, the newest earlier one of that name (None: there was none).

    Above every seq that the old one has or may still get, so that a cursor names one entry for ever; and above its first one,
    though it was empty.
    """
    if old is None:
        return 1
    return max(old.first_seq, old.last_seq) + 1 + (TAIL_RESERVE if old.turn_id is not None else 0)


def new_session_row(sid: int, new: NewSession, first_seq: int, now: int) -> SessionRow:
    """The row of a session that is being created, its history counted. Without a `key_id` it is the namespace's (kernel §8)."""
    return SessionRow(
        sid=sid,
        uid=new.uid,
        namespace=new.namespace,
        agent=new.agent,
        id=new.id,
        state="idle",
        first_seq=first_seq,
        last_seq=first_seq - 1 + len(new.history),
        fence=0,
        owner=None,
        wake_at_ms=None,
        turn_id=None,
        queued=0,
        metadata=new.metadata,
        features=new.features,
        profile=new.profile,
        key_id=new.key_id or new.namespace,
        created_at_ms=now,
        updated_at_ms=now,
        config=new.config,
    )


def check_agent(new: NewSession, ends: bool | None) -> None:
    """Refuse the creation of a session whose agent is absent (None), or is being deleted, or lives in a namespace that is.

    Raises `NotFound("agent_not_found")`, `Conflict("conflict")`.
    """
    named = f"agent {new.agent!r} in namespace {new.namespace!r}"
    if ends is None:
        raise NotFound("agent_not_found", f"there is no {named}; apply it first")
    if ends:
        raise Conflict("conflict", f"{named} is being deleted; no session of it can begin")


def bare_session_row(sid: int, where: tuple[str, str, str], creation: Creation, now: int) -> SessionRow:
    """The row of a session that an operation creates under a name that was never taken."""
    namespace, agent, name = where
    return new_session_row(sid, NewSession(uid=creation.uid, namespace=namespace, agent=agent, id=name), 1, now)


def _wake_at_ms(session: SessionRow, now: int) -> int | None:
    """When the session is runnable. A row from later than `now` is from before the clock was set back: it keeps the rest of its
    wait, which nobody could tell any more once the row is written at `now` (a sweep does the same with rows that nobody writes)."""
    wake = session.wake_at_ms
    if wake is None or session.updated_at_ms <= now + CLOCK_SET_BACK_MS:
        return wake
    return now + max(0, wake - session.updated_at_ms)


def apply_write(session: SessionRow, write: InboxWrite, now: int) -> SessionRow:
    """The session's row after `write`.

    - The fence is not raised while somebody owns the session: then the turn that ends is a queued one behind the owner's, who
      must go on.
    - A session without a current turn is queued and runnable if anything is queued, else idle. One that was queued already keeps
      its place (its older `wake_at_ms`).
    - A session with a current turn keeps its state; `wake` makes it runnable now unless somebody owns it.
    """
    queued = session.queued + len(write.queue) - sum(not turn.was_current for turn in write.end)
    turn_id = None if any(turn.was_current for turn in write.end) else session.turn_id
    fence = session.fence + (1 if write.raise_fence and session.owner is None else 0)
    state, owner, wake = session.state, session.owner, _wake_at_ms(session, now)
    if write.claim is not None:
        state, owner, wake = "running", write.claim.owner, None
        turn_id, queued, fence = write.claim.turn_id, queued - 1, fence + 1
    elif turn_id is None:
        kept = wake if session.state == "queued" else None
        state, wake = ("queued", now if kept is None else kept) if queued else ("idle", None)
    elif write.wake and owner is None:
        wake = now if wake is None else min(wake, now)
    return msgspec.structs.replace(
        session,
        state=state,
        last_seq=session.last_seq + len(write.entries),
        fence=fence,
        owner=owner,
        wake_at_ms=wake,
        turn_id=turn_id,
        queued=queued,
        updated_at_ms=now,
        deleted_at_ms=now if write.delete else session.deleted_at_ms,
    )


def queued_turns(session: SessionRow, write: InboxWrite, now: int) -> list[TurnRow]:
    """The turn rows that `write` inserts into `session` (its row before the write); the claimed one is running already."""
    claimed = write.claim.turn_id if write.claim is not None else None
    return [
        msgspec.structs.replace(
            _turn(turn.turn_id, session, session.last_seq + 1 + turn.entry, turn.strategy, turn.source, now),
            priority=turn.priority,
            state="running" if turn.turn_id == claimed else "queued",
            attempts=1 if turn.turn_id == claimed else 0,
            started_at_ms=now if turn.turn_id == claimed else None,
            revision=write.claim.revision if write.claim is not None and turn.turn_id == claimed else 0,
        )
        for turn in write.queue
    ]


def receipt(before: SessionRow, after: SessionRow, write: InboxWrite, turns: Sequence[TurnRow], now: int) -> Receipt:
    """What the requester gets for `write`, whose inserted turn rows are `turns`."""
    claimed = None
    if write.claim is not None:
        claimed = (after, next(turn for turn in turns if turn.turn_id == write.claim.turn_id))
    return Receipt(
        sid=before.sid,
        session_uid=before.uid,
        seq=before.last_seq + 1 + write.message if write.entries else before.last_seq,
        turn_id=write.turn_id,
        strategy=write.strategy,
        entries=tuple(number(before.last_seq, write.entries, now)),
        claimed=claimed,
    )


def refusal(session: SessionRow | None, append: Append) -> FencedOut | Behind | None:
    """Why `append` may not be written to `session` (None: unknown), or None if it may.

    Its writer must own the session: the fence alone stays the newest for a moment after a sweep gave the session back.
    """
    if session is None or session.fence != append.fence or session.owner is None:
        return FencedOut(f"session {append.sid} is no longer held under fence {append.fence}")
    if append.if_last_seq is not None and append.if_last_seq != session.last_seq:
        return Behind(f"session {append.sid} ends at {session.last_seq}, not at {append.if_last_seq}")
    return None


def apply_append(session: SessionRow, append: Append, now: int) -> SessionRow:
    """The session's row after `append`, which `refusal` has let through. `give_back` without `wake_in_ms` is runnable now."""
    queued = session.queued + len(append.queue)
    state, owner, wake, turn_id = session.state, session.owner, session.wake_at_ms, session.turn_id
    if append.hold == "release":
        owner, turn_id = None, None
        state, wake = ("queued", now) if queued else ("idle", None)
    elif append.hold == "park":
        owner, state = None, "waiting"
        wake = None if append.wake_in_ms is None else now + append.wake_in_ms
    elif append.hold == "give_back":
        owner, wake = None, now + (append.wake_in_ms or 0)
    return msgspec.structs.replace(
        session,
        state=state,
        last_seq=session.last_seq + len(append.entries),
        owner=owner,
        wake_at_ms=wake,
        turn_id=turn_id,
        queued=queued,
        updated_at_ms=now,
    )


def requeued_turn(session: SessionRow, turn: QueuedTurn, now: int) -> TurnRow:
    """The row of a steering message that became a turn of its own."""
    return _turn(turn.turn_id, session, turn.seq, turn.strategy, turn.source, now)


def number(base: int, entries: Sequence[NewEntry], now: int) -> list[Entry]:
    """`entries` as committed after `base`. The payload of one that lies in the blob table stays empty."""
    return [
        Entry(seq, new.type, new.payload, new.turn_id, now, new.traceparent, new.v, new.min_reader)
        for seq, new in enumerate(entries, base + 1)
    ]


def min_reader(entries: Iterable[NewEntry]) -> int:
    """The oldest reader that can fold all of `entries`."""
    return max((entry.min_reader for entry in entries), default=1)


def _turn(turn_id: str, session: SessionRow, seq: int, strategy: str, source: str, now: int) -> TurnRow:
    return TurnRow(
        turn_id=turn_id,
        sid=session.sid,
        seq=seq,
        state="queued",
        strategy=strategy,
        source=source,
        priority=0,
        attempts=0,
        revision=0,
        reason="",
        waiting_for="",
        loop=b"{}",
        input_tokens=0,
        output_tokens=0,
        created_at_ms=now,
        started_at_ms=None,
        ended_at_ms=None,
    )
