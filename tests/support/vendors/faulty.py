"""A server that is faulty in every way that a seed says, and the calls that must end all the same."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from support.vendors.base import ERRORS, Says, Vendor
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, ProviderError, TextDelta, ToolCall

#: No call may take longer than this, whatever the server does.
CALL_S = 60.0
#: Of calls that end by themselves, however busy the machine is; and of those that only a limit ends.
PATIENT = CallLimits(first_token_s=40, idle_s=40, total_s=50, answer_max=2000)
HASTY = CallLimits(first_token_s=0.5, idle_s=0.3, total_s=3, answer_max=2000)
FAULTS = (
    "none",
    "none",
    "status",
    "cut",
    "reset",
    "stall",
    "drip",
    "flip",
    "empty",
    "silent",
    "garbage",
    "error",
    "long",
    "cancel",
)
USAGE = Usage(30, 20, 10, reasoning_tokens=5)


@dataclass
class Plan:
    """What happens to one call. Chosen by its number alone, so that the server and the client know the same."""

    fault: str
    says: Says
    at: float  # where in the stream, from 0 to 1
    pick: int

    @property
    def endless(self) -> bool:
        """Whether a cut looks like an end: the body goes to the end of the connection."""
        return self.fault == "cut" and self.pick % 2 == 1

    @classmethod
    def of(cls, seed: int, number: int) -> Plan:
        dice = random.Random(f"{seed}/{number}")
        calls = tuple(
            ToolCall(f"call_{n}", "look", msgspec.json.encode({"n": n, "x": "é" * dice.randrange(9)}).decode()) for n in range(2)
        )
        text = f"answer {number}: " + "wörd 😀 " * dice.randrange(20)
        asked = dice.random() < 0.3
        says = Says(text, "hm " * dice.randrange(3), calls if asked else (), "tool_calls" if asked else "stop", usage=USAGE)
        return cls(dice.choice(FAULTS), says, dice.random(), dice.randrange(1 << 30))


@dataclass
class Tally:
    """How the calls ended, and the mistakes."""

    ends: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])


class FaultyServer:
    """Keeps connections alive where the fault lets it. `open` counts the connections that it still has."""

    def __init__(self, vendor: Vendor, seed: int) -> None:
        self._vendor, self._seed = vendor, seed
        self._server: asyncio.Server | None = None
        self.open = 0
        self.quiet = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._vendor.path}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.quiet.clear()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1
        if not self.open:
            self.quiet.set()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request. -> whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        plan = Plan.of(self._seed, int(body.partition(b"call number ")[2].partition(b".")[0]))
        stream = b"".join(self._vendor.fake.stream(plan.says))
        match plan.fault:
            case "status":
                kinds = [kind for kind in ERRORS if kind not in self._vendor.lacks]
                status, words = self._vendor.fake.error(kinds[plan.pick % len(kinds)])
                writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(words), words))
                return True
            case "garbage":
                writer.write(
                    (b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b"HTTP/1.1 200 OK\r\n\r\n\x00\xff")[plan.pick % 3]
                )
                return False
            case "empty":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return True
            case "silent":
                await reader.read(1)  # until the client has had enough
                return False
            case _:
                framing = b"Connection: close" if plan.endless else b"Transfer-Encoding: chunked"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n\r\n" % framing)
                return await self._stream(reader, writer, plan, stream)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plan: Plan, stream: bytes) -> bool:
        at = int(plan.at * len(stream))
        if plan.endless:
            at = stream.rfind(b"\n\n", 0, at) + 2 if b"\n\n" in stream[:at] else at  # between two events
        if plan.fault == "flip":
            stream = stream[:at] + bytes([stream[at] ^ (1 << plan.pick % 8)]) + stream[at + 1 :]
        if plan.fault == "error":
            stream = self._vendor.fake.stream(plan.says)[0] + (self._vendor.fake.error_event("server") or b"")
        if plan.fault == "long":
            stream = b"".join(self._vendor.fake.stream(Says(text="x" * 5000)))
        sent = stream[:at] if plan.fault in ("cut", "reset", "stall", "cancel") else stream
        size = 100 if plan.fault == "drip" else max(1, len(sent))
        for start in range(0, len(sent), size):
            piece = sent[start : start + size]
            writer.write(piece if plan.endless else b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if plan.fault == "drip":
                await asyncio.sleep(0)
        match plan.fault:
            case "stall" | "cancel":
                await reader.read(1)
                return False
            case "reset":
                writer.transport.abort()
                return False
            case "cut":
                return False
            case _:
                writer.write(b"0\r\n\r\n")
                return True


async def call(provider: HttpProvider, vendor: Vendor, seed: int, number: int, tally: Tally) -> None:
    """One call; how it ended, or what was wrong with its end, goes to `tally`."""
    plan = Plan.of(seed, number)
    began = asyncio.Event()
    task = asyncio.create_task(_heard(provider, vendor, number, began))
    if plan.fault == "cancel":
        with suppress(TimeoutError):
            await asyncio.wait_for(began.wait(), 0.05 + plan.at / 10)
        task.cancel()
    done, _ = await asyncio.wait({task}, timeout=CALL_S)
    if not done:
        task.cancel()
        tally.wrong.append(f"call {number} ({plan.fault}) hangs")
    elif task.cancelled():
        tally.ends["cancelled"] += 1
    else:
        end, text = task.result()
        tally.ends[end if isinstance(end, str) else "finished"] += 1
        if problem := _problem(vendor, plan, end, text):
            tally.wrong.append(f"call {number} ({plan.fault}): {problem}")


async def _heard(provider: HttpProvider, vendor: Vendor, number: int, began: asyncio.Event) -> tuple[Finished | str, str]:
    """(how it ended: the one `Finished`, or the error's class and usage; the text before)."""
    request = ChatRequest(vendor.model, (ChatMessage("user", f"This is call number {number}."),))
    text, ends = "", list[Finished]()
    try:
        async with aclosing(provider.chat(request)) as events:
            async for event in events:
                began.set()
                if isinstance(event, Finished):
                    ends.append(event)
                elif isinstance(event, TextDelta):
                    text += event.text
    except ProviderError as error:
        known = error.usage == Usage() or error.usage.estimated or error.usage == vendor.counts(USAGE)
        return (f"{error.error}" if known and not ends else f"wrong: {error} after {ends}, usage {error.usage}"), text
    return (ends[0] if len(ends) == 1 else f"wrong: {len(ends)} ends"), text


def _problem(vendor: Vendor, plan: Plan, end: Finished | str, text: str) -> str:
    """What is wrong with this end; empty if nothing is."""
    if isinstance(end, str):
        good = plan.fault in ("none", "drip")
        return f"ended as {end}" if good or end.startswith("wrong") else ""
    if plan.fault == "flip":
        return ""  # one changed bit may be a changed letter
    if plan.fault in ("status", "garbage", "empty", "silent", "error", "long"):
        return f"was taken for an answer: {end}"
    calls = [(c.id, c.name, msgspec.json.decode(c.arguments)) for c in end.tool_calls]
    said = [(c.id, c.name, msgspec.json.decode(c.arguments)) for c in plan.says.calls]
    if text != plan.says.text or calls != said:
        return f"half an answer was taken for a whole one: {text!r}, {calls}"
    counted = end.usage == vendor.counts(USAGE) or (end.usage.estimated and plan.fault in ("cut", "reset", "stall", "cancel"))
    return "" if counted else f"usage {end.usage}"


async def storm(vendor: Vendor, seed: int, calls: int, *, at_once: int = 50) -> Tally:
    """So many calls, some at once. Afterwards nothing of them is left: no task, no socket, no file."""
    tally, before, files = Tally(), asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
    server = FaultyServer(vendor, seed)
    async with server as url:
        patient, hasty = (HttpProvider("main", vendor.dialect(url), "k", limits=limits) for limits in (PATIENT, HASTY))
        numbers = iter(range(calls))

        async def lane() -> None:
            for number in numbers:
                provider = hasty if Plan.of(seed, number).fault in ("stall", "silent") else patient
                await call(provider, vendor, seed, number, tally)

        lanes: list[Coroutine[Any, Any, None]] = [lane() for _ in range(at_once)]
        await asyncio.gather(*lanes)
        await patient.close()
        await hasty.close()
        if server.open:
            with suppress(TimeoutError):
                await asyncio.wait_for(server.quiet.wait(), CALL_S)
        if server.open:
            tally.wrong.append(f"{server.open} sockets are still open")
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - before
    if tasks:
        tally.wrong.append(f"tasks are left: {tasks}")
    left = len(os.listdir("/proc/self/fd")) - files
    if left > 0:
        tally.wrong.append(f"{left} files are left open")
    return tally
