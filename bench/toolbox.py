"""Talon's tools for the bench; the peers have the same in `bench/peers/front.py`."""

from __future__ import annotations

import asyncio

from talon import tool

RESULT = "Four accounts renew: globex 240 seats, initech 80 seats, hooli 35 seats, umbrella 12 seats. Nothing is overdue."
LONG_S = 1.0


@tool(effect="read")
async def look_up(subject: str) -> str:
    """Look something up; takes no time."""
    return f"{subject}: {RESULT}"


@tool(effect="read")
async def look_long(subject: str) -> str:
    """Look something up; takes a second, in which the process can be killed."""
    await asyncio.sleep(LONG_S)
    return f"{subject}: {RESULT}"
