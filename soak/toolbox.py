"""Tools of every effect class. Each tells the counter outside what it does, under its key, and takes its time before and after.

`move_over` is reconcilable: its probe asks the counter, which from then on refuses the attempt that was asked about. A probe's
`not_done` has to be final: a process that was only stopped could act after its successor was told that nothing had happened.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp

from talon import EffectUnknown, Outcome, ToolContext, ToolError, tool

TIMEOUT = aiohttp.ClientTimeout(total=10)


async def _post(path: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Ask the counter. Raises `EffectUnknown` when its answer does not come."""
    url = f"{os.environ['SOAK_COUNTER_URL']}{path}"
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http, http.post(url, json=document) as answer:
            return answer.status, await answer.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise EffectUnknown(f"the counter did not answer: {type(error).__name__}") from None


async def _act(effect: str, subject: str, before_ms: int, after_ms: int, context: ToolContext) -> str:
    await asyncio.sleep(before_ms / 1000)
    told = {
        "key": context.key,
        "attempt": context.attempt,
        "effect": effect,
        "subject": subject,
        "session": context.session,
    }
    status, _ = await _post("/effects", told)
    if status != 200:
        raise ToolError(f"the counter refused attempt {context.attempt}: it was given up before")
    await asyncio.sleep(after_ms / 1000)
    return f"{effect} {subject}"


async def _look(subject: str, context: ToolContext) -> Outcome:
    """What became of the call: the probe of `move_over`."""
    _, found = await _post("/probe", {"key": context.key, "attempt": context.attempt})
    return Outcome("done", f"reconcilable {subject}") if found["happened"] else Outcome("not_done")


@tool(effect="read", timeout_s=30)
async def look_up(subject: str, before_ms: int, after_ms: int, context: ToolContext) -> str:
    """Look something up."""
    return await _act("read", subject, before_ms, after_ms, context)


@tool(effect="idempotent", timeout_s=30)
async def file_away(subject: str, before_ms: int, after_ms: int, context: ToolContext) -> str:
    """File something under the call's key."""
    return await _act("idempotent", subject, before_ms, after_ms, context)


@tool(effect="reconcilable", timeout_s=30, probe=_look)
async def move_over(subject: str, before_ms: int, after_ms: int, context: ToolContext) -> str:
    """Move something; it can be asked later whether that happened."""
    return await _act("reconcilable", subject, before_ms, after_ms, context)


@tool(effect="unsafe", timeout_s=30)
async def send_off(subject: str, before_ms: int, after_ms: int, context: ToolContext) -> str:
    """Send something that cannot be called back."""
    return await _act("unsafe", subject, before_ms, after_ms, context)
