"""`talon.v1.Schedules`: what schedules have beside the methods of all resources."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from talon.gateway.api import schedules as api
from talon.gateway.api.asked import wrong
from talon.gateway.api.permits import At
from talon.gateway.api.views import Views
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc import shapes
from talon.gateway.grpc.call import Call, Method, limit_of
from talon.v1 import talon_pb2 as pb

#: What a request with a schedule's place in it is.
OfSchedule = pb.TriggerRequest | pb.NextTimesRequest | pb.HistoryRequest


def schedules(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Schedules`."""
    served = Schedules(deps)
    return {
        "Pause": Method(("pauseSchedule",), pb.ScheduleRef, _at, served.pause, changes=True),
        "Resume": Method(("resumeSchedule",), pb.ScheduleRef, _at, served.resume, changes=True),
        "Trigger": Method(("triggerSchedule",), pb.TriggerRequest, _at_schedule, served.trigger, changes=True),
        "Next": Method(("listScheduleTimes",), pb.NextTimesRequest, _at_schedule, served.next),
        "History": Method(("listScheduleHistory",), pb.HistoryRequest, _at_schedule, served.history),
    }


def _at(ref: pb.ScheduleRef) -> At:
    return At(ref.namespace)


def _at_schedule(message: OfSchedule) -> At:
    return _at(message.schedule)


class Schedules:
    """What is answered."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps, self._views = deps, Views(deps)

    async def pause(self, call: Call, message: pb.ScheduleRef) -> pb.Resource:
        """`pauseSchedule`."""
        return await self._enable(message, enabled=False)

    async def resume(self, call: Call, message: pb.ScheduleRef) -> pb.Resource:
        """`resumeSchedule`."""
        return await self._enable(message, enabled=True)

    async def trigger(self, call: Call, message: pb.TriggerRequest) -> pb.TriggerResponse:
        """`triggerSchedule`."""
        ref, asked = message.schedule, call.asked(message.idempotency_key)
        fired, replayed = await api.trigger(self._deps, asked, ref.namespace, ref.name)
        return pb.TriggerResponse(
            outcome=fired.outcome,
            agent=fired.agent,
            session_id=fired.session_id,
            turn_id=fired.turn_id,
            seq=fired.seq,
            replayed=replayed,
        )

    async def next(self, call: Call, message: pb.NextTimesRequest) -> pb.NextTimesResponse:
        """`listScheduleTimes`."""
        if not 0 <= message.count <= api.NEXT_MAX:
            raise wrong("count", f"must be 1 to {api.NEXT_MAX}, or 0 for {api.NEXT_DEFAULT}", str(message.count))
        ref, count = message.schedule, message.count or api.NEXT_DEFAULT
        found = await api.next_times(self._deps, ref.namespace, ref.name, count)
        return pb.NextTimesResponse(items=[pb.FireTime(at=one.at, local=one.local) for one in found])

    async def history(self, call: Call, message: pb.HistoryRequest) -> pb.HistoryResponse:
        """`listScheduleHistory`."""
        ref, limit = message.schedule, limit_of(message.limit, self._deps.settings.page_max)
        found, after = await api.list_history(self._deps, ref.namespace, ref.name, message.cursor, limit)
        return pb.HistoryResponse(items=[_occurrence(one) for one in found], next_cursor=after)

    async def _enable(self, ref: pb.ScheduleRef, *, enabled: bool) -> pb.Resource:
        row = await api.set_enabled(self._deps, ref.namespace, ref.name, enabled=enabled)
        return shapes.resource(await self._views.one(row))


def _occurrence(one: api.Occurrence) -> pb.Occurrence:
    return pb.Occurrence(
        at=_timestamp(one.at),
        local=one.local,
        outcome=one.outcome,
        reason=one.reason,
        decided_at=_timestamp(one.decided_at),
        lag_ms=one.lag_ms,
        count=one.count,
        last_at=_timestamp(one.last_at),
        manual=one.manual,
        agent=one.agent,
        session_id=one.session_id,
        turn_id=one.turn_id,
    )


def _timestamp(rfc3339: str) -> Timestamp:
    found = Timestamp()
    found.FromJsonString(rfc3339)
    return found
