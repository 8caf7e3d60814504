"""The model of an outage (`talon.providers.scripted` runs this file): slow enough that an outage falls into the middle of its
answers. First it asks for the time, then it tells a story. While the file THROTTLED is there, it asks to be left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

WORDS = 40
STORY = "once upon a time there was a call " * 5


def answer(conversation: Any) -> dict[str, Any]:
    """One answer of the model."""
    if Path(os.environ["THROTTLED"]).exists():
        return {"fault": {"kind": "status", "status": 429, "retry_after_s": 300, "message": "slow down"}}
    pace = {"chunk_chars": 5, "chunk_delay_ms": int(os.environ["PACE_MS"])}
    if conversation.step == 1:
        return {"text": "look " * WORDS, "calls": [{"tool": "current_time"}], **pace}
    return {"text": STORY, **pace}
