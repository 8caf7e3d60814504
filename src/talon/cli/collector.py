"""Python's collector of cycles in a long-running process: how often it looks, and through what. The one place that decides it."""

from __future__ import annotations

import gc

#: New objects between two looks for cycles. What a turn leaves is freed without them; at Python's 700 a thousand streams spent a
#: fifth of their time on being looked through, and a start a thirtieth.
COLLECT_EVERY = 25_000


def look_rarely() -> None:
    """From the start on, before the most is imported."""
    gc.set_threshold(COLLECT_EVERY)


def keep_what_is_there() -> None:
    """When the start is over: what is there now stays as long as the process, and need not be walked through again and again."""
    gc.freeze()
