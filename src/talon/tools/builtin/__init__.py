"""The tools that come with Talon, as the toolset `builtin`: `current_time` and `http_request`."""

from __future__ import annotations

from collections.abc import Mapping

from talon.domain.ids import Clock
from talon.tools.builtin.current_time import current_time_tool
from talon.tools.builtin.http_request import HttpRequest, HttpRequestSettings
from talon.tools.protocol import Tool

__all__ = ["Builtin", "HttpRequestSettings"]


class Builtin:
    """The toolset `builtin`. `close` it when no turn needs it any more."""

    name = "builtin"

    def __init__(self, clock: Clock, http: HttpRequestSettings | None = None) -> None:
        """Raises `Invalid` for a wrong entry in the host lists."""
        self._http = HttpRequest(http or HttpRequestSettings())
        self._tools: dict[str, Tool] = {"current_time": current_time_tool(clock), "http_request": self._http}

    def tools(self) -> Mapping[str, Tool]:
        return self._tools

    async def close(self) -> None:
        """Close the pooled connections of `http_request`."""
        await self._http.close()
