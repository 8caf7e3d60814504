"""What schedules have beside the routes of all resources: their next times, their history, pause, resume, trigger."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.gateway.api import schedules
from talon.gateway.api.collections import SCHEDULES
from talon.gateway.api.views import Views
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import ETAG, KEY_PARAMETER, doc
from talon.gateway.http.manifests import Manifest
from talon.gateway.http.message import asked_by
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.preconditions import etag
from talon.gateway.http.wire import page, reply
from talon.manifest.occurrences import FireTime

SCHEDULE = SCHEDULES.path + "/{name}"
_MISSING = ("namespace_not_found", "schedule_not_found")
Count = Annotated[int, Query(ge=1, le=schedules.NEXT_MAX, description="How many times at most.")]


class Empty(Body):
    """No fields."""


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of schedules alone."""
    api = APIRouter(tags=["schedules"])
    _read(api, deps)
    _operate(api, deps)
    return api


def _read(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        SCHEDULE + "/next",
        operation_id="listScheduleTimes",
        summary="When a schedule fires next, in UTC and in its zone; nothing while it is paused or when it is over",
        responses=doc(FireTime, 200, listed=True, refused=_MISSING),
    )
    async def times(ns: str, name: str, count: Count = schedules.NEXT_DEFAULT) -> Response:
        return page(list(await schedules.next_times(deps, ns, name, count)), "")

    @api.get(
        SCHEDULE + "/history",
        operation_id="listScheduleHistory",
        summary="What became of a schedule's occurrences, newest first; as many as its historyLimit",
        responses=doc(schedules.Occurrence, 200, listed=True, refused=(*_MISSING, "cursor_invalid")),
    )
    async def history(ns: str, name: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        return page(*await schedules.list_history(deps, ns, name, cursor, limit))


def _operate(api: APIRouter, deps: GatewayDeps) -> None:
    views = Views(deps)

    async def enable(ns: str, name: str, request: Request, *, enabled: bool) -> Response:
        await read_json(request, Empty)
        row = await schedules.set_enabled(deps, ns, name, enabled=enabled)
        return reply(await views.one(row), headers={"ETag": etag(row)})

    changed = doc(Manifest, 200, refused=(*_MISSING, "conflict", "terminating"), links="Schedule", headers=ETAG, body=True)

    @api.post(SCHEDULE + "/pause", operation_id="pauseSchedule", summary="Stop firing: enabled becomes false", responses=changed)
    async def pause(ns: str, name: str, request: Request) -> Response:
        return await enable(ns, name, request, enabled=False)

    @api.post(
        SCHEDULE + "/resume",
        operation_id="resumeSchedule",
        summary="Fire again from now on: what passed while it was paused is not made up for",
        responses=changed,
    )
    async def resume(ns: str, name: str, request: Request) -> Response:
        return await enable(ns, name, request, enabled=True)

    @api.post(
        SCHEDULE + "/trigger",
        operation_id="triggerSchedule",
        status_code=202,
        summary="Fire now, whatever its times; also while it is paused. Its next occurrence stays as it is",
        responses=doc(
            schedules.Fired,
            202,
            refused=(*_MISSING, "agent_not_found", "conflict", "firing_superseded", "idempotency_conflict", "queue_full"),
        ),
        openapi_extra={"parameters": [KEY_PARAMETER]},
    )
    async def trigger(ns: str, name: str, request: Request) -> Response:
        await read_json(request, Empty)
        fired, replayed = await schedules.trigger(deps, asked_by(request.scope, deps.ids), ns, name)
        return reply(fired, 202, {"Idempotent-Replayed": "true"} if replayed else None)
