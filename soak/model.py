"""The scripted model's answers (`talon.providers.scripted` runs this file): it does what the last message's plan says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from soak.plans import TOOLS, read, subject

#: (tag, step) of the faults that were shown already.
shown: set[tuple[str, str]] = set()


def answer(conversation: Any) -> dict[str, Any]:
    """One answer of the model."""
    plan = read(conversation.user)
    step: int = conversation.step
    pace = {"delay_ms": plan.model_ms, "chunk_delay_ms": plan.word_ms, "chunk_chars": 8}
    if step <= len(plan.steps):
        calls = [
            {
                "tool": TOOLS[call.effect],
                "arguments": {
                    "subject": subject(plan.tag, step, number),
                    "before_ms": call.before_ms,
                    "after_ms": call.after_ms,
                },
            }
            for number, call in enumerate(plan.steps[step - 1], 1)
        ]
        made: dict[str, Any] = {"text": "One moment.", "calls": calls, **pace}
    else:
        made = {"text": plan.answer, **pace}
    kind = plan.faults.get(str(step))
    if kind is not None and (plan.tag, str(step)) not in shown:
        shown.add((plan.tag, str(step)))
        made["fault"] = {"kind": kind, "after": 1} | ({"status": 503} if kind == "status" else {})
    return made
