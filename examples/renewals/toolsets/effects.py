"""What the tools of the example tell the world outside: each call, under its key, to the counter service (`counter.py`).

The demo asks the counter, not Talon, what really happened. Without `RENEWALS_COUNTER_URL` nobody is told.
"""

from __future__ import annotations

import json
import os
import urllib.request

from talon import ToolContext, ToolError

TIMEOUT_S = 10.0


def record(context: ToolContext, tool: str, effect: str, subject: str) -> None:
    """Tell the counter that `tool` did its work for `subject`. Sending it again under the same key changes nothing there."""
    url = os.environ.get("RENEWALS_COUNTER_URL")
    if not url:
        return
    told = {"key": context.key, "tool": tool, "effect": effect, "subject": subject, "session": context.session}
    request = urllib.request.Request(
        f"{url.rstrip('/')}/effects", json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            answer.read()
    except OSError as error:
        raise ToolError(f"the counter service at RENEWALS_COUNTER_URL did not take it: {error}") from None
