"""Waiting for what has no event of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

BOUND_S = 30.0


async def until(holds: Callable[[], object], timeout_s: float = BOUND_S) -> Any:
    """Ask often, until the answer (awaited, where it is to be) is true; -> it. Fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
