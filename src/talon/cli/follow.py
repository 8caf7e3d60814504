"""Follow one message to the end of its turn, whatever becomes of the connection or the server in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from talon.cli.client import Client
from talon.cli.errors import Failed
from talon.cli.render import ENDS, summary
from talon.cli.sse import Event


async def turn_events(client: Client, stream_path: str, receipt: dict[str, Any]) -> AsyncGenerator[Event]:
    """The events of the turn that `receipt` (the answer of `POST …/message`) names; the last one is its end.

    A steering message that its turn did not take becomes a turn of its own: then the events go on with that one.
    """
    turn = str(receipt["turn_id"])
    seq = int(receipt["seq"])
    follows = ""
    async with aclosing(client.events(stream_path, {}, str(seq))) as events:
        async for event in events:
            if event.type == "input.steered" and event.payload.get("message_seq") == seq and event.payload.get("turn"):
                follows = str(event.payload["turn"])
            if event.turn_id != turn:
                continue
            if event.type not in ENDS:
                yield event
            elif follows:
                turn, follows = follows, ""
            else:
                yield event
                return


async def follow(client: Client, stream_path: str, receipt: dict[str, Any], show: Callable[[Event], None]) -> Event:
    """Show every event of the turn; -> its end."""
    async with aclosing(turn_events(client, stream_path, receipt)) as events:
        async for event in events:
            show(event)
            if event.type in ENDS:
                return event
    raise Failed("the stream ended before the turn did")


def must_be_completed(end: Event) -> None:
    """Raise `Failed` with the reason unless the turn was answered."""
    if end.type != "turn.completed":
        raise Failed(f"the turn ended as {end.type.removeprefix('turn.')}: {summary(end.type, end.payload)}")
