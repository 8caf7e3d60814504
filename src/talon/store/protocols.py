"""What a store must do. Two backends do it; `talon.store.conformance` proves that they do the same.

Times are the store's clock: the database's on PostgreSQL, the process's on SQLite; Unix milliseconds.
All methods are coroutines and may be called from one event loop at once. Any of them may raise `Unavailable`
(`database_unavailable`, `storage_full`): then a read had no effect, and a write is either done or not; `commit` and `deliver`
find out which of the two by themselves, so their answer is final.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from talon.domain.entries import Entry
from talon.domain.inbox import Operation, Receipt
from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.access import AccessRows
from talon.store.model import (
    Append,
    Appended,
    Caps,
    Claimed,
    Fragment,
    NewSession,
    SessionPatch,
    WorkerRow,
)
from talon.store.resources import Resources
from talon.store.schedules import Schedules
from talon.store.shared import SharedStates
from talon.store.sight import Wall

Where = tuple[str, str, str]  # namespace, agent, session id


class Journal(Protocol):
    """Append-only entries, and what is written in the same transaction (K1, K2, K3)."""

    async def commit(self, batch: Sequence[Append]) -> list[Appended | Exception]:
        """Write a batch of fenced appends in one transaction: at most one per session, `base` and `seq` gapless.

        The answer has one item per append, in order: `Appended`; `FencedOut` when the fence is old, or nobody owns the session
        any more (given back by itself or a sweep, and not claimed yet), or it is unknown;
        `Behind` when `if_last_seq` does not match. Those appends wrote nothing; the others are durable.
        Two appends for one session raise `ValueError` and nothing is written.
        An append that the database itself refuses (bad data) raises for the whole batch, which wrote nothing: the caller bisects.
        An append whose `id` is already in the journal (the answer of its commit was lost) is answered with its first result and
        written once: one with a guard (`if_last_seq`) whatever followed it, one without until another one without
        follows. `talon.store.writer` is the caller; nobody else calls this.
        """
        ...

    async def deliver(self, batch: Sequence[Operation]) -> list[Receipt | Exception]:
        """Write a batch of inbox operations in one transaction, each decided by its `admit` on the locked session.

        Per item: a `Receipt`, or the `Refused`/`Throttled` that `admit` raised, `NotFound("session_not_found")` for an unknown or
        deleted session, `Conflict("idempotency_conflict")` for a key used with another body. Any other exception of an `admit` is
        a mistake of ours: it is raised and the batch wrote nothing. A key used with the same body gives
        its first receipt with `replayed=True`, for 24 h at least, also when two come at once. Several operations on one
        session in a batch see each other's effect, in order.
        """
        ...

    async def read_entries(self, sid: int, after: int, limit: int, types: Sequence[str] = ()) -> list[Entry]:
        """Entries with seq > `after`, ascending, at most `limit`; only `types` if given. Unknown sid: empty. Blob payloads are
        filled in."""
        ...

    async def read_turn(self, sid: int, turn_id: str, from_seq: int, after: int = 0) -> list[Entry]:
        """All entries of one turn from `from_seq` on with seq > `after`, ascending."""
        ...

    async def read_context(self, sid: int, before: int, limit: int) -> list[Entry]:
        """The last `limit` entries of `CONTEXT_TYPES` with seq < `before`, ascending.

        A bounded read whatever the journal's length (K11).
        """
        ...

    async def read_messages(self, sid: int, after: int, limit: int) -> list[Entry]:
        """`MESSAGE_TYPES` entries with seq > `after`, ascending, at most `limit`, by a partial index."""
        ...

    async def read_fragments(self, sid: int, seq: int) -> list[Fragment]:
        """The fragments of the model call at `seq`, by kind and offset; empty once its message is an entry."""
        ...

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        """sid -> last_seq for those that exist: one query for a whole gateway's poll."""
        ...

    async def put_blob(self, namespace: str, payload: bytes) -> str:
        """Store an image, or a payload over 64 KiB, outside the group commit; -> digest. Idempotent. Namespaces share nothing
        (kernel §8)."""
        ...

    async def read_blobs(self, sid: int, digests: Sequence[str]) -> Mapping[str, bytes]:
        """Those blobs of the session's namespace by their digests; what is not there, or is another namespace's, is left out."""
        ...

    async def collect_blobs(self) -> int:
        """Delete blobs that no entry refers to and nobody has put for 24 h; -> how many. Also forgets idempotency keys older than
        `talon.store.paging.KEY_KEEP_MS`."""
        ...


