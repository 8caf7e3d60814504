"""Tools of the assistant. The model is told each function's name, docstring and parameters.

`effect` says what may happen when a crash leaves a call unfinished: `read` and `idempotent` calls are made again, an `unsafe` one
(the default) never is: Talon asks you (`talon approval list`).
"""

from datetime import UTC, date, datetime
from pathlib import Path

from talon import ToolContext, ToolError, tool

NOTES = Path(__file__).parent / "notes"


@tool(effect="read")
def days_until(day: str) -> str:
    """Count the days from today (UTC) until a date.

    Args:
        day: the date as YYYY-MM-DD
    """
    try:
        days = (date.fromisoformat(day) - datetime.now(UTC).date()).days
    except ValueError:
        raise ToolError(f"{day!r} is no date; write it as YYYY-MM-DD") from None
    return f"{days} days" if days >= 0 else f"{-days} days ago"


@tool(effect="idempotent")
def add_note(text: str, context: ToolContext) -> str:
    """Write a note down.

    Args:
        text: what to note
    """
    # The key is the same each time this very call is made: a repeated call writes the same file again, not a second note.
    NOTES.mkdir(exist_ok=True)
    (NOTES / f"{context.key.replace('/', '-')}.txt").write_text(text + "\n", encoding="utf-8")
    return "noted"
