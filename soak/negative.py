"""Talon with one promise taken out, to see that the soak notices: `python -m soak.negative MODE ROLE …`. Never for anything else.

no_fence   appends are taken from whoever comes: no fence is asked for, no worker asks its lease, no lock guards a data directory
ack_first  a message that comes alone to an idle session is answered with 202 before it is committed
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

MODES = ("no_fence", "ack_first")
#: In the statement of a commit on PostgreSQL: that the session is held, under this fence.
FENCE = " AND s.fence = ANY (ARRAY[b.fence]) AND s.owner IS NOT NULL"


def no_fence() -> None:
    """Take the fence out of both stores, and out of workers the lease, which keeps most of what it refuses from being sent."""
    from talon.store.postgres import commit_sql
    from talon.store.sqlite import journal, lock
    from talon.worker import lease

    moved = commit_sql.MOVED
    if moved.count(FENCE) != 1:
        raise SystemExit("the fence is not where this negative control looks for it")
    commit_sql.MOVED = moved.replace(FENCE, "")
    refusal = journal.refusal

    def lenient(session: Any, append: Any) -> Any:
        if session is not None:
            append = msgspec.structs.replace(append, fence=session.fence)
            session = msgspec.structs.replace(session, owner=session.owner or "nobody")
        return refusal(session, append)

    journal.refusal = lenient
    lock.fcntl.flock = lambda *_: None  # type: ignore[assignment]
    lease.HeartbeatLease.alive = lambda self: True


def ack_first() -> None:
    """Answer before the commit."""
    from talon.domain.inbox import Message, Operation, Receipt
    from talon.store.writer import JournalWriter

    deliver = JournalWriter.deliver
    answered: dict[tuple[str, str], Receipt] = {}
    later: set[asyncio.Task[Any]] = set()

    async def hasty(self: JournalWriter, op: Operation) -> Receipt:
        if not isinstance(op, Message) or op.key is None:
            return await deliver(self, op)
        key = (op.where[0], op.key.key)
        if key in answered:
            return answered[key]
        journal: Any = self._journal  # pyright: ignore[reportPrivateUsage]
        session = await journal.get_session(op.where)
        # Only where the answer is known beforehand: the order of commit and answer shall be all that is wrong.
        if session is None or session.state != "idle" or not op.metadata.get("alone"):
            return await deliver(self, op)
        answered[key] = Receipt(session.sid, session.uid, session.last_seq + 1, op.turn_id, op.strategy)
        task = asyncio.create_task(deliver(self, op))
        later.add(task)
        task.add_done_callback(lambda done: (later.discard(done), done.cancelled() or done.exception()))
        return answered[key]

    JournalWriter.deliver = hasty


def main() -> None:
    """Patch, then be Talon."""
    mode, *arguments = sys.argv[1:]
    {"no_fence": no_fence, "ack_first": ack_first}[mode]()
    from talon.cli.main import main as talon

    sys.argv = ["talon", *arguments]
    sys.exit(talon())


if __name__ == "__main__":
    main()
