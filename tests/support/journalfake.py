"""A journal in memory for tests of the stream: fake, slow on demand, and honest about what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from talon.domain import entries as e
from talon.domain.session import SessionRow
from talon.store.model import Fragment
from talon.store.writer import Committed

NOW_MS = 1_760_000_000_000
SID = 7


@dataclass
class FakeJournal:
    """One session's journal. `hops` says how often a read gives way to other tasks before and after it looks."""

    hops: Callable[[], int] = lambda: 0
    first_seq: int = 1
    entries: list[e.Entry] = field(default_factory=list[e.Entry])
    fragments: list[Fragment] = field(default_factory=list[Fragment])
    running: str | None = None
    deleted: bool = False
    reads: int = 0

    @property
    def last_seq(self) -> int:
        return self.entries[-1].seq if self.entries else self.first_seq - 1

    def append(self, *payloads: tuple[str, e.Payload], pieces: Sequence[Fragment] = (), drop: int = 0) -> Committed:
        """Commit (turn id, payload) entries and fragments; `drop` forgets the fragments of that model call."""
        base = self.last_seq
        made = tuple(
            e.Entry(base + 1 + at, payload.type, e.new_entry(payload).payload, turn, NOW_MS + base + at)
            for at, (turn, payload) in enumerate(payloads)
        )
        self.entries += made
        self.fragments = [piece for piece in (*self.fragments, *pieces) if piece.seq != drop]
        return Committed(SID, base, made, tuple(pieces), False)

    def row(self) -> SessionRow:
        return SessionRow(
            sid=SID,
            uid="0199a0c0-0000-7000-8000-000000000001",
            namespace="acme",
            agent="support",
            id="s1",
            state="running" if self.running else "idle",
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            fence=1,
            owner=None,
            wake_at_ms=None,
            turn_id=self.running,
            queued=0,
            metadata=b"{}",
            features=b"{}",
            profile="",
            key_id="acme",
            created_at_ms=NOW_MS,
            updated_at_ms=NOW_MS,
            deleted_at_ms=NOW_MS if self.deleted else None,
        )

    async def _hop(self) -> None:
        for _ in range(self.hops()):
            await asyncio.sleep(0)

    async def read_entries(self, sid: int, after: int, limit: int, types: Sequence[str] = ()) -> list[e.Entry]:
        await self._hop()
        self.reads += 1
        found = [one for one in self.entries if one.seq > after and (not types or one.type in types)][:limit]
        await self._hop()
        return found

    async def read_fragments(self, sid: int, seq: int) -> list[Fragment]:
        await self._hop()
        found = [piece for piece in self.fragments if piece.seq == seq]
        await self._hop()
        return found

    async def tails(self, sids: Sequence[int]) -> Mapping[int, int]:
        await self._hop()
        return {sid: self.last_seq for sid in sids if sid == SID}

    async def get_session(self, where: tuple[str, str, str]) -> SessionRow | None:
        await self._hop()
        return self.row() if where == ("acme", "support", "s1") and not self.deleted else None

    async def get_session_by_sid(self, sid: int) -> SessionRow | None:
        return self.row() if sid == SID else None

    async def get_resource(self, *_: Any) -> None:
        return None

    async def get_turn(self, sid: int, turn_id: str) -> Any:
        raise AssertionError("no turn is asked for here")
