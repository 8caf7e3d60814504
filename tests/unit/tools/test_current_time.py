"""`current_time`, by a clock that stands still."""

from __future__ import annotations

import json

import pytest

from talon import ToolContext, ToolError
from talon.tools.builtin import builtin_toolset

CONTEXT = ToolContext(key="tk_1", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)


class Clock:
    def now_ms(self) -> int:
        return 1_792_889_999_999  # a second before the clocks of Europe go back in 2026

    def monotonic_s(self) -> float:
        return 0.0


TOOL = builtin_toolset(Clock()).tools()["current_time"]


@pytest.mark.parametrize(
    ("args", "time", "weekday"),
    [
        ({}, "2026-10-25T00:59:59+00:00", "Sunday"),
        ({"zone": "UTC"}, "2026-10-25T00:59:59+00:00", "Sunday"),
        ({"zone": "Europe/Berlin"}, "2026-10-25T02:59:59+02:00", "Sunday"),
        ({"zone": "America/Los_Angeles"}, "2026-10-24T17:59:59-07:00", "Saturday"),
        ({"zone": "Asia/Kathmandu"}, "2026-10-25T06:44:59+05:45", "Sunday"),
    ],
)
async def test_it_tells_local_time_with_its_offset(args: dict[str, str], time: str, weekday: str) -> None:
    answer = json.loads(await TOOL.call(dict(args), CONTEXT))
    assert answer == {"time": time, "weekday": weekday, "zone": args.get("zone", "UTC"), "unix_s": 1_792_889_999}


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../../etc/passwd", "/etc/passwd", "Europe", "a\x00b", "x" * 5000])
async def test_a_zone_that_does_not_exist_is_named(zone: str) -> None:
    with pytest.raises(ToolError, match="there is no time zone"):
        await TOOL.call({"zone": zone}, CONTEXT)


def test_it_only_reads() -> None:
    assert TOOL.effect_of({}) == "read"
