"""`current_time`: the built-in tool that tells what time it is somewhere."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from talon.domain.ids import Clock
from talon.tools.protocol import Tool, ToolError
from talon.tools.python import tool


def current_time_tool(clock: Clock) -> Tool:
    """The tool, telling the time of `clock`."""

    @tool(effect="read", timeout_s=5.0)
    async def current_time(zone: Annotated[str, "IANA time zone, e.g. Europe/Berlin"] = "UTC") -> dict[str, str | int]:
        """What time it is now in a time zone: local time with offset, day of the week, and Unix time in seconds."""
        now_ms = clock.now_ms()
        now = datetime.fromtimestamp(now_ms / 1000, _zone(zone))
        return {"time": now.isoformat(timespec="seconds"), "weekday": now.strftime("%A"), "zone": zone, "unix_s": now_ms // 1000}

    return current_time


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "Z", "GMT"):
        return UTC  # also where no time zone data is installed
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a path below the data, a directory
        raise ToolError(f"there is no time zone {name!r}; give an IANA name such as Europe/Berlin or America/New_York") from None
