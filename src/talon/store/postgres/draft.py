"""What a batch of inbox operations will write, as far as it has been decided: pure.

The operations of a batch are admitted in order, each on a view that shows what those before it will have written.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from talon.domain.bell import Bell
from talon.domain.entries import NewEntry
from talon.domain.errors import Conflict, NotFound
from talon.domain.inbox import InboxWrite, Key, Operation, Receipt, View
from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.inbox_apply import apply_write, bare_session_row, min_reader, queued_turns, receipt
from talon.store.postgres.deliver_sql import BORN_ARRAYS, SESSION_ARRAYS, TURN_ARRAYS
from talon.store.postgres.rows import transpose

Named = tuple[str, str, str]  # namespace, source, key


def named(operation: Operation) -> Named | None:
    """The scope of the operation's key."""
    key = operation.key
    return None if key is None else (operation.where[0], key.source, key.key)


class Draft:
    """The state of a batch. `now` is the time of all that it writes, `mark` the append id of its first entry."""

    def __init__(self, now: int, mark: str) -> None:
        self._now = now
        self._mark = mark
        self._places: dict[tuple[str, str, str], int] = {}
        self._free: dict[tuple[str, str, str], tuple[int, int]] = {}  # places without a session -> (its sid, agent's revision)
        self._born: set[int] = set()
        self._sessions: dict[int, SessionRow] = {}
        self._revisions: dict[int, int] = {}
        self._turns: dict[int, list[TurnRow]] = {}
        self._approvals: dict[str, ApprovalRow] = {}
        self._receipts: dict[Named, tuple[str, Receipt]] = {}
        self._written: dict[int, int] = {}  # sid -> min_reader of what is written to it
        self._entries: list[tuple[int, int, NewEntry]] = []
        self._inserted: dict[str, TurnRow] = {}
        self._ended: dict[str, str] = {}
        self._steered: dict[str, int] = {}
        self._cancelled: list[tuple[int, str]] = []
        self._resolved: dict[str, tuple[str, str]] = {}
        self._remembered: list[tuple[Named, Key, Receipt]] = []

    # --- what was found -----------------------------------------------------------------------------------------------------

    def found_session(self, session: SessionRow, revision: int) -> None:
        """A locked session, or (without `uid`) one that may be created; and the newest revision of its agent."""
        self._revisions[session.sid] = revision
        if not session.uid:
            self._free[session.namespace, session.agent, session.id] = (session.sid, revision)
            return
        self._places[session.namespace, session.agent, session.id] = session.sid
        self._sessions[session.sid] = session

    def found_turns(self, turns: Iterable[TurnRow]) -> None:
        """Open turns of found sessions, by queue order."""
        for turn in turns:
            self._turns.setdefault(turn.sid, []).append(turn)

    def found_approvals(self, approvals: Iterable[ApprovalRow]) -> None:
        """Approvals that operations name, of whatever session."""
        self._approvals.update((row.id, row) for row in approvals)

    def found_receipt(self, name: Named, body_sha256: str, first: Receipt) -> None:
        """What a key gave before."""
        self._receipts[name] = (body_sha256, first)

    def busy(self) -> list[int]:
        """The found sessions that have open turns."""
        return [sid for sid, session in self._sessions.items() if session.turn_id is not None or session.queued]

    # --- deciding -----------------------------------------------------------------------------------------------------------

    def admit(self, operation: Operation) -> Receipt:
        """Decide one operation. Raises what refuses it."""
        name = named(operation)
        if name is not None and operation.key is not None and name in self._receipts:
            body, first = self._receipts[name]
            if body != operation.key.body_sha256:
                raise Conflict(
                    "idempotency_conflict",
                    f"the key {operation.key.key!r} was used for another request; send this one under a key of its own",
                )
            return msgspec.structs.replace(first, replayed=True, entries=(), claimed=None)
        sid = self._places.get(operation.where)
        before = self._created(operation) if sid is None else self._sessions[sid]
        write = operation.admit(self._view(before, operation))
        if sid is None:
            self._places[operation.where] = before.sid
            self._born.add(before.sid)
        given = self._write(before, write)
        if name is not None and operation.key is not None:
            self._receipts[name] = (operation.key.body_sha256, given)
            self._remembered.append((name, operation.key, given))
        return given

    def _created(self, operation: Operation) -> SessionRow:
        """The session that the operation may create. Raises `NotFound`."""
        sid, revision = self._free.get(operation.where, (0, 0))
        creation = operation.creation
        if not revision or creation is None or creation.revision != revision:
            namespace, agent, session_id = operation.where
            raise NotFound("session_not_found", f"agent {agent!r} in {namespace!r} has no session {session_id!r}; create it first")
        return bare_session_row(sid, operation.where, creation, self._now)

    def _view(self, session: SessionRow, operation: Operation) -> View:
        approval = self._approvals.get(operation.approval)
        if approval is not None and approval.sid != session.sid:
            approval = None
        turns = self._turns.get(session.sid, []) if operation.needs_turns else []
        ordered = tuple(sorted(turns, key=lambda turn: turn.turn_id != session.turn_id))
        return View(session, ordered, approval, self._revisions[session.sid] if operation.needs_revision else 0)

    def _write(self, before: SessionRow, write: InboxWrite) -> Receipt:
        if write == InboxWrite(turn_id=write.turn_id, strategy=write.strategy, message=write.message):
            return receipt(before, before, write, (), self._now)
        after = apply_write(before, write, self._now)
        turns = queued_turns(before, write, self._now)
        self._sessions[before.sid] = after
        self._written[before.sid] = max(self._written.get(before.sid, 1), min_reader(write.entries))
        self._entries += [(before.sid, seq, new) for seq, new in enumerate(write.entries, before.last_seq + 1)]
        self._inserted.update((turn.turn_id, turn) for turn in turns)
        if write.steer:
            self._steer(before.sid, write.steer)
        for turn in write.end:
            self._end(turn.turn_id, turn.reason)
        gone = {turn.turn_id for turn in write.end}
        left = [turn for turn in self._turns.get(before.sid, []) if turn.turn_id not in gone]
        self._turns[before.sid] = sorted([*left, *turns], key=lambda turn: (-turn.priority, turn.seq))
        self._decide_approvals(before.sid, write)
        if write.delete:
            del self._places[before.namespace, before.agent, before.id]
        return receipt(before, after, write, turns, self._now)

    def _end(self, turn_id: str, reason: str) -> None:
        """A turn that was queued in this very batch is inserted as ended."""
        if turn_id in self._inserted:
            ended = msgspec.structs.replace(self._inserted[turn_id], state="cancelled", reason=reason, ended_at_ms=self._now)
            self._inserted[turn_id] = ended
        else:
            self._ended[turn_id] = reason
        self._steered.pop(turn_id, None)  # one statement changes a row once, and nobody asks an ended turn

    def _steer(self, sid: int, turn_id: str) -> None:
        """The turn has one steered message more, also for the operations that follow in this batch."""

        def more(turn: TurnRow) -> TurnRow:
            return msgspec.structs.replace(turn, steered=turn.steered + 1) if turn.turn_id == turn_id else turn

        self._turns[sid] = [more(turn) for turn in self._turns.get(sid, [])]
        if turn_id in self._inserted:
            self._inserted[turn_id] = more(self._inserted[turn_id])
        else:
            self._steered[turn_id] = self._steered.get(turn_id, 0) + 1

    def _decide_approvals(self, sid: int, write: InboxWrite) -> None:
        if write.resolve is not None:
            approval, outcome, by = write.resolve
            self._resolved[approval] = (outcome, by)
            self._close(approval, "resolved", outcome, by)
        for turn_id in write.cancel_approvals:
            self._cancelled.append((sid, turn_id))
            for row in list(self._approvals.values()):
                if row.sid == sid and row.turn_id == turn_id and row.state == "open":
                    self._close(row.id, "cancelled", "cancelled", "")

    def _close(self, approval: str, state: str, outcome: str, by: str) -> None:
        row = self._approvals.get(approval)
        if row is not None:
            changes = {"state": state, "outcome": outcome, "resolved_by": by, "resolved_at_ms": self._now}
            self._approvals[approval] = msgspec.structs.replace(row, **changes)

    # --- what to write ------------------------------------------------------------------------------------------------------

    def witness(self) -> tuple[SessionRow, int, str] | None:
        """Where to look whether the batch was written: a session's row afterwards, and the seq and append id of the first entry
        (0 and "" if the batch has none). None if there is nothing to write."""
        if self._entries:
            sid, seq, _ = self._entries[0]
            return self._sessions[sid], seq, self._mark
        return next(((self._sessions[sid], 0, "") for sid in self._written), None)

    @property
    def creates(self) -> bool:
        """Whether sessions begin with this batch."""
        return bool(self._born)

    def bell(self) -> Bell:
        """What is new, and whether anything can be claimed now."""
        rows = [self._sessions[sid] for sid in self._written]
        runnable = any(row.wake_at_ms is not None and row.wake_at_ms <= self._now for row in rows)
        return Bell(runnable, tuple((row.sid, row.last_seq) for row in rows))

    def arguments(self) -> list[list[object]]:
        """The arrays of `deliver_sql.WRITE`, from $3 on."""
        sessions, born = (
            [
                (*(getattr(self._sessions[sid], field) for field in fields), reader)
                for sid, reader in self._written.items()
                if (sid in self._born) == new
            ]
            for new, fields in ((False, SESSION_ARRAYS), (True, BORN_ARRAYS))
        )
        entries = [
            (
                sid,
                seq,
                self._mark if nth == 0 else None,
                new.turn_id,
                new.type,
                new.payload,
                new.blob,
                self._sessions[sid].key_id,
                new.traceparent,
                new.v,
                new.min_reader,
            )
            for nth, (sid, seq, new) in enumerate(self._entries)
        ]
        turns = [tuple(getattr(turn, field) for field in TURN_ARRAYS) for turn in self._inserted.values()]
        keys = [
            (*name, key.body_sha256, given.sid, given.session_uid, given.seq, given.turn_id, given.strategy)
            for name, key, given in self._remembered
        ]
        return [
            *transpose(sessions, len(SESSION_ARRAYS) + 1),
            *transpose(entries, 11),
            *transpose(turns, len(TURN_ARRAYS)),
            *transpose(self._ended.items(), 2),
            *transpose(self._cancelled, 2),
            *transpose([(approval, *how) for approval, how in self._resolved.items()], 3),
            *transpose(keys, 9),
            *transpose(self._steered.items(), 2),
            *(transpose(born, len(BORN_ARRAYS) + 1) if born else ()),
        ]
