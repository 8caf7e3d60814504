"""Sessions, turns, entries and approvals as the API shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.content import Content
from talon.domain.entries import ApprovalRequested, Entry, MessageCompleted, MessageReceived
from talon.domain.session import ApprovalRow, LoopState, SessionRow, TurnRow
from talon.gateway.times import rfc3339, rfc3339_or_none

_loop = msgspec.json.Decoder(LoopState)
_requested = msgspec.json.Decoder(ApprovalRequested)


class Session(msgspec.Struct, frozen=True):
    """A session. `status` is `active` as long as it exists (`seeds/000`), `state` says what it does: idle | queued | running |
    waiting. `last_seq` is 0 while its journal is empty; `turn_id` is the running or waiting turn."""

    id: str
    uid: str
    namespace: str
    agent: str
    status: str
    state: str
    turn_id: str | None
    queued: int
    last_seq: int
    metadata: msgspec.Raw
    features: msgspec.Raw
    profile: str
    config: msgspec.Raw
    created_at: str
    updated_at: str


class TurnUsage(msgspec.Struct, frozen=True):
    """Tokens of all model calls of a turn."""

    input_tokens: int
    output_tokens: int


class Turn(msgspec.Struct, frozen=True):
    """A turn. `seq` is where its entries begin; `reason` says why it ended, `waiting_for` what it waits for."""

    turn_id: str
    session_id: str
    state: str
    strategy: str
    source: str
    seq: int
    revision: int
    attempts: int
    reason: str
    waiting_for: str
    loop: LoopState
    usage: TurnUsage
    created_at: str
    started_at: str | None
    ended_at: str | None


class JournalEntry(msgspec.Struct, frozen=True):
    """An entry, as on the stream. Fields of `payload` that have their default are left out."""

    seq: int
    turn_id: str | None
    type: str
    at: str
    payload: msgspec.Raw


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the conversation. Where it was sent as parts, `content` has them; the bytes of an image are at
    `…/messages/SEQ/images/NUMBER`, the number of the part from 0."""

    seq: int
    turn_id: str | None
    role: str
    content: Content
    at: str
    metadata: dict[str, Any]
    imported: bool


class Approval(msgspec.Struct, frozen=True):
    """What a human is asked: the call, its exact arguments, and what was decided."""

    id: str
    namespace: str
    agent: str
    session_id: str
    turn_id: str
    kind: str
    state: str
    name: str
    call: int
    arguments: str
    arguments_sha256: str
    outcome: str
    resolved_by: str
    created_at: str
    resolved_at: str | None


class MessageReceipt(msgspec.Struct, frozen=True):
    """A message is durable. `seq` is its entry, `turn_id` the turn that it became or joined."""

    session_id: str
    turn_id: str
    seq: int
    strategy: str


def session(row: SessionRow) -> Session:
    """A row as it is shown."""
    return Session(
        id=row.id,
        uid=row.uid,
        namespace=row.namespace,
        agent=row.agent,
        status="active",
        state=row.state,
        turn_id=row.turn_id,
        queued=row.queued,
        last_seq=row.last_seq if row.last_seq >= row.first_seq else 0,
        metadata=msgspec.Raw(row.metadata or b"{}"),
        features=msgspec.Raw(row.features or b"{}"),
        profile=row.profile,
        config=msgspec.Raw(row.config or b"{}"),
        created_at=rfc3339(row.created_at_ms),
        updated_at=rfc3339(row.updated_at_ms),
    )


def loop_state(turn: TurnRow | None) -> LoopState:
    """Where the turn's loop stands; the beginning if it has not begun."""
    return _loop.decode(turn.loop) if turn is not None and turn.loop else LoopState()


def turn(row: TurnRow, session_id: str) -> Turn:
    """A row as it is shown."""
    return Turn(
        turn_id=row.turn_id,
        session_id=session_id,
        state=row.state,
        strategy=row.strategy,
        source=row.source,
        seq=row.seq,
        revision=row.revision,
        attempts=row.attempts,
        reason=row.reason,
        waiting_for=row.waiting_for,
        loop=loop_state(row),
        usage=TurnUsage(row.input_tokens, row.output_tokens),
        created_at=rfc3339(row.created_at_ms),
        started_at=rfc3339_or_none(row.started_at_ms),
        ended_at=rfc3339_or_none(row.ended_at_ms),
    )


def entry(one: Entry) -> JournalEntry:
    """An entry as it is shown."""
    return JournalEntry(one.seq, one.turn_id or None, one.type, rfc3339(one.at_ms), msgspec.Raw(one.payload))


def message(one: Entry) -> ChatMessage:
    """A message's entry as it is shown."""
    payload = one.decode()
    if isinstance(payload, MessageReceived):
        role, metadata, imported = payload.role, payload.metadata, payload.imported
    elif isinstance(payload, MessageCompleted):
        role, metadata, imported = payload.role, {}, payload.imported
    else:
        raise TypeError(f"entry {one.seq} of type {one.type} is no message")
    return ChatMessage(one.seq, one.turn_id or None, role, payload.content, rfc3339(one.at_ms), dict(metadata), imported)


def approval(row: ApprovalRow, owner: SessionRow) -> Approval:
    """A row, with the session that asks, as it is shown."""
    asked = _requested.decode(row.payload)
    return Approval(
        id=row.id,
        namespace=owner.namespace,
        agent=owner.agent,
        session_id=owner.id,
        turn_id=row.turn_id,
        kind=row.kind,
        state=row.state,
        name=asked.name,
        call=row.call,
        arguments=asked.arguments,
        arguments_sha256=asked.arguments_sha256,
        outcome=row.outcome,
        resolved_by=row.resolved_by,
        created_at=rfc3339(row.created_at_ms),
        resolved_at=rfc3339_or_none(row.resolved_at_ms),
    )
