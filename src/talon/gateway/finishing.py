"""Finishing deletions that take time: agents with sessions and namespaces that hold something (decision 0008).

They were marked in one transaction; from then on nothing new begins there. Every gateway looks for marked ones and goes on with
them: sessions are ended as by their own DELETE, then what is left is deleted in batches, then the row itself. Each step is a
transaction that does nothing where another gateway was first, so that it does not matter how many work on one, and where one died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from talon.dispatch.rounds import Rounds
from talon.domain.errors import Conflict, NotFound, TalonError
from talon.domain.ids import Ids
from talon.domain.inbox import DeleteSession
from talon.gateway.deleting import mark
from talon.gateway.deps import JournalWriter
from talon.gateway.hub import StreamHub
from talon.gateway.watch import Watches
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, ResourceRow

log = logging.getLogger("talon.gateway")
#: Deletions looked at in one round, those worked on at the same time, and what one step of one of them takes away.
LOOKED_AT_MAX = 1_000
AT_ONCE = 16
SESSIONS_AT_ONCE = 100
RESOURCES_AT_ONCE = 200
CHILDREN_MAX = 1_000
#: How long until it is looked again whether there is something to finish: what another gateway has marked, or left behind.
LOOK_EVERY_S = 2.0
FORGET_EVERY_S = 600.0


class Finisher:
    """Finishes what is marked. `run` it once in each gateway; `wake` it after marking something."""

    def __init__(self, store: Store, writer: JournalWriter, hub: StreamHub, watches: Watches, ids: Ids) -> None:
        self._store, self._writer, self._hub, self._watches, self._ids = store, writer, hub, watches, ids
        self._rounds = Rounds()

    def wake(self) -> None:
        """There is something to finish now."""
        self._rounds.wake()

    async def run(self) -> None:
        """Go on until cancelled; now and then drop the changes that watches no longer need."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time() + FORGET_EVERY_S
        while self._rounds.begin():
            try:
                again = await self.round()
                if loop.time() >= forget_at:
                    await self._store.forget_events()
                    forget_at = loop.time() + FORGET_EVERY_S
            except TalonError as exc:
                log.warning("deletions wait: %s", exc)
                again = False
            if not again:
                await self._rounds.rest(LOOK_EVERY_S)

    async def round(self) -> bool:
        """One step of each deletion that is under way; -> whether any of them came further."""
        rows = await self._store.list_deleting(LOOKED_AT_MAX)
        came = False
        for start in range(0, len(rows), AT_ONCE):
            came |= await self._step(rows[start : start + AT_ONCE])
        return came

    async def _step(self, rows: Sequence[ResourceRow]) -> bool:
        steps = [self._namespace(row) if row.kind == "Namespace" else self._agent(row) for row in rows]
        # One that fails must not keep the others from being taken.
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, TalonError):
                log.warning("deleting %s %s/%s: %s", row.kind, row.namespace, row.name, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        return any(outcome is True for outcome in outcomes)

    async def _agent(self, row: ResourceRow) -> bool:
        return await self._end_sessions(row.namespace, row.name) or await self._remove([row])

    async def _namespace(self, row: ResourceRow) -> bool:
        name = row.name
        children = await self._store.list_children(name, CHILDREN_MAX)
        below = await self._store.get_resources([("", "Namespace", child) for child in children]) if children else []
        unmarked = [child for child in below if child.deleting_at_ms is None]
        if unmarked:
            return await self._change(Changes(puts=tuple(mark(child) for child in unmarked)), {""})
        if await self._end_sessions(name, ""):
            return True
        inside, _ = await self._store.list_all(name, "", RESOURCES_AT_ONCE)
        if inside:
            return await self._remove(inside)
        return not below and await self._remove([row])

    async def _end_sessions(self, namespace: str, agent: str) -> bool:
        """End some sessions; -> whether there were any."""
        sessions, _ = await self._store.list_sessions(namespace, agent, "", SESSIONS_AT_ONCE)
        await asyncio.gather(*(self._end_session((one.namespace, one.agent, one.id)) for one in sessions))
        return bool(sessions)

    async def _end_session(self, where: tuple[str, str, str]) -> None:
        trace = self._ids.uuid7().replace("-", "")
        with contextlib.suppress(NotFound):  # another gateway was first
            receipt = await self._writer.deliver(DeleteSession(where, traceparent=f"00-{trace}-{trace[16:]}-01"))
            self._hub.deleted(receipt.sid)

    async def _remove(self, rows: Sequence[ResourceRow]) -> bool:
        deletes = tuple(DeleteResource(row.namespace, row.kind, row.name, row.generation) for row in rows)
        return await self._change(Changes(deletes=deletes), {row.namespace for row in rows})

    async def _change(self, changes: Changes, namespaces: set[str]) -> bool:
        """Write; False where somebody else changed the same, or something came in between: the next round looks again."""
        try:
            await self._store.change(changes)
        except Conflict as exc:
            log.debug("a deletion is looked at again: %s", exc)
            return False
        self._watches.changed(namespaces)
        return True
