"""Manifests out of what somebody sent."""

from __future__ import annotations

import asyncio
from typing import Literal

from talon.domain.errors import Malformed
from talon.manifest.parse import parse
from talon.manifest.read import Expected, Reading, read

#: What is longer is parsed beside the event loop.
INLINE_MAX = 16 * 1024


async def read_documents(data: bytes, form: Literal["json", "yaml"], expected: Expected | None = None) -> Reading:
    """The documents in `data`, one or many; what is wrong in one stays in the reading. `expected`: the one document that belongs
    here; what it says may be left out of it.

    Raises `Malformed` (also for more than the expected one), `TooLarge`.
    """

    def work() -> Reading:
        documents = parse(data, form)
        if expected is not None and len(documents) > 1:
            raise Malformed("malformed", f"{len(documents)} documents; this operation takes one, apply takes many")
        return read(documents, expected)

    return work() if len(data) <= INLINE_MAX else await asyncio.to_thread(work)
