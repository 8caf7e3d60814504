"""Times as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=256)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=256)
def rfc3339(unix_ms: int) -> str:
    """Unix milliseconds as RFC 3339 UTC with milliseconds: `2026-11-20T09:30:00.123Z`."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


def rfc3339_or_none(unix_ms: int | None) -> str | None:
    """The same for a time that may not have come yet."""
    return None if unix_ms is None else rfc3339(unix_ms)
