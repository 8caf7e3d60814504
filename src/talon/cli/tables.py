"""Tables of what is no resource."""

from __future__ import annotations

from typing import Any

from talon.cli.output import table
from talon.cli.text import one_line


def sessions_table(sessions: list[dict[str, Any]]) -> str:
    """Sessions, one a row."""
    rows = [(s["namespace"], s["agent"], s["id"], s["state"], s["last_seq"], s["queued"], s["updated_at"]) for s in sessions]
    return table(("NAMESPACE", "AGENT", "SESSION", "STATE", "SEQ", "QUEUED", "UPDATED"), rows, empty="no sessions")


def approvals_table(approvals: list[dict[str, Any]]) -> str:
    """Approvals, one a row."""
    rows = [
        (
            a["id"],
            a["state"],
            a["namespace"],
            f"{a['agent']}/{a['session_id']}",
            f"{a['name']} {one_line(a['arguments'], 40)}",
            a["outcome"],
            a["created_at"],
        )
        for a in approvals
    ]
    heads = ("ID", "STATE", "NAMESPACE", "SESSION", "CALL", "OUTCOME", "CREATED")
    return table(heads, rows, empty="no open approvals")
