"""Any interleaving of commits, pushes, bells, reads and disconnects gives each client each entry once, in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.journalfake import SID, FakeJournal
from support.sse import Parser, Reading
from talon.access.authenticator import Open
from talon.access.protocol import Access
from talon.access.roles import LOCAL
from talon.domain import entries as e
from talon.gateway.deps import GatewayDeps, GatewaySettings
from talon.gateway.holding import Holding
from talon.gateway.http.streaming import Streaming
from talon.gateway.http.visit import Visit
from talon.gateway.hub import StreamHub
from talon.store.model import Fragment
from talon.store.writer import Committed

PATH = {"ns": "acme", "agent": "support", "session_id": "s1"}


class StillClock:
    def now_ms(self) -> int:
        return 1_760_000_000_000

    def monotonic_s(self) -> float:
        return 0.0


@dataclass
class Author:
    """Writes a journal as workers and inboxes do: valid sequences only, chosen by the test."""

    journal: FakeJournal
    model: int = 0
    turn: int = 0
    text: str = ""
    reasoning: str = ""

    def act(self, what: str, size: int) -> Committed:
        turn = f"t{self.turn}"
        if what == "inbox":
            content = "x" * size
            return self.journal.append(("other", e.MessageReceived(content=content)), ("other", e.TurnQueued(message_seq=1)))
        if self.journal.running is None:
            self.turn += 1
            turn = f"t{self.turn}"
            self.journal.running = turn
            done = self.journal.append((turn, e.TurnStarted(agent="support", revision=1)), (turn, _started()))
            self._opened()
            return done
        if what in ("text", "reasoning"):
            have = self.text if what == "text" else self.reasoning
            more = "".join(chr(0x61 + (len(have) + at) % 26) for at in range(size)) + "é🙂"
            setattr(self, what, have + more)
            piece = Fragment(self.model, len(have), more, what)
            return self.journal.append(pieces=[piece])
        if what == "goes on" and self.text and not self.reasoning:
            kept = e.ModelFailed(error="connection", kept=len(self.text))
            if size % 3 == 0:  # nobody can go on with it after all
                dropped = e.StreamReset(model_seq=self.model)
                done = self.journal.append((turn, kept), (turn, dropped), (turn, _started()), drop=self.model)
                self._opened()
                return done
            return self.journal.append((turn, kept), (turn, _started(continues=self.model, offset=len(self.text))))
        if what in ("reset", "goes on"):
            done = self.journal.append((turn, e.StreamReset(model_seq=self.model)), (turn, _started()), drop=self.model)
            self._opened()
            return done
        if what == "tool":
            finished = e.ModelFinished(stop_reason="tool", content=self.text + "!", reasoning=self.reasoning, calls=1)
            request = e.ToolRequested(call=1, call_id="c", name="n", arguments="{}")
            done = self.journal.append((turn, finished), (turn, request), (turn, _started()), drop=self.model)
            self._opened()
            return done
        finished = e.ModelFinished(stop_reason="stop", reasoning=self.reasoning)
        answer = e.MessageCompleted(content=self.text + " end", model_seq=self.model)
        done = self.journal.append((turn, finished), (turn, answer), (turn, e.TurnCompleted()), drop=self.model)
        self.journal.running = None
        return done

    def _opened(self) -> None:
        self.model, self.text, self.reasoning = self.journal.last_seq, "", ""


def _started(**more: Any) -> e.ModelStarted:
    return e.ModelStarted(iteration=1, provider="p", model="m", **more)


@dataclass
class Client:
    """One client over many connections."""

    streams: Streaming
    reading: Reading
    parser: Parser = field(default_factory=Parser)
    task: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    live: bool = False
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0

    def connect(self) -> None:
        self.gone, self.live, self.parser = asyncio.Event(), True, Parser()
        self.blocked.set()
        self.reading.resumed()
        headers = [(b"last-event-id", self.reading.last_id.encode())]
        scope: dict[str, Any] = {"type": "http", "query_string": b"", "headers": headers, "talon.send": self._send, "path": ""}
        Visit(scope, dict(headers), "r", 0).who = LOCAL
        self.task = asyncio.create_task(self.streams.serve(scope, self._receive, self._send, PATH))

    @property
    def transport(self) -> Client:
        """Where a stream finds what to cut when this client takes nothing."""
        return self

    def abort(self) -> None:
        """The connection is cut: what was under way is lost."""
        self.live = False
        self.gone.set()
        self.blocked.set()

    async def disconnect(self) -> None:
        self.live = False  # what is sent from now on is lost on the wire
        self.gone.set()
        self.blocked.set()
        if self.task is not None:
            await asyncio.wait_for(self.task, 5)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.blocked.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            assert self.status == 200, message
            return
        if self.live:
            for event in self.parser.feed(message["body"]):
                self.reading.take(event)


ACTS = st.sampled_from(["text", "text", "text", "reasoning", "inbox", "inbox", "reset", "goes on", "goes on", "tool", "finish"])
PAUSE = st.sampled_from([0, 0, 1, 3, 40])  # turns of the event loop that everybody gets after an act
HOW = st.sampled_from(["push", "push", "push", "late", "lost", "twice", "bell"])
COMMIT = st.tuples(st.just("commit"), PAUSE, ACTS, st.integers(0, 12), HOW)
BREAK = st.tuples(st.just("break"), PAUSE, st.integers(0, 2))
BLOCK = st.tuples(st.just("block"), PAUSE, st.integers(0, 2))
NEW = st.tuples(st.just("new"), PAUSE, st.booleans())


@settings(max_examples=1000, deadline=None)
@given(
    script=st.lists(st.one_of(COMMIT, COMMIT, COMMIT, COMMIT, BREAK, BLOCK, NEW), min_size=1, max_size=60),
    hops=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    first_seq=st.sampled_from([1, 40]),
    shared=st.booleans(),
)
def test_any_interleaving_gives_each_entry_once(script: list[Any], hops: list[int], first_seq: int, shared: bool) -> None:
    asyncio.run(_play(script, hops, first_seq, shared))


async def _play(script: list[Any], hops: list[int], first_seq: int, shared: bool) -> None:
    turn = 0

    def hop() -> int:
        nonlocal turn
        turn += 1
        return hops[turn % len(hops)]

    journal = FakeJournal(hops=hop, first_seq=first_seq)
    limits = GatewaySettings(heartbeat_s=3600, poll_s=3600, stream_buffer_max=400)
    hub = StreamHub(journal, StillClock(), limits, shared=shared)
    access = Access(Open(), None, None)  # type: ignore[arg-type]
    holding = Holding(access.authenticator, limits, StillClock())
    deps = GatewayDeps(journal, None, hub, StillClock(), None, None, None, access, holding, None, "0", limits)  # type: ignore[arg-type]
    streams, author = Streaming(deps), Author(journal)
    clients: list[Client] = []
    late: list[Committed] = []

    async def settle() -> None:
        """Let everything run until no client makes progress any more."""
        quiet = 0
        while quiet < 60:
            before = [(client.reading.last_id, client.task) for client in clients]
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == [(client.reading.last_id, client.task) for client in clients] else 0

    opening: list[Any] = [("new", 40, False)]
    for kind, pause, *rest in [*opening, *script]:
        what: list[Any] = rest
        if kind == "commit":
            commit = author.act(what[0], what[1])
            how = what[2]
            if how == "late":
                late.append(commit)
            elif how == "bell":
                hub.poke(SID, journal.last_seq)
            elif how != "lost":
                hub.publish([*late, commit, *([commit] if how == "twice" else [])])
                late.clear()
        elif kind == "new" and len(clients) < 3:
            await settle()  # so that "now" is a known position
            start = journal.last_seq if what[0] and journal.last_seq >= first_seq else 0
            clients.append(Client(streams, Reading(start=start or first_seq - 1, last_id=str(start))))
            clients[-1].connect()
        elif kind == "break" and what[0] < len(clients):
            broken = clients[int(what[0])]
            await broken.disconnect()
            broken.connect()
        elif kind == "block" and what[0] < len(clients):
            clients[int(what[0])].blocked.clear()
        for _ in range(pause):
            await asyncio.sleep(0)
    for client in clients:
        client.blocked.set()
        if client.task is not None and client.task.done():  # cut for being slow: it comes back
            client.task.result()
            client.connect()
    hub.publish(late)
    hub.poke_all()
    await settle()
    for client in clients:
        if client.task is not None and client.task.done():
            client.task.result()
            client.connect()
    await settle()
    for client in clients:
        expected = [one.seq for one in journal.entries if one.seq > client.reading.start]
        assert client.reading.seqs == expected
        if journal.running and (author.text or author.reasoning) and author.model > client.reading.start:
            assert client.reading.texts.get((author.model, "text.delta"), "") == author.text
            assert client.reading.texts.get((author.model, "reasoning.delta"), "") == author.reasoning
        await client.disconnect()
    assert hub.count == 0
    await hub.close()