class Queue(Protocol):
    """Dispatch: who runs which session (K2, K7, K8, K13)."""

    async def register(self, name: str, boot: str, ttl_ms: int, catalogue: bytes) -> str:
        """Register a worker under a lease of `ttl_ms`; -> its id `name/boot`. Sessions that an earlier boot of the same name owned
        are given back at once (K8)."""
        ...

    async def heartbeat(self, worker: str, ttl_ms: int, draining: bool = False) -> bool:
        """Extend the lease. False if it is gone (expired and swept): the worker must stop at once."""
        ...

    async def retire(self, worker: str) -> int:
        """End the lease and give its sessions back now, as `sweep` would; -> how many sessions."""
        ...

    async def claim(self, worker: str, slots: int, caps: Caps) -> list[Claimed]:
        """Take up to `slots` runnable sessions (`wake_at` reached, nobody's): from the namespace with the fewest running turns, the
        oldest runnable first. Skips sessions with an entry whose `min_reader` is above `READER`. The fence grows by one, `attempts`
        of the turn too; `wake_at` becomes null. The next turn of a session is its current one, else the queued one with the
        highest priority, then the lowest seq. Never gives one session to two workers. An unknown or expired worker gets nothing."""
        ...

    async def sweep(self) -> int:
        """Give back the sessions of workers whose lease has ended or that are not registered: runnable after a back-off that grows
        with the turn's `attempts` (0, 0, 1, 2, 4 … 30 s); -> how many. Safe to run anywhere at any time.

        What sleeps since before the clock was set back keeps the rest of its wait, measured by the clock as it is now."""
        ...

    async def owned(self, worker: str) -> list[tuple[int, int]]:
        """(sid, fence) of the sessions that `worker` holds: after a lost answer it gives back those that it does not run."""
        ...

    async def next_wake_ms(self) -> int | None:
        """Milliseconds until the next session becomes runnable (0: one is), None if none will by itself."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """The workers whose lease is alive."""
        ...

    async def put_definition(self, digest: str, body: bytes) -> None:
        """Keep an immutable definition (pinned tool schemas, K12) under its digest. Idempotent."""
        ...

    async def get_definition(self, digest: str) -> bytes | None:
        """What was kept, or None."""
        ...


class Sessions(Protocol):
    """Session, turn and approval rows. Lists are ordered and paged by an opaque cursor ("" starts; "" comes back at the end);
    a cursor that cannot be read raises `Invalid("cursor_invalid")`."""

    async def create_session(self, new: NewSession) -> tuple[SessionRow, bool]:
        """Create, or return the one of that name: (row, created). Raises `NotFound("agent_not_found")` without its agent, and
        `Conflict("conflict")` when that, or a namespace above it, is being deleted. A deleted one is followed by a new incarnation
        whose `first_seq` goes on after the old `last_seq`, with a gap where the old one's turn is still running: its worker may yet
        write the end."""
        ...

    async def get_session(self, where: Where) -> SessionRow | None:
        """The living session of that name, or None."""
        ...

    async def get_session_by_sid(self, sid: int) -> SessionRow | None:
        """By number, tombstoned ones too."""
        ...

    async def patch_session(self, where: Where, patch: SessionPatch) -> SessionRow | None:
        """Change its own fields; None if it does not exist."""
        ...

    async def list_sessions(self, namespace: str, agent: str, cursor: str, limit: int) -> tuple[list[SessionRow], str]:
        """Living sessions of an agent (of all agents if `agent` is empty), newest first."""
        ...

    async def get_turn(self, sid: int, turn_id: str) -> TurnRow | None:
        """One turn of that session."""
        ...

    async def list_turns(self, sid: int, cursor: str, limit: int) -> tuple[list[TurnRow], str]:
        """Turns, newest first."""
        ...

    async def get_approval(self, namespace: str, approval: str) -> tuple[ApprovalRow, SessionRow] | None:
        """An approval with its session, if that is in `namespace`."""
        ...

    async def list_approvals(
        self, namespace: str, state: str, cursor: str, limit: int
    ) -> tuple[list[tuple[ApprovalRow, SessionRow]], str]:
        """Approvals of a namespace's living sessions in `state` ("" for all), newest first."""
        ...


class Walls(Protocol):
    """The second wall."""

    async def raise_wall(self) -> Wall:
        """Put it up, as far as the database lets this process; from then on reads with a sight go through it. Safe when many
        processes do so at once. Raises `Unavailable` when the database cannot be reached."""
        ...

    async def covers(self, where: Where) -> bool:
        """Whether the wall lets whoever asks see this place (of a session, which need not be there); True where there is none.

        Asked of the database once for each sight and place: what it says there never changes."""
        ...


class Schema(Protocol):
    """The database as a whole."""

    async def migrate(self) -> list[int]:
        """Run the missing migrations; -> their numbers. Safe when many processes start at once. Raises
        `Unavailable("database_newer")` when the database's `min_program` is above this program's schema version."""
        ...

    async def schema_version(self) -> tuple[int, int]:
        """(version of the database, version that this program knows)."""
        ...

    async def ping(self) -> None:
        """Raise `Unavailable` unless the database answers and takes writes."""
        ...

    async def close(self) -> None:
        """Release everything; no method may be called afterwards."""
        ...


class Store(Journal, Queue, Sessions, Resources, Schedules, AccessRows, SharedStates, Walls, Schema, Protocol):
    """All of it; what the composition root builds. Parts of Talon take the smallest Protocol that they need."""
