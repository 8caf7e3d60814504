"""The tools that come with Talon, as the toolset `builtin`: `current_time` and `http_request`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from talon.domain.ids import Clock
from talon.tools.builtin.current_time import current_time_tool
from talon.tools.builtin.http_request import HttpRequest, HttpRequestSettings
from talon.tools.protocol import Tool

__all__ = ["Builtin", "builtin_toolset"]


class Builtin:
    """The toolset `builtin`. `close` it when no turn needs it any more."""

    name = "builtin"

    def __init__(self, clock: Clock, http: HttpRequest) -> None:
        self._http = http
        self._tools: dict[str, Tool] = {"current_time": current_time_tool(clock), "http_request": http}

    def tools(self) -> Mapping[str, Tool]:
        return self._tools

    async def close(self) -> None:
        """Close the pooled connections of `http_request`."""
        await self._http.close()


def builtin_toolset(
    clock: Clock, *, allow_hosts: Sequence[str] = (), idempotent_hosts: Sequence[str] = (), timeout_s: float = 30.0
) -> Builtin:
    """The built-in tools as `tools.http_request` of the configuration wants them (see `HttpRequestSettings`). Raises `Invalid` for
    host entries that are not `host` or `host:port`."""
    settings = HttpRequestSettings(tuple(allow_hosts), tuple(idempotent_hosts), timeout_s)
    return Builtin(clock, HttpRequest(settings))
