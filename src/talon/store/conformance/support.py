"""Short ways to bring a store into the states that the suites ask about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import msgspec
import pytest

from talon.domain import entries as e
from talon.domain.content import Content
from talon.domain.errors import Conflict
from talon.domain.inbox import Message, Operation, Receipt
from talon.domain.session import SessionRow, Strategy, TurnRow
from talon.store.model import Append, Appended, Caps, Claimed, NewApproval, NewSession, TurnChange
from talon.store.protocols import Store
from talon.store.resources import Changes, Identity, PutResource

Execute = Callable[[str], Awaitable[None]]
T = TypeVar("T")

NAMESPACE, AGENT = "acme", "support"
WORKER = "w1/boot"
LONG_MS = 60_000
_ids = count(1)


def fresh_id() -> str:
    """An id in the form of a UUIDv7, later ones after earlier ones."""
    return f"01900000-0000-7000-8000-{next(_ids):012x}"


async def ensure(store: Store, *identities: Identity) -> None:
    """Resources of these names, where they are missing."""
    for _ in range(10):  # others may be making the same
        there = {(row.namespace, row.kind, row.name) for row in await store.get_resources(identities)}
        puts = tuple(PutResource(*one, fresh_id(), 0, b"{}") for one in identities if one not in there)
        if not puts:
            return
        with suppress(Conflict):
            await store.change(Changes(puts))


async def ensure_agent(store: Store, namespace: str = NAMESPACE, agent: str = AGENT) -> None:
    """The namespace and the agent of a session, the agent without a definition."""
    await ensure(store, ("", "Namespace", namespace), (namespace, "Agent", agent))


async def create(store: Store, name: str = "s1", namespace: str = NAMESPACE, agent: str = AGENT) -> SessionRow:
    """A new session, and its agent if it is missing."""
    await ensure_agent(store, namespace, agent)
    row, created = await store.create_session(NewSession(uid=fresh_id(), namespace=namespace, agent=agent, id=name))
    assert created
    return row


def where(session: SessionRow) -> tuple[str, str, str]:
    return session.namespace, session.agent, session.id


async def again(store: Store, session: SessionRow) -> SessionRow:
    """The session's row now, tombstoned or not."""
    row = await store.get_session_by_sid(session.sid)
    assert row is not None
    return row


async def turn_of(store: Store, session: SessionRow, turn_id: str) -> TurnRow:
    row = await store.get_turn(session.sid, turn_id)
    assert row is not None
    return row


def message(session: SessionRow, content: Content = "hello", strategy: Strategy = "enqueue", **more: Any) -> Message:
    """A message with a fresh turn id."""
    return Message(
        where=where(session), content=content, turn_id=more.pop("turn_id", None) or fresh_id(), strategy=strategy, **more
    )


async def deliver(store: Store, operation: Operation) -> Receipt:
    """Deliver one operation; raises what it was answered with."""
    (answer,) = await store.deliver([operation])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def send(
    store: Store, session: SessionRow, content: Content = "hello", strategy: Strategy = "enqueue", **more: Any
) -> Receipt:
    return await deliver(store, message(session, content, strategy, **more))


async def register(store: Store, name: str = "w1", boot: str = "boot", ttl_ms: int = LONG_MS) -> str:
    return await store.register(name, boot, ttl_ms, b"{}")


async def claim_one(store: Store, worker: str = WORKER) -> Claimed:
    """Claim exactly one session."""
    (claimed,) = await store.claim(worker, 1, Caps())
    return claimed


async def running(store: Store, name: str = "s1", worker: str = "w1", namespace: str = NAMESPACE, agent: str = AGENT) -> Claimed:
    """A new session with one turn, claimed by `worker`, which is registered. Nothing else may be runnable."""
    session = await create(store, name, namespace, agent)
    await send(store, session)
    return await claim_one(store, await register(store, worker))


def append(claimed: Claimed | SessionRow, *payloads: e.Payload, **more: Any) -> Append:
    """An append under the fence of `claimed`, its entries of the current turn."""
    session = claimed.session if isinstance(claimed, Claimed) else claimed
    entries = tuple(e.new_entry(payload, session.turn_id or "") for payload in payloads)
    fields: dict[str, Any] = {"id": fresh_id(), "sid": session.sid, "fence": session.fence, "entries": entries}
    return Append(**(fields | more))


async def commit(store: Store, one: Append) -> Appended:
    """Commit one append; raises what it was answered with."""
    (answer,) = await store.commit([one])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def finish(store: Store, claimed: Claimed, **more: Any) -> Appended:
    """End the claimed turn with an answer and release its session."""
    change = TurnChange(claimed.turn.turn_id, state="completed", reason="answered")
    end = append(claimed, e.MessageCompleted(content="done"), e.TurnCompleted(), turn=change, hold="release", **more)
    return await commit(store, end)


async def park(store: Store, claimed: Claimed, wake_in_ms: int | None = None, approval: str = "") -> Appended:
    """Let the claimed turn wait, for an approval if one is named."""
    kind = "approval" if approval else "timer"
    change = TurnChange(claimed.turn.turn_id, state="waiting", waiting_for=kind)
    asked = e.ApprovalRequested(approval=approval, kind="uncertain", call=1, name="pay", arguments="{}", arguments_sha256="")
    opened = (NewApproval(approval, claimed.turn.turn_id, 1, "uncertain", msgspec.json.encode(asked)),) if approval else ()
    waiting = e.TurnWaiting(kind=kind, approvals=(approval,) if approval else ())
    payloads: tuple[e.Payload, ...] = (asked, waiting) if approval else (waiting,)
    return await commit(store, append(claimed, *payloads, turn=change, approvals=opened, hold="park", wake_in_ms=wake_in_ms))


async def journal(store: Store, session: SessionRow | Claimed) -> list[e.Entry]:
    """The whole journal of an incarnation, checked to be without a gap."""
    row = await again(store, session.session if isinstance(session, Claimed) else session)
    entries = await store.read_entries(row.sid, 0, 10_000)
    assert [entry.seq for entry in entries] == list(range(row.first_seq, row.last_seq + 1))
    return entries


def types(entries: list[e.Entry] | tuple[e.Entry, ...]) -> list[str]:
    return [entry.type for entry in entries]


async def until(question: Callable[[], Awaitable[T]], timeout_s: float = 10.0) -> T:
    """Ask until the answer is true; fails after `timeout_s`. For waits on the database's own clock."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not (answer := await question()):
        if loop.time() > deadline:
            pytest.fail(f"not true within {timeout_s} s")
        await asyncio.sleep(0.01)
    return answer
