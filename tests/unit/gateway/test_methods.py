"""gRPC methods and the table of permissions."""

from __future__ import annotations

import pytest

from talon.domain.errors import Defect
from talon.gateway.api.permits import At
from talon.gateway.grpc.call import Call, Method
from talon.v1 import talon_pb2 as pb


async def unasked(call: Call, message: pb.ScheduleRef) -> None:
    raise AssertionError("nobody may come so far")


def nowhere(_: object) -> At:
    return At()


@pytest.mark.parametrize(
    "operations", [("stopSchedule",), ("pauseSchedule", "stopSchedule"), ("pauseSchedule", "resumeSchedule"), ()]
)
def test_a_method_without_one_row_cannot_be_made(operations: tuple[str, ...]) -> None:
    assert Method(("pauseSchedule",), pb.ScheduleRef, nowhere, unasked).asks
    with pytest.raises(Defect, match="without a row"):
        Method(operations, pb.ScheduleRef, nowhere, unasked)
