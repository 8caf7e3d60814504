"""Turns of a session: ending one, and where the loop stands."""

from __future__ import annotations

from talon.domain.errors import Conflict, NotFound
from talon.domain.inbox import CancelTurn
from talon.domain.session import OPEN_TURN_STATES, SessionRow, TurnRow
from talon.gateway.api.asked import Asked
from talon.gateway.api.lookup import missing_session, require_session, require_turn
from talon.gateway.deps import GatewayDeps
from talon.store.protocols import Where


async def cancel_turn(deps: GatewayDeps, where: Where, turn_id: str, asked: Asked) -> tuple[SessionRow, TurnRow]:
    """End a turn: at once if nobody runs it, else by its worker. -> it, as it is then.

    Raises `NotFound`, `Conflict("turn_ended")`, `Conflict("idempotency_conflict")`, `Invalid` for a bad key.
    """
    session = await require_session(deps.store, where)
    before = await require_turn(deps.store, session, turn_id)
    key = asked.key_of(("cancel", *where, turn_id))
    if key is None and before.state not in OPEN_TURN_STATES:
        raise Conflict("turn_ended", f"turn {turn_id} of session {session.id!r} is {before.state} already")
    try:
        await deps.writer.deliver(CancelTurn(where, turn_id, by=asked.who.id, traceparent=asked.traceparent, key=key))
    except NotFound:
        raise await missing_session(deps.store, where) from None
    return session, await require_turn(deps.store, session, turn_id)


async def current_turn(deps: GatewayDeps, where: Where) -> tuple[SessionRow, TurnRow | None]:
    """-> (a session, its running or waiting turn, else the newest one; None if it had none). Raises `NotFound`."""
    session = await require_session(deps.store, where)
    if session.turn_id is not None:
        return session, await deps.store.get_turn(session.sid, session.turn_id)
    newest, _ = await deps.store.list_turns(session.sid, "", 1)
    return session, newest[0] if newest else None
