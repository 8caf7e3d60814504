"""Tools for the booted product's tests. Each tells what it did in a file outside (`STAGE_DIR/effects.jsonl`), so that a test
counts effects without asking the product, and waits at a gate (`STAGE_DIR/NAME.gate`) for as long as the test wants."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from talon import EffectUnknown, ToolContext, ToolError, tool

HERE = Path(os.environ["STAGE_DIR"])
LOOK_S = 0.01


def tell(context: ToolContext, tool_name: str, event: str) -> None:
    """One line about one call."""
    line = {"tool": tool_name, "event": event, "session": context.session, "key": context.key, "attempt": context.attempt}
    with (HERE / "effects.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


async def pass_gate(context: ToolContext, tool_name: str, gate: str) -> None:
    """Tell that it began, and wait until the gate is open; a cancellation on the way is told too."""
    tell(context, tool_name, "began")
    try:
        while gate and not (HERE / f"{gate}.gate").exists():  # noqa: ASYNC110  another process opens it
            await asyncio.sleep(LOOK_S)
    except asyncio.CancelledError:
        tell(context, tool_name, "cancelled")
        raise
    tell(context, tool_name, "ended")


@tool(effect="read")
async def look(context: ToolContext, what: str = "", gate: str = "") -> str:
    """Look at something."""
    await pass_gate(context, "look", gate)
    return f"saw {what}"


@tool(effect="idempotent")
async def note(context: ToolContext, text: str = "", gate: str = "") -> str:
    """Write something down, once per key."""
    await pass_gate(context, "note", gate)
    return f"noted {text}"


@tool(timeout_s=30)
async def pay(context: ToolContext, amount: int, gate: str = "") -> str:
    """Pay. Nobody can tell afterwards whether it happened: unsafe."""
    await pass_gate(context, "pay", gate)
    return f"paid {amount}"


@tool
async def wire(context: ToolContext, amount: int) -> str:
    """Send money. The first attempt loses its answer, later ones succeed."""
    tell(context, "wire", "ended")
    if context.attempt == 1:
        raise EffectUnknown("the bank did not answer")
    return f"sent {amount}"


@tool(effect="read")
async def refuse(context: ToolContext) -> str:
    """Fail, as tools may."""
    tell(context, "refuse", "ended")
    raise ToolError("the shop is closed")


@tool(effect="read")
def die(context: ToolContext) -> str:
    """End the whole process at once, as a native library that crashes does."""
    tell(context, "die", "began")
    os._exit(9)
