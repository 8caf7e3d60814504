"""A client's view of one session: its stream, read by cursor over any number of connections, sometimes slowly."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, field

import aiohttp

from soak.client import Client, session_path
from soak.report import Report
from support.sse import Event, Parser, Reading

ENDS = frozenset({"turn.completed", "turn.failed", "turn.cancelled", "turn.denied"})
#: Without a byte for so long (heartbeats come every 2 s) a connection is given up.
SILENCE_S = 8.0


def digest(type_: str, turn_id: str | None, payload: object) -> bytes:
    """What an entry says, in a few bytes."""
    return hashlib.blake2b(json.dumps([type_, turn_id or None, payload], sort_keys=True).encode(), digest_size=12).digest()


@dataclass
class Follower:
    """Reads until it is cancelled. `entries`: seq -> digest of what was received; `ended`: turn id -> type of its end."""

    session: str
    client: Client
    report: Report
    rng: random.Random
    ended: dict[str, str] = field(default_factory=dict[str, str])
    entries: dict[int, bytes] = field(default_factory=dict[int, bytes])
    open_steps: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])  # (turn, step) -> worker
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _reading: Reading = field(default_factory=lambda: Reading(0))
    _worker: str = ""

    @property
    def last_seq(self) -> int:
        return self._reading.seqs[-1] if self._reading.seqs else 0

    async def run(self) -> None:
        """Follow, reconnecting with the last id whenever the connection ends."""
        pause_s = 0.05
        while True:
            try:
                if await self._connected():
                    pause_s = 0.05
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self.report.seen["streams cut"] += 1
            except AssertionError as error:
                self.report.violation("stream", f"session {self.session}: {error}")
                return
            await asyncio.sleep(pause_s * (0.5 + self.rng.random()))
            pause_s = min(0.5, pause_s * 2)

    async def _connected(self) -> bool:
        """One connection; -> whether it brought anything. Leaves it now and then by itself."""
        reading = self._reading
        headers = {"Last-Event-ID": reading.last_id} if reading.last_id else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
        url = f"{self.client.url()}{session_path(self.session)}/stream?after=0"
        leave_after = self.rng.choice((5, 30, 100, 1000))
        slow = self.rng.random() < 0.05
        async with self.client.http.get(url, headers=headers, timeout=timeout) as answer:
            if answer.status in (410, 416):
                self.report.violation("cursor", f"{self.session} at {reading.last_id!r}: {answer.status} {await answer.text()}")
            if answer.status != 200:
                return False
            self.report.seen["streams"] += 1
            reading.resumed()
            parser, count = Parser(), 0
            async for data in answer.content.iter_any():
                for event in parser.feed(data):
                    reading.take(event)
                    self._take(event)
                    count += 1
                async with self.news:
                    self.news.notify_all()
                if count >= leave_after:
                    break
                if slow:
                    await asyncio.sleep(0.2)
        return count > 0

    def _take(self, event: Event) -> None:
        if event.type.endswith(".delta"):
            return
        seq, turn = event.data["seq"], event.data["turn_id"] or ""
        self.report.seen["entries streamed"] += 1
        self.report.seen["steps streamed"] += event.type in ("model.finished", "tool.finished")
        self.entries[seq] = digest(event.type, turn, event.payload)
        self._track(event.type, turn, seq, event)
        if event.type in ENDS:
            if turn in self.ended:
                self.report.violation("double completion", f"session {self.session}: turn {turn} ended twice on the stream")
            self.ended[turn] = event.type

    def _track(self, type_: str, turn: str, seq: int, event: Event) -> None:
        """Which steps are under way, for whoever aims."""
        match type_:
            case "turn.started" | "turn.resumed":
                self._worker = event.payload.get("worker", "")
                self.open_steps.clear()
            case "model.started":
                self.open_steps[turn, 0] = self._worker
            case "model.finished" | "model.failed" | "stream.reset":
                self.open_steps.pop((turn, 0), None)
            case "tool.started":
                self.open_steps[turn, event.payload["call"]] = self._worker
            case "tool.finished" | "tool.failed" | "tool.denied" | "tool.uncertain":
                self.open_steps.pop((turn, event.payload["call"]), None)
            case _ if type_ in ENDS:
                self.open_steps.clear()
            case _:
                pass

    async def wait_for(self, turn_id: str, quiet_s: float) -> str | None:
        """The type of the turn's end, or None when the session brought nothing new for so long."""
        while turn_id not in self.ended:
            seen = self.last_seq
            if not await self.reached(seen + 1, quiet_s):
                return None
        return self.ended[turn_id]

    async def reached(self, seq: int, timeout_s: float) -> bool:
        """Wait until everything up to `seq` was received."""
        try:
            async with asyncio.timeout(timeout_s), self.news:
                await self.news.wait_for(lambda: self.last_seq >= seq)
        except TimeoutError:
            return False
        return True
