"""Sessions, one after the other in each lane: messages under every strategy, cancels, duplicates; then the session is verified."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from soak.client import Client, NotAnswered, session_path
from soak.follower import Follower
from soak.plans import Pace, Plan, draw
from soak.report import Report
from soak.verify import Accepted, verify


@dataclass(frozen=True)
class Load:
    """How much: `lanes` sessions at once, `operations` in each. A turn in whose session nothing happens for `stuck_s` is stuck."""

    lanes: int = 16
    operations: int = 30
    stuck_s: float = 120.0
    pace: Pace = field(default_factory=Pace)


class Lane:
    """A session's life: created, used, brought to rest, verified, forgotten."""

    def __init__(self, name: str, client: Client, counter: Client, report: Report, rng: random.Random, load: Load) -> None:
        self.name, self._client, self._counter, self._report, self._rng, self._load = name, client, counter, report, rng, load
        self.follower = Follower(name, client, report, rng)
        self._accepted: list[Accepted] = []
        self._expected: set[str] = set()
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """One session from its creation to its verification; ends early, but in order, when `stop` is set."""
        try:
            status, body = await self._client.call("POST", session_path(self.name).rpartition("/")[0], {"id": self.name})
        except NotAnswered as error:
            self._report.failed("create session", str(error))
            return
        if status not in (200, 201):
            self._report.failed("create session", f"{status} {body}")
            return
        self._report.done("create session")
        following = asyncio.create_task(self.follower.run())
        try:
            for _ in range(self._load.operations):
                if stop.is_set():
                    break
                await self._operation()()
            await self._rest()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    # --- operations --------------------------------------------------------------------------------------------------------

    def _operation(self) -> Callable[[], Awaitable[None]]:
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (60, self._ask),
            (8, self._several),
            (8, self._cancel),
            (8, lambda: self._busy("steer")),
            (6, lambda: self._busy("interrupt")),
            (4, lambda: self._busy("rollback")),
            (4, self._reject),
        ]
        return self._rng.choices([one for _, one in choices], [weight for weight, _ in choices])[0]

    def _plan(self) -> Plan:
        self._count += 1
        return draw(self._rng, f"{self.name}-{self._count}", self._load.pace)

    async def _post(
        self, plan: Plan, strategy: str = "enqueue", *, busy_is_fine: bool = False, alone: bool = False
    ) -> Accepted | None:
        """Send until answered, now and then once more under the same key; -> the receipt, None if refused or never answered.

        `alone`: nothing else is being sent to the session.
        """
        key, content = f"key-{plan.tag}", plan.content()
        body: dict[str, Any] = {"content": content, "strategy": strategy, "metadata": {"alone": alone}}
        path = f"{session_path(self.name)}/message"
        operation = f"message {strategy}"
        try:
            status, answer = await self._client.call("POST", path, body, key=key)
            if status == 409 and busy_is_fine and answer["code"] == "session_busy":
                self._report.done(operation)
                return None
            if status != 202:
                self._report.failed(operation, f"{plan.tag}: {status} {answer}")
                return None
            accepted = Accepted(key, content, answer["seq"], answer["turn_id"])
            self._accepted.append(accepted)
            self._expected.add(accepted.turn_id)
            if self._rng.random() < 0.1:
                again = await self._client.call("POST", path, body, key=key)
                if again != (status, answer):
                    self._report.violation("key", f"{plan.tag}: first {status} {answer}, then under the same key {again}")
        except NotAnswered as error:
            self._report.failed(operation, str(error))
            return None
        self._report.done(operation)
        return accepted

    async def _end(self, accepted: Accepted | None, fine: tuple[str, ...] = ("turn.completed",)) -> None:
        if accepted is None:
            return
        end = await self.follower.wait_for(accepted.turn_id, self._load.stuck_s)
        if end in fine:
            self._report.done("turn")
        elif end is not None:
            self._report.failed("turn", f"{accepted.key}: {accepted.turn_id} ended with {end}")
        elif not self._report.broken.is_set():
            await self._stuck(accepted.turn_id)

    async def _stuck(self, turn_id: str) -> None:
        """No end on the stream: say whether the turn or the stream hangs."""
        try:
            status, row = await self._client.call("GET", f"{session_path(self.name)}/turns/{turn_id}")
            session = await self._client.get(session_path(self.name))
        except NotAnswered as error:
            self._report.failed("turn", str(error))
            return
        if status == 404:
            self._report.violation("lost message", f"turn {turn_id} of session {self.name} was answered with 202 and is nowhere")
            return
        detail = f"session {self.name}, read up to {self.follower.last_seq}: {session}, turn {row}"
        self._report.violation("stuck turn" if row["ended_at"] is None else "stuck stream", detail)

    async def _ask(self) -> None:
        await self._end(await self._post(self._plan(), alone=True))

    async def _several(self) -> None:
        sent = await asyncio.gather(*(self._post(self._plan()) for _ in range(self._rng.choice((2, 3, 5)))))
        for one in sent:
            await self._end(one)

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.random() * 0.3)

    async def _cancel(self) -> None:
        accepted = await self._post(self._plan())
        if accepted is None:
            return
        await self._pause()
        path = f"{session_path(self.name)}/turns/{accepted.turn_id}/cancel"
        try:
            status, answer = await self._client.call("POST", path, key=f"cancel-{accepted.key}")
        except NotAnswered as error:
            self._report.failed("cancel", str(error))
        else:
            if status == 202 or (status == 409 and answer["code"] == "turn_ended"):
                self._report.done("cancel")
            else:
                self._report.failed("cancel", f"{status} {answer}")
        await self._end(accepted, ("turn.completed", "turn.cancelled"))

    async def _busy(self, strategy: str) -> None:
        first = await self._post(self._plan())
        await self._pause()
        second = await self._post(self._plan(), strategy)
        await self._end(first, ("turn.completed",) if strategy == "steer" else ("turn.completed", "turn.cancelled"))
        await self._end(second)

    async def _reject(self) -> None:
        first = await self._post(self._plan())
        second = await self._post(self._plan(), "reject", busy_is_fine=True)
        await self._end(first)
        await self._end(second)

    # --- the end -----------------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Every turn has ended, also those that nobody asked for by name (a late steer): then everything is compared."""
        path = session_path(self.name)
        deadline = time.monotonic() + self._load.stuck_s
        try:
            while (session := await self._client.get(path))["state"] != "idle":
                if time.monotonic() > deadline:
                    self._report.violation("stuck turn", f"session {self.name} does not come to rest: {session}")
                    return
                await asyncio.sleep(0.1)
        except NotAnswered as error:
            self._report.failed("verify", str(error))
            return
        if not await self.follower.reached(session["last_seq"], self._load.stuck_s):
            self._report.violation("stuck stream", f"session {self.name} was read up to {self.follower.last_seq}: {session}")
        # What was streamed by now must be in the journal that is read from now on (an approval may be resolved in between).
        streamed = dict(self.follower.entries)
        try:
            journal = await self._client.pages(f"{path}/journal")
            rows = await self._client.pages(f"{path}/turns")
            keys = (await self._counter.get(f"/keys?session={self.name}"))["keys"]
        except NotAnswered as error:
            self._report.failed("verify", str(error))
            return
        found = verify(self.name, journal, rows, keys, self._accepted, streamed)
        for kind, detail in found.violations:
            self._report.violation(kind, detail)
        self._report.done("verify")
        self._report.ends += found.ends
        self._report.orphans |= found.orphans
        self._report.seen["takeovers"] += found.takeovers
        self._report.seen["entries"] += len(journal)
        self._report.seen["effects"] += sum(key["happened"] for key in keys)
        for reason, times in found.reasons.items():
            self._report.seen[f"failed: {reason}"] += times
        if not found.violations:
            await self._counter.call("DELETE", f"/keys?session={self.name}")


