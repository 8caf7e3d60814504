"""Sessions, turns and approvals as rows: the projections that are kept beside the journal in the same transaction.

session state      idle ──message──> queued ──claim──> running ──park──> waiting
                    ^                  ^  └──────────────┐ │ │              │
                    └── release, nothing queued ─────────│─┘ └── release ───┘ (approval, timer: claim)

turn state         queued → running ⇄ waiting → completed | failed | cancelled | denied
"""

from __future__ import annotations

from typing import Literal

import msgspec

SessionState = Literal["idle", "queued", "running", "waiting"]
TurnState = Literal["queued", "running", "waiting", "completed", "failed", "cancelled", "denied"]
OPEN_TURN_STATES: tuple[TurnState, ...] = ("queued", "running", "waiting")
Strategy = Literal["enqueue", "steer", "interrupt", "rollback", "reject"]
STRATEGIES: tuple[Strategy, ...] = ("enqueue", "steer", "interrupt", "rollback", "reject")
ApprovalState = Literal["open", "resolved", "cancelled"]


class SessionRow(msgspec.Struct, frozen=True):
    """One incarnation of a session. `sid` is the store's number of it, `uid` its public UUIDv7.

    `first_seq` continues after the last seq of an earlier incarnation of the same name (1 for the first), so a cursor names one
    entry of one incarnation for ever. `last_seq` is `first_seq - 1` while the journal is empty.
    `owner` is the worker (`name/boot`) that holds the session under `fence`; while it is set, `wake_at_ms` is None.
    `metadata`, `features` are JSON objects as bytes; `profile` chooses a model profile by name ("" = the agent's),
    `config` is a `SessionConfig` as JSON bytes.
    """

    sid: int
    uid: str
    namespace: str
    agent: str
    id: str
    state: SessionState
    first_seq: int
    last_seq: int
    fence: int
    owner: str | None
    wake_at_ms: int | None
    turn_id: str | None  # the running or waiting turn
    queued: int
    metadata: bytes
    features: bytes
    profile: str
    key_id: str
    created_at_ms: int
    updated_at_ms: int
    deleted_at_ms: int | None = None
    config: bytes = b"{}"


class TurnRow(msgspec.Struct, frozen=True):
    """One turn. `seq` is that of its `message.received` (where its entries begin); `loop` a LoopState as JSON bytes.

    `priority` orders a session's queue before `seq` does (an interrupting message goes first). `attempts` counts claims
    without progress in the journal (K13), `steered` the messages that were steered to the turn.
    """

    turn_id: str
    sid: int
    seq: int
    state: TurnState
    strategy: str
    source: str
    priority: int
    attempts: int
    revision: int
    reason: str
    waiting_for: str
    loop: bytes
    input_tokens: int
    output_tokens: int
    created_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    steered: int = 0


class ApprovalRow(msgspec.Struct, frozen=True):
    """What a human is asked. `payload` is the `approval.requested` payload's bytes, `outcome` empty while open."""

    id: str
    sid: int
    turn_id: str
    call: int
    kind: str
    state: ApprovalState
    payload: bytes
    outcome: str
    resolved_by: str
    created_at_ms: int
    resolved_at_ms: int | None


class SessionConfig(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """What one session wants otherwise than its agent says (`seeds/003`, "Session Data Structure").

    `model` is asked first; empty: the agent's. `thinking_level`: off | low | medium | high; empty: the profile's. `verbose_level`:
    whether the model's visible thoughts are streamed and kept; None: they are.
    """

    model: str = ""
    thinking_level: Literal["", "off", "low", "medium", "high"] = ""
    verbose_level: bool | None = None


class LoopState(msgspec.Struct, frozen=True, rename="camel"):
    """Where a turn's loop stands, for people and clients (`seeds/003`, "State Machine Interface")."""

    # What stays the same from step to step comes last: of a row that changes, PostgreSQL does not log the end that stays.

    phase: str = "planning"
    iteration: int = 0
    total_tokens_used: int = 0
    total_cost: float = 0.0
    pending: tuple[str, ...] = ()
    completed: tuple[str, ...] = ()
    max_iterations: int = 10
    goal: str = ""
