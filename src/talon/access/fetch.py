"""JSON from the identity provider: bounded in time and size, over one HTTP client per question (they are rare)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec

from talon.domain.errors import Unavailable

ANSWER_MAX = 512 * 1024
TIMEOUT_S = 5.0
log = logging.getLogger(__name__)

#: (method, url, form, authorization) -> (status, the answer, an object)
Fetch = Callable[[str, str, Mapping[str, str] | None, str], Awaitable[tuple[int, dict[str, Any]]]]


async def fetch(
    method: str, url: str, form: Mapping[str, str] | None = None, authorization: str = ""
) -> tuple[int, dict[str, Any]]:
    """One request; follows no redirect, shows no answer to anybody. Raises `Unavailable("identity_unavailable")`."""
    headers = {"Accept": "application/json", **({"Authorization": authorization} if authorization else {})}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http,
            http.request(method, url, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            raw = await answer.content.read(ANSWER_MAX + 1)
            while len(raw) <= ANSWER_MAX and (more := await answer.content.read(ANSWER_MAX + 1 - len(raw))):
                raw += more
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unavailable(url, f"no answer ({type(error).__name__})") from None
    if len(raw) > ANSWER_MAX:
        raise unavailable(url, f"the answer is longer than {ANSWER_MAX} bytes")
    try:
        body = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise unavailable(url, f"the answer ({status}) is no JSON object") from None
    return status, body


def unavailable(url: str, reason: str) -> Unavailable:
    """What callers are told; the log has where and why."""
    log.warning("identity provider: %s: %s", url, reason)
    return Unavailable("identity_unavailable", "the identity provider cannot be asked now; try again soon", retry_after_s=5.0)
