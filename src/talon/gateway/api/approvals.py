"""Approvals: what waits for a human, and the human's answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from talon.access.roles import Principal
from talon.domain.errors import FieldError, Invalid, NotFound
from talon.domain.inbox import ResolveApproval
from talon.domain.session import ApprovalRow, SessionRow
from talon.gateway.api.asked import Asked, wrong
from talon.gateway.api.lookup import is_id, require_namespace
from talon.gateway.api.permits import At, own
from talon.gateway.deps import GatewayDeps

OUTCOMES = ("retry", "done", "failed")
RESULT_LENGTH_MAX = 1024 * 1024
NOTE_LENGTH_MAX = 4096
STATES = ("open", "resolved", "cancelled")

Found = tuple[ApprovalRow, SessionRow]


class Outcome(msgspec.Struct, frozen=True):
    """What became of an uncertain call, or what to do about it: `outcome` is one of `OUTCOMES`. `result` is what the model is told
    (None: nothing was said)."""

    outcome: str
    result: str | None = None
    note: str = ""


async def list_approvals(deps: GatewayDeps, namespace: str, state: str, cursor: str, limit: int) -> tuple[Sequence[Found], str]:
    """-> (the approvals of a namespace, newest first, of one state only unless it is ""; the cursor behind them). Raises
    `NotFound`, `Invalid`."""
    if state and state not in STATES:
        raise wrong("state", f"must be empty or one of {', '.join(STATES)}", state[:80])
    await require_namespace(deps.store, namespace)
    return await deps.store.list_approvals(namespace, state, cursor, limit)


async def require_approval(deps: GatewayDeps, namespace: str, approval: str, who: Principal) -> Found:
    """One approval with the session that asks, if it is one of his. Raises `NotFound` (namespace, approval)."""
    found = await deps.store.get_approval(namespace, approval) if is_id(approval) else None
    if found is None or not own(who, At(namespace, found[1].agent, found[1].id)):
        await require_namespace(deps.store, namespace)
        raise NotFound("approval_not_found", f"no approval {approval[:80]!r} in namespace {namespace!r}")
    return found


async def resolve_approval(deps: GatewayDeps, namespace: str, approval: str, said: Outcome, asked: Asked) -> Found:
    """Say what is to become of an uncertain call; -> the approval as it is then.

    Raises `Invalid`, `NotFound`, `Conflict("approval_closed")`, `Conflict("idempotency_conflict")`.
    """
    _check(said)
    _, session = await require_approval(deps, namespace, approval, asked.who)
    operation = ResolveApproval(
        where=(namespace, session.agent, session.id),
        approval=approval,
        outcome=said.outcome,
        result=said.result or "",
        by=asked.who.id,
        note=said.note,
        traceparent=asked.traceparent,
        key=asked.key_of(("approval", namespace, approval, said.outcome, said.result, said.note)),
    )
    await deps.writer.deliver(operation)
    return await require_approval(deps, namespace, approval, asked.who)


def _check(said: Outcome) -> None:
    if said.outcome not in OUTCOMES:
        raise wrong("outcome", f"must be one of {', '.join(OUTCOMES)}", said.outcome[:80])
    for field, text, most in (("result", said.result or "", RESULT_LENGTH_MAX), ("note", said.note, NOTE_LENGTH_MAX)):
        if len(text) > most:
            raise wrong(field, f"has {len(text)} characters, it may have {most}")
    if said.outcome == "done" and said.result is None:
        raise Invalid("invalid", "done needs `result`: what the call answered", (FieldError("result", "is missing"),))
    if said.outcome == "retry" and said.result:
        raise Invalid(
            "invalid", "retry takes no `result`: the call gives its own", (FieldError("result", "does not go with retry"),)
        )
