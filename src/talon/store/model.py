"""What goes into and comes out of a store, beside the rows of `talon.domain.session`."""

from __future__ import annotations

from typing import Literal

import msgspec

from talon.domain.entries import Entry, NewEntry
from talon.domain.session import SessionRow, TurnRow, TurnState

# --- what a worker writes, under its fence -------------------------------------------------------------------------------


class Fragment(msgspec.Struct, frozen=True):
    """A piece of streamed text. `seq` is that of its `model.started`, `offset` in characters from the start of its kind.

    `kind` is `text` or `reasoning`; each kind counts its own offsets.
    """

    seq: int
    offset: int
    text: str
    kind: Literal["text", "reasoning"] = "text"


class TurnChange(msgspec.Struct, frozen=True):
    """The new values of the turn's row; absolute, so that writing it twice is the same. None leaves a column as it is.

    `progress` sets `attempts` to 0 (K13). An ended `state` sets `ended_at`; the first `running` sets `started_at`.
    """

    turn_id: str
    state: TurnState | None = None
    revision: int | None = None
    reason: str | None = None
    waiting_for: str | None = None
    loop: bytes | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    progress: bool = False


class QueuedTurn(msgspec.Struct, frozen=True):
    """A steering message that became a turn of its own. `seq` is that of its `message.received`."""

    turn_id: str
    seq: int
    strategy: str
    source: str


class NewApproval(msgspec.Struct, frozen=True):
    """An approval to open; `payload` is the `approval.requested` payload's bytes."""

    id: str
    turn_id: str
    call: int
    kind: str
    payload: bytes


#: What becomes of the session with an append:
#: keep      the worker goes on with it
#: release   the turn ended: nobody owns it; queued if something is queued (runnable now), else idle
#: park      the turn waits: nobody owns it, state waiting, runnable after `wake_in_ms` (None: only when woken)
#: give_back the turn is unfinished but this worker leaves it: nobody owns it, state stays running, runnable after `wake_in_ms`
Hold = Literal["keep", "release", "park", "give_back"]


class Append(msgspec.Struct, frozen=True):
    """One fenced write of a worker to one session. All of it is committed or nothing.

    `id` (a UUIDv7) is stored with its entries and tells, after a lost answer, whether the commit happened.
    `if_last_seq`, the guard: refuse with `Behind` unless the journal ends exactly there. It may be missing only where nothing was
    decided from what the journal says.
    `drop_fragments` names the `model.started` seqs whose fragments go. `cancel_approvals` closes open approvals of the turn.
    `drained` takes back the attempt that the claim counted (K13: drains excepted). It and `cancel_approvals` are about
    the turn that `turn` names, else about the one that the session has afterwards.
    """

    id: str
    sid: int
    fence: int
    entries: tuple[NewEntry, ...] = ()
    if_last_seq: int | None = None
    turn: TurnChange | None = None
    queue: tuple[QueuedTurn, ...] = ()
    fragments: tuple[Fragment, ...] = ()
    drop_fragments: tuple[int, ...] = ()
    approvals: tuple[NewApproval, ...] = ()
    cancel_approvals: bool = False
    hold: Hold = "keep"
    wake_in_ms: int | None = None
    drained: bool = False


class Appended(msgspec.Struct, frozen=True):
    """`base` is the last seq before this append (its first entry is `base + 1`), `at_ms` the store's time of the commit.

    A `base` beyond what the worker has seen means: inbox entries came in between, read them before deciding again.
    `runnable`: the session was let go and may be claimed again, now or at a time that is set.
    """

    sid: int
    base: int
    at_ms: int
    runnable: bool = False


class Claimed(msgspec.Struct, frozen=True):
    """A session that this worker now owns. `session` and `turn` are as after the claim (new fence, attempt counted).

    `was` is the turn's state before: queued (a fresh start), running (its last worker is gone or gave it back), waiting (woken).
    `revision` is the agent's newest revision now, for a fresh start. `entries` are all of the turn's entries where they are known
    already (it started in the commit that accepted it); empty: read them.
    """

    session: SessionRow
    turn: TurnRow
    was: TurnState
    revision: int
    entries: tuple[Entry, ...] = ()


class Caps(msgspec.Struct, frozen=True):
    """How many turns may run at once over all workers; 0 means no cap."""

    per_namespace: int = 0
    per_agent: int = 0


class WorkerRow(msgspec.Struct, frozen=True):
    """A registered worker. `catalogue` is what it can serve (toolsets, providers) as JSON bytes, for gateways to show."""

    id: str  # name/boot
    name: str
    expires_at_ms: int
    draining: bool
    catalogue: bytes
    started_at_ms: int


# --- sessions -------------------------------------------------------------------------------------------------------------


class NewSession(msgspec.Struct, frozen=True):
    """A session to create. `history` entries (imported messages) are appended at once. `key_id` as in kernel §8."""

    uid: str
    namespace: str
    agent: str
    id: str
    metadata: bytes = b"{}"
    features: bytes = b"{}"
    profile: str = ""
    key_id: str = ""
    config: bytes = b"{}"
    history: tuple[NewEntry, ...] = ()


class SessionPatch(msgspec.Struct, frozen=True):
    """New values for a session's own fields; None leaves a field as it is."""

    metadata: bytes | None = None
    features: bytes | None = None
    profile: str | None = None
    config: bytes | None = None
