"""`…/turns`: units of work on a session; `…/state`: where the loop of the newest one stands."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.session import LoopState
from talon.gateway.api import shapes
from talon.gateway.api.lookup import require_session, require_turn
from talon.gateway.api.turns import cancel_turn, current_turn
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import KEY_PARAMETER, doc
from talon.gateway.http.message import asked_by
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.sessions import SESSION
from talon.gateway.http.wire import page, reply


class Nothing(Body):
    """No fields."""


def router(deps: GatewayDeps) -> APIRouter:
    """The turn routes."""
    api = APIRouter(tags=["turns"])
    store = deps.store

    @api.get(
        SESSION + "/turns",
        operation_id="listTurns",
        summary="The turns of a session, newest first",
        responses=doc(shapes.Turn, 200, listed=True, refused=("session_not_found", "cursor_invalid")),
    )
    async def turns(ns: str, agent: str, session_id: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        session = await require_session(store, (ns, agent, session_id))
        rows, after = await store.list_turns(session.sid, cursor, limit)
        return page([shapes.turn(row, session.id) for row in rows], after)

    @api.get(
        SESSION + "/turns/{turn_id}",
        operation_id="getTurn",
        summary="One turn",
        responses=doc(shapes.Turn, 200, refused=("turn_not_found",)),
    )
    async def get(ns: str, agent: str, session_id: str, turn_id: str) -> Response:
        session = await require_session(store, (ns, agent, session_id))
        return reply(shapes.turn(await require_turn(store, session, turn_id), session.id))

    @api.post(
        SESSION + "/turns/{turn_id}/cancel",
        operation_id="cancelTurn",
        status_code=202,
        summary="End a turn: at once if nobody runs it, else by its worker",
        responses=doc(shapes.Turn, 202, refused=("turn_not_found", "turn_ended", "idempotency_conflict")),
        openapi_extra={"parameters": [KEY_PARAMETER]},
    )
    async def cancel(ns: str, agent: str, session_id: str, turn_id: str, request: Request) -> Response:
        await read_json(request, Nothing)
        asked = asked_by(request.scope, deps.ids)
        session, turn = await cancel_turn(deps, (ns, agent, session_id), turn_id, asked)
        return reply(shapes.turn(turn, session.id), 202)

    @api.get(
        SESSION + "/state",
        operation_id="getLoopState",
        summary="Where the loop of the current turn stands, or of the newest one",
        responses=doc(LoopState, 200, refused=("session_not_found",)),
    )
    async def state(ns: str, agent: str, session_id: str) -> Response:
        _, current = await current_turn(deps, (ns, agent, session_id))
        return reply(shapes.loop_state(current))

    return api
