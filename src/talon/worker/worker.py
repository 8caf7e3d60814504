"""The worker: claims what is runnable, runs it, and keeps the promises of K7, K8 and K13.

    claim ──> TurnRunner ──> released | parked | given back
      ^                          │
      └── bell, timer, sweep ────┘

Everything is found again by looking: a lost bell costs at most a sweep, a lost answer of a claim shows as a session that is held
and not run and is given back, a dead worker's sessions come back with its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from talon.dispatch.rounds import Rounds
from talon.domain.bell import Bell
from talon.domain.entries import Entry, NewEntry
from talon.domain.errors import Conflict, FencedOut, TalonError, Unavailable
from talon.domain.ids import Clock, Ids
from talon.domain.inbox import Message
from talon.domain.session import SessionRow, TurnRow
from talon.store.inbox_apply import backoff_ms
from talon.store.model import Append, Caps, Claimed
from talon.store.protocols import Store
from talon.turn.runner import TurnDeps, TurnRunner
from talon.turn.start import first_entries
from talon.worker import suspects
from talon.worker.lease import Lease

#: How often the lease is looked at; well below the margin that it keeps.
GUARD_S = 0.25
#: The most that one claim takes: a long queue is shared with the other workers, who claim in between.
CLAIM_MAX = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves. `ttl_s` is its lease; `concurrency` how many turns it runs at once."""

    name: str
    concurrency: int = 64
    ttl_s: float = 10.0
    sweep_s: float = 1.0
    drain_timeout_s: float = 30.0
    blobs_every_s: float = 3600.0
    caps: Caps = field(default_factory=Caps)
    catalogue: bytes = b""


