"""What a batch of inbox operations will write, as far as it has been decided: pure.

The operations of a batch are admitted in order, each on a view that shows what those before it will have written.
"""

from __future__ import annotations

from operator import attrgetter

import msgspec
from msgspec.structs import astuple

from talon.domain.entries import NewEntry
from talon.domain.errors import Conflict, NotFound
from talon.domain.inbox import InboxWrite, Key, Operation, Receipt, View
from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.inbox_apply import apply_write, bare_session_row, min_reader, queued_turns, receipt
from talon.store.pack import bits, pack
from talon.store.postgres.deliver_sql import MOVED_ARRAYS, PART_NAMES
from talon.store.postgres.sessions import agent_lock

Named = tuple[str, str, str]  # namespace, source, key
Rows = list[tuple[object, ...]]


def named(operation: Operation) -> Named | None:
    """The scope of the operation's key."""
    key = operation.key
    return None if key is None else (operation.where[0], key.source, key.key)


class Draft:
    """The state of a batch. `now` is the time of all that it writes, `mark` the append id of its rows in journals."""

    def __init__(self, now: int, mark: str) -> None:
        self.now = now
        self.mark = mark
        self._places: dict[tuple[str, str, str], int] = {}
        self._free: dict[tuple[str, str, str], tuple[int, int]] = {}  # places without a session -> (its sid, agent's revision)
        self._born: set[int] = set()
        self._claimed: set[int] = set()
        self._sessions: dict[int, SessionRow] = {}
        self._versions: dict[int, int] = {}
        self._revisions: dict[int, int] = {}
        self._turns: dict[int, list[TurnRow]] = {}
        self._approvals: dict[str, ApprovalRow] = {}
        self._receipts: dict[Named, tuple[str, Receipt]] = {}
        self._written: dict[int, int] = {}  # sid -> min_reader of what is written to it
        self._entries: list[tuple[int, int, tuple[NewEntry, ...]]] = []  # sid, last seq, what one operation writes
        self._inserted: dict[str, TurnRow] = {}
        self._ended: dict[str, tuple[int, str, int]] = {}  # turn -> sid, reason, times that it was steered before
        self._steered: dict[str, tuple[int, int]] = {}  # turn -> sid, times
        self._cancelled: list[tuple[int, str]] = []
        self._resolved: dict[str, tuple[int, str, str]] = {}  # approval -> sid, outcome, by whom
        self._remembered: list[tuple[Named, Key, Receipt]] = []

    # --- what was found -----------------------------------------------------------------------------------------------------

    def found_session(self, session: SessionRow, version: int, revision: int) -> None:
        """A session and the version of its row, or (without `uid`) one that may be created; and its agent's newest revision."""
        self._versions[session.sid], self._revisions[session.sid] = version, revision
        if not session.uid:
            self._free[session.namespace, session.agent, session.id] = (session.sid, revision)
            return
        self._places[session.namespace, session.agent, session.id] = session.sid
        self._sessions[session.sid] = session

    def found_turn(self, turn: TurnRow) -> None:
        """An open turn of a found session."""
        self._turns.setdefault(turn.sid, []).append(turn)

    def found_approval(self, approval: ApprovalRow) -> None:
        """An approval that an operation names, of whatever session."""
        self._approvals[approval.id] = approval

    def found_receipt(self, name: Named, body_sha256: str, first: Receipt) -> None:
        """What a key gave before."""
        self._receipts[name] = (body_sha256, first)

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
        return bare_session_row(sid, operation.where, creation, self.now)

    def _view(self, session: SessionRow, operation: Operation) -> View:
        approval = self._approvals.get(operation.approval)
        if approval is not None and approval.sid != session.sid:
            approval = None
        turns = self._turns.get(session.sid, []) if operation.needs_turns else []
        ordered = tuple(sorted(turns, key=lambda turn: (turn.turn_id != session.turn_id, -turn.priority, turn.seq)))
        return View(session, ordered, approval, self._revisions[session.sid] if operation.needs_revision else 0)

    def _write(self, before: SessionRow, write: InboxWrite) -> Receipt:
        if write == InboxWrite(turn_id=write.turn_id, strategy=write.strategy, message=write.message):
            return receipt(before, before, write, (), self.now)
        after = apply_write(before, write, self.now)
        turns = queued_turns(before, write, self.now)
        self._sessions[before.sid] = after
        self._written[before.sid] = max(self._written.get(before.sid, 1), min_reader(write.entries))
        if write.entries:
            self._entries.append((before.sid, after.last_seq, write.entries))
        self._inserted.update((turn.turn_id, turn) for turn in turns)
        if write.claim is not None:
            self._claimed.add(before.sid)
        if write.steer:
            self._steer(before.sid, write.steer)
        for turn in write.end:
            self._end(before.sid, turn.turn_id, turn.reason)
        gone = {turn.turn_id for turn in write.end}
        left = [turn for turn in self._turns.get(before.sid, []) if turn.turn_id not in gone]
        self._turns[before.sid] = [*left, *turns]
        self._decide_approvals(before.sid, write)
        if write.delete:
            del self._places[before.namespace, before.agent, before.id]
        return receipt(before, after, write, turns, self.now)

    def _end(self, sid: int, turn_id: str, reason: str) -> None:
        """A turn that was queued in this very batch is inserted as ended."""
        if turn_id in self._inserted:
            ended = msgspec.structs.replace(self._inserted[turn_id], state="cancelled", reason=reason, ended_at_ms=self.now)
            self._inserted[turn_id] = ended
        else:
            # One statement changes a row once.
            self._ended[turn_id] = (sid, reason, self._steered.pop(turn_id, (sid, 0))[1])

    def _steer(self, sid: int, turn_id: str) -> None:
        """The turn has one steered message more, also for the operations that follow in this batch."""

        def more(turn: TurnRow) -> TurnRow:
            return msgspec.structs.replace(turn, steered=turn.steered + 1) if turn.turn_id == turn_id else turn

        self._turns[sid] = [more(turn) for turn in self._turns.get(sid, [])]
        if turn_id in self._inserted:
            self._inserted[turn_id] = more(self._inserted[turn_id])
        else:
            self._steered[turn_id] = (sid, self._steered.get(turn_id, (sid, 0))[1] + 1)

    def _decide_approvals(self, sid: int, write: InboxWrite) -> None:
        if write.resolve is not None:
            approval, outcome, by = write.resolve
            self._resolved[approval] = (sid, outcome, by)
            self._close(approval, "resolved", outcome, by)
        for turn_id in write.cancel_approvals:
            self._cancelled.append((sid, turn_id))
            for row in list(self._approvals.values()):
                if row.sid == sid and row.turn_id == turn_id and row.state == "open":
                    self._close(row.id, "cancelled", "cancelled", "")

    def _close(self, approval: str, state: str, outcome: str, by: str) -> None:
        row = self._approvals.get(approval)
        if row is not None:
            changes = {"state": state, "outcome": outcome, "resolved_by": by, "resolved_at_ms": self.now}
            self._approvals[approval] = msgspec.structs.replace(row, **changes)

    # --- what to write ------------------------------------------------------------------------------------------------------

    def expected(self) -> dict[int, tuple[SessionRow, bool]]:
        """The rows of the sessions that are written, as they will be, and whether their journals' ends will bear the mark."""
        marked = {sid for sid, _, _ in self._entries}
        return {sid: (self._sessions[sid], sid in marked) for sid in self._written}

    def holds(self, operation: Operation, answer: Receipt | Exception, written: set[int]) -> bool:
        """Whether `answer` is final, now that these sessions are written: nothing that it came from was left out."""
        left_out = self._written.keys() - written
        if not left_out:
            return True
        rows = [self._sessions[sid] for sid in left_out]
        if operation.where in {_name(row) for row in rows}:
            return False
        return not isinstance(answer, Receipt) or answer.sid not in left_out

    def parts(self) -> dict[str, Rows]:
        """The rows for each part of `deliver_sql.write` that has any, in the order of its parts."""
        spared = " ".join(self._resolved)
        blobs = {
            (self._sessions[sid].namespace, digest, sid) for sid, _, some in self._entries for new in some for digest in new.blobs
        }
        rows: dict[str, Rows] = {
            "moved": [
                (*_moved(self._sessions[sid]), reader, self._versions[sid])
                for sid, reader in sorted(self._written.items())
                if sid not in self._born
            ],
            "born": [
                (*astuple(row), self._written[row.sid], agent_lock(row.namespace, row.agent), self._revisions[row.sid])
                for row in sorted((self._sessions[sid] for sid in self._born), key=_name)
            ],
            "written": [
                (sid, last_seq, bits(new.type for new in some), self.mark, pack(some)) for sid, last_seq, some in self._entries
            ],
            "held": [(sid, self._sessions[sid].owner) for sid in sorted(self._claimed)],
            "queued": [astuple(turn) for turn in self._inserted.values()],
            "ended": [(sid, turn_id, *how) for turn_id, (sid, *how) in self._ended.items()],
            "steered": [(sid, turn_id, times) for turn_id, (sid, times) in self._steered.items()],
            "cancelled": [(*one, spared) for one in self._cancelled],
            "resolved": [(sid, approval, *how) for approval, (sid, *how) in self._resolved.items()],
            "kept": [(sid, namespace, digest) for namespace, digest, sid in sorted(blobs)],
            # In one order, as the sessions and for the same reason.
            "remembered": [
                (given.sid, *name, key.body_sha256, given.session_uid, given.seq, given.turn_id, given.strategy)
                for name, key, given in sorted(self._remembered, key=lambda one: one[0])
                if given.sid in self._written
            ],
        }
        return {name: rows[name] for name in PART_NAMES if rows[name]}


def _name(row: SessionRow) -> tuple[str, str, str]:
    return row.namespace, row.agent, row.id


_moved = attrgetter(*MOVED_ARRAYS)
