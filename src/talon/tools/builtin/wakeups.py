"""The toolset `wakeups`: an agent makes, lists and cancels schedules that wake its own session, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from pydantic import Field

from talon.domain.errors import TalonError
from talon.domain.schedules import Owner
from talon.tools.protocol import Tool, ToolContext, ToolError
from talon.tools.python import tool

#: Wakeups that one session may have at a time.
WAKEUPS_MAX = 20
MESSAGE_MAX = 8_000

Message = Annotated[str, Field(min_length=1, max_length=MESSAGE_MAX, description="What you will be told when you are woken")]
At = Annotated[str, Field(description="once, at this time: 2026-12-24T18:00:00Z, or without an offset in `timezone`")]
Every = Annotated[str, Field(description="again and again after this, at least a minute: 15m, 1h30m, 2d")]
Cron = Annotated[str, Field(description="five fields, in `timezone`: 0 9 * * 1-5")]
Zone = Annotated[str, Field(description="IANA time zone of `cron`, and of times without an offset")]
Until = Annotated[str, Field(description="no more after this time")]


class Wakeups(Protocol):
    """What keeps a session's wakeups. What is wrong with one is raised as a `TalonError`."""

    async def create(self, owner: Owner, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Make one for the session of `owner`, under a name that follows from its key: made again, it is the same one.

        `spec` has the message, and when: `at`, `every` or `cron`, `timezone`, `until`.
        """
        ...

    async def list(self, owner: Owner) -> list[dict[str, Any]]:
        """Those that the session made and that are still there. One that has fired for the last time may go when its place is
        needed."""
        ...

    async def cancel(self, owner: Owner, name: str) -> bool:
        """Remove one that the session made; -> whether it was there."""
        ...


class WakeupTools:
    """The toolset `wakeups`."""

    name = "wakeups"

    def __init__(self, wakeups: Wakeups) -> None:
        found = (_create(wakeups), _list(wakeups), _cancel(wakeups))
        self._tools: dict[str, Tool] = {one.spec.name: one for one in found}

    def tools(self) -> Mapping[str, Tool]:
        return self._tools


def _create(wakeups: Wakeups) -> Tool:
    @tool(effect="idempotent", timeout_s=30.0)
    async def schedule_wakeup(
        message: Message,
        context: ToolContext,
        at: At = "",
        every: Every = "",
        cron: Cron = "",
        timezone: Zone = "UTC",
        until: Until = "",
    ) -> dict[str, Any]:
        """Have yourself woken in this conversation later: once (`at`), or again and again (`every` or `cron`). Give one of the
        three. You will get `message` as if a person had sent it."""
        given = {"at": at, "every": every, "cron": cron, "until": until}
        spec = {"message": message, "timezone": timezone, **{key: value for key, value in given.items() if value}}
        if sum(key in spec for key in ("at", "every", "cron")) != 1:
            raise ToolError("give one of at, every and cron")
        try:
            return await wakeups.create(_owner(context), spec)
        except TalonError as error:
            raise _told(error) from None

    return schedule_wakeup


def _list(wakeups: Wakeups) -> Tool:
    @tool(effect="read", timeout_s=30.0)
    async def list_wakeups(context: ToolContext) -> list[dict[str, Any]]:
        """The wakeups that you have made in this conversation and that are still there, with the time of the next one of each."""
        try:
            return await wakeups.list(_owner(context))
        except TalonError as error:
            raise _told(error) from None

    return list_wakeups


def _cancel(wakeups: Wakeups) -> Tool:
    @tool(effect="idempotent", timeout_s=30.0)
    async def cancel_wakeup(name: Annotated[str, "Its name, as list_wakeups shows it"], context: ToolContext) -> dict[str, Any]:
        """Cancel a wakeup that you made in this conversation. One that is gone already is no error."""
        try:
            return {"name": name, "cancelled": await wakeups.cancel(_owner(context), name)}
        except TalonError as error:
            raise _told(error) from None

    return cancel_wakeup


def _owner(context: ToolContext) -> Owner:
    return Owner(context.key, context.namespace, context.agent, context.session)


def _told(error: TalonError) -> ToolError:
    return ToolError("; ".join(f"{one.field}: {one.message}" for one in error.errors) or error.detail)