@dataclass
class Workload:
    """All lanes, and the humans who answer what is uncertain."""

    client: Client
    counter: Client
    report: Report
    rng: random.Random
    load: Load
    lanes: dict[int, Lane] = field(default_factory=dict[int, Lane])
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until `stop`; every session that was begun is verified."""
        humans = asyncio.create_task(Humans(self.client, self.counter, self.report, self.rng).run())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.load.lanes):
                    group.create_task(self._lane(number))
        finally:
            humans.cancel()

    async def _lane(self, number: int) -> None:
        run = 0
        while not self.stop.is_set():
            run += 1
            seed = self.rng.getrandbits(64)
            self.lanes[number] = Lane(f"s{number}-{run}", self.client, self.counter, self.report, random.Random(seed), self.load)
            await self.lanes[number].run(self.stop)

    def under_way(self, worker: str) -> int:
        """Steps that the worker of this name has under way, as far as readers have seen."""
        return sum(owner.startswith(f"{worker}/") for lane in self.lanes.values() for owner in lane.follower.open_steps.values())


class Humans:
    """Look outside, then say what became of an uncertain call."""

    def __init__(self, client: Client, counter: Client, report: Report, rng: random.Random) -> None:
        self._client, self._counter, self._report, self._rng = client, counter, report, rng

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                page = await self._client.get("/v1/ns/soak/approvals?state=open&limit=100")
                for approval in page["items"]:
                    await self._answer(approval)
            except NotAnswered as error:
                self._report.failed("approval", str(error))
            await asyncio.sleep(0.2)

    async def _answer(self, approval: dict[str, Any]) -> None:
        subject = read_subject(approval["arguments"])
        keys = (await self._counter.get(f"/keys?subject={subject}"))["keys"]
        happened = any(key["happened"] for key in keys)
        outcome = "done" if happened else self._rng.choice(("retry", "retry", "failed"))
        body = {"outcome": outcome} | ({"result": "seen outside"} if outcome == "done" else {})
        path = f"/v1/ns/soak/approvals/{approval['id']}"
        status, answer = await self._client.call("POST", path, body, key=f"answer-{approval['id']}")
        # The turn may have been cancelled in the meantime.
        if status == 200 or (status == 409 and answer["code"] == "approval_closed"):
            self._report.done("approval")
        else:
            self._report.failed("approval", f"{status} {answer}")


def read_subject(arguments: str) -> str:
    """What the call acts on."""
    return json.loads(arguments)["subject"]
