"""A message to a process that has a free worker slot: received, queued, started and claimed in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from support.bootedgateway import booted
from talon.domain import entries as e
from talon.domain.inbox import Message, Receipt
from talon.domain.session import SessionRow
from talon.gateway.deps import Offer


@dataclass
class Slots:
    """A worker of this process with free slots, seen from the gateway."""

    worker: str = ""
    started: list[Receipt] = field(default_factory=list[Receipt])
    declined: list[Offer] = field(default_factory=list[Offer])

    async def offer(self, where: tuple[str, str, str]) -> Offer | None:
        return Offer(self.worker, self._first) if self.worker else None

    def _first(self, message: Message, session: SessionRow, revision: int) -> tuple[e.NewEntry, ...]:
        return (e.new_entry(e.TurnStarted(agent=session.agent, revision=revision, worker=self.worker), message.turn_id),)


async def test_a_free_slot_takes_the_turn_in_the_commit_that_accepts_it(tmp_path: Path) -> None:
    slots = Slots()
    hooks = {"offer": slots.offer, "started": slots.started.append, "declined": slots.declined.append}
    async with booted(tmp_path, hooks=hooks) as gateway:
        session = await gateway.session()
        slots.worker = await gateway.store.register("near", gateway.hand.ids.uuid7(), 60_000, b"{}")
        before = len(gateway.published)
        first = await gateway.message(session, "one", Idempotency_Key="k")
        (commit,) = gateway.published[before:]
        assert [one.type for one in commit.entries] == ["message.received", "turn.queued", "turn.started"]
        assert not commit.runnable
        (receipt,) = slots.started
        assert receipt.claimed is not None
        row, turn = receipt.claimed
        assert (row.owner, row.turn_id, turn.turn_id, turn.state) == (slots.worker, first["turn_id"], first["turn_id"], "running")
        await gateway.message(session, "two")  # busy: queued, and the slot goes back
        await gateway.message(session, "one", Idempotency_Key="k")  # a repeated request starts nothing again
        assert (await gateway.call("POST", session + "/message", {"content": "x", "strategy": "reject"})).status == 409
        assert (await gateway.call("POST", session + "x/message", {"content": "x"})).status == 404
        assert (len(slots.started), len(slots.declined)) == (1, 4)