class Worker:
    """One worker of a process. `run` until `stop`; `hear` is given every bell of the process."""

    def __init__(
        self, store: Store, deps: Callable[[str], TurnDeps], lease: Lease, clock: Clock, ids: Ids, settings: WorkerSettings
    ) -> None:
        self._store, self._make_deps, self._lease = store, deps, lease
        self._clock, self._ids, self._settings = clock, ids, settings
        self._running: dict[int, tuple[TurnRunner, asyncio.Task[None]]] = {}
        self._rounds = Rounds()
        self._ended = asyncio.Event()  # set while `run` is not under way
        self._ended.set()
        self._guarding: asyncio.Task[None] | None = None
        self._promised = 0  # slots offered to messages that are just being accepted
        self._held: list[Claimed] = []  # suspects that were claimed just now
        self._unknown: set[tuple[int, int]] = set()  # held and not run at the last look
        self._left: dict[int, int] = {}  # sid -> attempts, of sessions whose turn stopped here without being given back
        self._in_vain = False
        self._blobs_at_s = 0.0
        self.id = ""
        self._boot = ""  # of a lease that was asked for and not answered yet

    @property
    def running(self) -> int:
        """Turns under way."""
        return len(self._running)

    def hear(self, bell: Bell) -> None:
        """Look now: something is runnable, or a session that runs here has news."""
        if bell.runnable or bell.everything:
            self._rounds.wake()
        for sid, seq in bell.tails:
            if found := self._running.get(sid):
                found[0].poke(seq)

    # --- turns that start in the commit that accepts them (kernel §4, commit ①) -----------------------------------------------

    def promise(self) -> bool:
        """Set a free slot aside for a message that is being accepted; every True is followed by one `take` or `decline`.

        Not under caps, which only a claim keeps; and a free slot means that nothing else is waiting for it.
        """
        if self._rounds.stopped or not self._lease.alive() or not self._has_room():
            return False
        self._promised += 1
        return True

    def _has_room(self) -> bool:
        """Whether a turn could begin here at once. Under caps nobody knows without asking the store."""
        return self._settings.caps == Caps() and self._free() > 0

    def _free(self) -> int:
        return self._settings.concurrency - len(self._running) - len(self._held) - self._promised

    def first_entries(self, message: Message, session: SessionRow, revision: int) -> tuple[NewEntry, ...] | None:
        """What this worker writes with the message; None if it does not know the agent's revision yet."""
        pin = self._deps.definitions.known(session, revision)
        return None if pin is None else first_entries(message, session, pin, self.id, self._deps.models.traffic)

    def take(self, session: SessionRow, turn: TurnRow, entries: tuple[Entry, ...]) -> None:
        """Run the turn that was accepted and claimed for this worker."""
        self._promised -= 1
        self._start(Claimed(session, turn, "queued", turn.revision, entries))

    def decline(self) -> None:
        """The slot was not taken."""
        self._promised -= 1

    # --- life --------------------------------------------------------------------------------------------------------------

    async def register(self) -> None:
        """Take a lease; the sessions that an earlier boot of this name held are runnable from now on (K8)."""
        settings = self._settings
        # Asked for again when the answer is lost: otherwise we would meet ourselves as another process.
        self._boot, began_s = self._boot or self._ids.uuid7(), self._clock.monotonic_s()
        self.id = await self._store.register(settings.name, self._boot, int(settings.ttl_s * 1000), settings.catalogue)
        self._boot = ""
        self._deps = self._make_deps(self.id)
        self._lease.start(self.id, began_s)

    async def run(self) -> None:
        """Claim and run until `stop`. Survives a database that goes away; ends only by `stop` or a defect of its own."""
        self._ended.clear()
        self._guarding = asyncio.create_task(self._guard(), name="lease guard")
        try:
            await self._run()
        finally:
            self._ended.set()
            if not self._rounds.stopped:
                self._guarding.cancel()

    async def _run(self) -> None:
        tidy_s = self._clock.monotonic_s()
        while self._rounds.begin():
            try:
                if not self._lease.alive():
                    await self._start_again()
                if self._clock.monotonic_s() >= tidy_s:
                    await self._tidy()
                    tidy_s = self._clock.monotonic_s() + self._settings.sweep_s
                if await self._claim():
                    continue
                pause_s = await self._pause_s(tidy_s)
            except Unavailable as error:
                log.warning("the database cannot be reached, trying again: %s", error.detail)
                pause_s = self._settings.sweep_s
            await self._rounds.rest(pause_s)

    async def _guard(self) -> None:
        """Stop what runs when the lease is over, also while `run` hangs in a database that does not answer (K8)."""
        while True:
            await asyncio.sleep(min(GUARD_S, self._settings.sweep_s))
            if not self._lease.alive():
                for _, task in self._running.values():
                    task.cancel()

    async def stop(self) -> None:
        """Drain (K8): claim nothing more, let every turn reach its next decision and give it back; after `drain_timeout_s` leave
        the rest as a crash would. Then end the lease."""
        self._rounds.stop()
        for runner, _ in self._running.values():
            runner.drain()
        log.info("worker %s drains %d turns", self.id, len(self._running))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._ended.wait()  # a claim that is on its way brings turns that are drained as they start
                while self._running:
                    await asyncio.wait({task for _, task in self._running.values()})
        await self._cancel({task for _, task in self._running.values()})
        if self._guarding is not None:
            self._guarding.cancel()
        await self._lease.stop()
        with contextlib.suppress(Unavailable):
            await self._store.retire(self.id)

    async def _start_again(self) -> None:
        """The lease is over: stop everything here, then begin as a new boot.

        Raises `Conflict` if another process took it over under the same name: the two would take it from each other for ever.
        """
        log.warning("worker %s lost its lease and starts again", self.id)
        await self._cancel({task for _, task in self._running.values()})
        self._held.clear()
        await self._lease.stop()
        name = self._settings.name
        own = (self.id, f"{name}/{self._boot}")
        if any(row.name == name and row.id not in own for row in await self._store.workers()):
            raise Conflict("in_use", f"another process runs as worker {name!r}; give one of them another --name")
        await self.register()
        log.info("worker %s begins", self.id)

    async def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.sweep_s)

    # --- work --------------------------------------------------------------------------------------------------------------

    async def _claim(self) -> bool:
        """Fill the free slots; True if there may be more to claim at once."""
        free = self._free()
        full = free > 0
        while full and free > 0 and not self._rounds.stopped:
            slots = min(free, CLAIM_MAX)
            claimed = await self._store.claim(self.id, slots, self._settings.caps)
            free, full = free - slots, len(claimed) == slots
            for one in claimed:
                if suspects.is_suspect(one.turn.attempts, self._deps.attempts_max):
                    self._held.append(one)
                else:
                    self._start(one)
        if self._held:
            await self._admit()
        return full

    async def _admit(self) -> None:
        """Start the suspects that have a place in the group, once the others are let go: those must not be counted with them."""
        attempts_max = self._deps.attempts_max
        running = [
            runner.claimed.turn.attempts
            for runner, _ in self._running.values()
            if not runner.ledger.got_on and suspects.is_suspect(runner.claimed.turn.attempts, attempts_max)
        ]
        held = sorted(self._held, key=lambda one: one.turn.attempts)
        count = suspects.admit(running, [one.turn.attempts for one in held], attempts_max)
        later = [
            self._give_back(
                one.session.sid, one.session.fence, suspects.wait_ms(place, one.turn.attempts, attempts_max), drained=True
            )
            for place, one in enumerate(held[count:])
        ]
        await asyncio.gather(*later)
        self._held.clear()
        for one in held[:count]:
            self._start(one)

    def _start(self, claimed: Claimed) -> None:
        runner = TurnRunner(claimed, self._deps)
        if self._rounds.stopped:
            runner.drain()
        task = asyncio.create_task(self._run_turn(runner), name=f"turn {claimed.turn.turn_id}")
        self._running[claimed.session.sid] = (runner, task)

    async def _run_turn(self, runner: TurnRunner) -> None:
        sid = runner.claimed.session.sid
        try:
            await runner.run()
        except FencedOut:
            log.info("turn %s runs elsewhere now", runner.claimed.turn.turn_id)
        except Unavailable as error:
            log.warning("turn %s stops here, the database cannot be reached: %s", runner.claimed.turn.turn_id, error.detail)
            self._left[sid] = runner.claimed.turn.attempts
        except Exception:
            log.exception("turn %s stopped by a defect", runner.claimed.turn.turn_id)
            await self._give_back(sid, runner.claimed.session.fence, backoff_ms(runner.claimed.turn.attempts + 1))
        finally:
            if not self._has_room():
                self._rounds.wake()  # what waits for a place may have it; with room left nothing waits
            if self._running.get(sid, (None,))[0] is runner:
                del self._running[sid]

    async def _give_back(self, sid: int, fence: int, wake_in_ms: int, *, drained: bool = False) -> None:
        """Let a session go that nobody here runs. Failing is fine: the next look finds it again."""
        append = Append(id=self._ids.uuid7(), sid=sid, fence=fence, hold="give_back", wake_in_ms=wake_in_ms, drained=drained)
        with contextlib.suppress(FencedOut, TalonError):
            await self._deps.writer.append(append)

    # --- looking -----------------------------------------------------------------------------------------------------------

    async def _tidy(self) -> None:
        """Once per `sweep_s`: what was lost comes back, what no bell told is seen."""
        store = self._store
        await store.sweep()
        owned = await store.owned(self.id)
        left, self._left = self._left, {}
        idle = {(sid, fence) for sid, fence in owned if sid not in self._running}
        # Held for no reason that is known here: an answer was lost, or is on its way (then it is run at the next look).
        lost = {(sid, fence) for sid, fence in idle if sid in left or (sid, fence) in self._unknown}
        self._unknown = idle - lost
        for sid, fence in lost:
            await self._give_back(sid, fence, backoff_ms(left.get(sid, 0)))
        if self._running:
            for sid, seq in (await store.tails(list(self._running))).items():
                if found := self._running.get(sid):
                    found[0].poke(seq)
        if self._clock.monotonic_s() >= self._blobs_at_s:
            self._blobs_at_s = self._clock.monotonic_s() + self._settings.blobs_every_s
            await store.collect_blobs()

    async def _pause_s(self, tidy_s: float) -> float:
        """Until the next timer or the next look, whichever comes first."""
        look_s = max(0.0, tidy_s - self._clock.monotonic_s())
        if len(self._running) >= self._settings.concurrency:
            return look_s
        wake_ms = await self._store.next_wake_ms()
        # Runnable, and not given to us a moment ago: it has just become so, or a cap holds it. Once is tried again at once.
        was_in_vain, self._in_vain = self._in_vain, wake_ms == 0
        return look_s if wake_ms is None or (self._in_vain and was_in_vain) else min(look_s, wake_ms / 1000)
