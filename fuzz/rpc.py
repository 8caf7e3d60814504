"""`python -m fuzz.rpc [--cases 100000] [--store sqlite|pg] [--seed N] [--out FILE]`: `make fuzz-rpc`.

Sends mutated messages to every gRPC method of a booted Talon: fields with values that nobody thought of, and bytes that are no
message at all. No answer may be UNKNOWN or INTERNAL, the log may have no traceback, and in the end the server must run a turn. The
result goes as JSON to stdout and FILE; exit code 0: nothing was found. `tests` has to be on the path, as for `make fuzz`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from support.postgres import running_server
from support.product import Product
from support.program import tell
from talon.domain.entries import TURN_ENDS
from talon.gateway.api.collections import BY_KIND
from talon.v1 import talon_pb2

FORBIDDEN = ("UNKNOWN", "INTERNAL", "DATA_LOSS", "UNAVAILABLE", "UNIMPLEMENTED")
_AT_ONCE = 32
_ANSWER_S = 30.0
#: A stream that begins is left soon: nothing may come for long.
_STREAM_S = 0.05
_TEXTS = (
    *("", "default", "helper", "s1", "acme", "Agent", "Namespace", "Schedule", "0", "1", "5.3", "4.99", "open", "retry"),
    *("a" * 64, "A!", "..", "a:b:c", "é🙂", "\u2028", "\x00", "\x7f", "' OR 1=1 --", "%00", "../../etc", "{}", "[]", "null", "{"),
    *('{"metadata":{"name":"x"}}', '{"a":' * 200 + "1" + "}" * 200, "kind: Agent\nmetadata: {name: x}", "a: &a [*a, *a]"),
    *("x" * 5000, "1" * 400, "-1", "1e999", "00000000-0000-7000-8000-000000000000", "WzFd", "1.WzFd", "MQ==", "app=x,!b"),
)
#: What is right for a field, by its name: so that some messages get far.
_RIGHT = {
    "namespace": ("fuzz", "default", ""),
    "agent": ("echo",),
    "session_id": ("s1", "s2", "last", ""),
    "kind": tuple(BY_KIND),
    "name": ("echo", "fuzz", "x", "y"),
    "content": ("hello", "é🙂"),
    "strategy": ("enqueue", "steer", "interrupt", "rollback", "reject", ""),
    "after": ("0", "1", "3.0", ""),
    "outcome": ("retry", "done", "failed"),
    "manifests": ("kind: Agent\nmetadata: {name: z, namespace: fuzz}", "kind: Namespace\nmetadata: {name: zz}"),
    "service": ("", "talon.v1.Sessions"),
    "list_services": ("", "*"),
    "file_containing_symbol": ("talon.v1.Sessions",),
    "type": ("chat", "orchestration", "reasoning", ""),
    "complexity": ("low", "high", ""),
    "model": ("scripted/one", ""),
}
#: A length beyond the end, groups without an end, numbers without one, text that is not UTF-8.
_TAILS = (b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200, b"\xff" * 20, b"\x08" + b"\x80" * 12, b"\x0a\x02\xc3\x28")
_NUMBERS = (0, 1, -1, 2, 50, 500, 501, 2**31 - 1, -(2**31))


@dataclass(frozen=True)
class Target:
    """One method: its path, what it is asked with, and whether questions or answers are streams."""

    path: str
    request: type[Message]
    asks_stream: bool
    answers_stream: bool


@dataclass
class Outcome:
    """What came of it. `wrong` are answers that must not be, by method and status."""

    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter[str])
    wrong: Counter[str] = field(default_factory=Counter[str])


def targets() -> list[Target]:
    """Every method that a server of Talon has."""
    found: list[Target] = []
    for file in (talon_pb2, health_pb2, reflection_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for one in service.methods:
                request = GetMessageClass(one.input_type)
                found.append(Target(f"/{service.full_name}/{one.name}", request, one.client_streaming, one.server_streaming))
    return found


class Mutator:
    """Makes messages of a random source."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def data(self, kind: type[Message]) -> bytes:
        """A message's bytes, as they should be in half of the cases."""
        message = kind()
        self._fill(message, 0)
        data = message.SerializeToString()
        return data if self._source.random() < 0.5 else self._break(bytearray(data))

    def _fill(self, message: Message, depth: int) -> None:
        for one in message.DESCRIPTOR.fields:
            if self._source.random() < 0.3 or depth > 3:
                continue
            if one.name in ("labels", "annotations"):
                getattr(message, one.name)[self._text()] = self._text()
            elif one.message_type is not None:
                inner = getattr(message, one.name)
                self._fill(inner.add() if one.is_repeated else inner, depth + 1)
            elif not one.is_repeated:
                setattr(message, one.name, self._value(one))

    def _value(self, one: Any) -> Any:
        if one.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            known = _RIGHT.get(one.name) or ("",)
            text = self._source.choice(known) if self._source.random() < 0.7 else self._text()
            return text.encode() if one.type == FieldDescriptor.TYPE_BYTES else text
        if one.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._source.random() < 0.5
        return self._source.choice(_NUMBERS)

    def _text(self) -> str:
        if self._source.random() < 0.9:
            return self._source.choice(_TEXTS)
        return "".join(chr(self._source.choice((*range(1, 256), 0x2028, 0x1F642))) for _ in range(self._source.randrange(20)))

    def _break(self, data: bytearray) -> bytes:
        source = self._source
        for _ in range(source.randrange(1, 6)):
            at = source.randrange(len(data) + 1)
            match source.randrange(6):
                case 0 if data:
                    data[at % len(data)] ^= 1 << source.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = source.randbytes(source.randrange(1, 12))
                case 3:
                    data[at:at] = data[: source.randrange(len(data) + 1)]
                case 4:
                    del data[at : at + source.randrange(1, 8)]
                case _:
                    data += source.choice(
                        (b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200, b"\xff" * 20, b"\x08" + b"\x80" * 12, b"\x0a\x02\xc3\x28")
                    )
        return bytes(data)


async def mutate(address: str, cases: int, seed: int) -> Outcome:
    """Send `cases` messages to the server at `address`."""
    outcome, methods, left = Outcome(), targets(), iter(range(cases))
    async with grpc.aio.insecure_channel(address) as channel:

        async def work(number: int) -> None:
            mutator, source = Mutator(random.Random(seed * 1000 + number)), random.Random(seed * 1000 + number)
            for _ in left:
                target = source.choice(methods)
                status = await _ask(channel, target, mutator.data(target.request))
                outcome.cases += 1
                outcome.statuses[status] += 1
                if status in FORBIDDEN:
                    outcome.wrong[f"{target.path}: {status}"] += 1

        await asyncio.gather(*(work(number) for number in range(_AT_ONCE)))
    return outcome


async def _ask(channel: Any, target: Target, data: bytes) -> str:
    """-> the status. A stream of questions has one: a client that still sends while it is refused makes an INTERNAL of its own."""
    try:
        if target.asks_stream:
            call = channel.stream_stream(target.path)(iter([data]), timeout=_ANSWER_S)
        elif target.answers_stream:
            call = channel.unary_stream(target.path)(data, timeout=_ANSWER_S)
        else:
            await channel.unary_unary(target.path)(data, timeout=_ANSWER_S)
            return "OK"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STREAM_S if not target.asks_stream else _ANSWER_S):
                while await call.read() is not grpc.aio.EOF:
                    pass
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
    return "OK"


async def turn_runs(address: str) -> None:
    """Raise unless the server is well and runs a turn that is asked for over gRPC."""
    async with grpc.aio.insecure_channel(address) as opened:
        channel: Any = opened
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        health = health_pb2.HealthCheckResponse.FromString(await check(b"", timeout=_ANSWER_S))
        assert health.status == health_pb2.HealthCheckResponse.SERVING, health
        await _apply(channel, "quiet")  # what was deleted meanwhile is another matter
        ref = talon_pb2.SessionRef(namespace="quiet", agent="echo", session_id="last")
        send = channel.unary_unary("/talon.v1.Sessions/Send")
        message = talon_pb2.SendRequest(session=ref, content="are you there?", create=True)
        sent = talon_pb2.SendResponse.FromString(await send(message.SerializeToString(), timeout=_ANSWER_S))
        wanted = talon_pb2.StreamRequest(session=ref, after="0", turn_id=sent.turn_id)
        events = channel.unary_stream("/talon.v1.Sessions/Stream")(wanted.SerializeToString(), timeout=_ANSWER_S)
        seen = [talon_pb2.StreamEvent.FromString(data).type async for data in events]
        assert seen[-1] in TURN_ENDS, seen


MANIFESTS = """\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {{name: echo, namespace: {namespace}}}
definition:
  customSpec:
    modelPolicy:
      profiles:
        - {{name: primary, model: {{provider: scripted, name: one}}}}
    systemPrompt: You help.
---
apiVersion: talon.dev/v1alpha1
kind: Schedule
metadata: {{name: echo, namespace: {namespace}}}
spec: {{kind: every, every: 1h, target: {{agent: echo, sessionMode: new}}, inputMessage: wake up}}
"""


async def _apply(channel: Any, namespace: str) -> None:
    message = talon_pb2.ApplyRequest(manifests=MANIFESTS.format(namespace=namespace))
    await channel.unary_unary("/talon.v1.Resources/Apply")(message.SerializeToString())


async def _fuzz(store: str, cases: int, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="talon-fuzz-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        env: dict[str, str] = {}
        if store == "pg":
            database = stack.enter_context(running_server()).create_database()
            env = {"DATABASE_URL": database, "TALON_SECRETS_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}
        async with Product(directory / "up", args=("--data-dir", str(directory / "data")), env=env) as up:
            outcome = await fuzzed(up, cases, seed)
            traced = "Traceback" in up.log
    return {
        "store": store,
        "seed": seed,
        "messages": outcome.cases,
        "seconds": round(time.monotonic() - started, 1),
        "statuses": dict(outcome.statuses.most_common()),
        "wrong": dict(outcome.wrong),
        "traceback": traced,
        "passed": not outcome.wrong and not traced,
    }


async def fuzzed(up: Product, cases: int, seed: int) -> Outcome:
    """Mutated messages to a booted product, which then runs a turn."""
    address = await up.grpc()
    async with grpc.aio.insecure_channel(address) as opened:
        await _apply(opened, "fuzz")
    outcome = await mutate(address, cases, seed)
    await turn_runs(address)
    return outcome


def main() -> int:
    """-> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.rpc", description="Messages that nobody thought of.")
    parser.add_argument("--cases", type=int, default=100_000, help="so many messages")
    parser.add_argument("--store", choices=("sqlite", "pg"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is printed")
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    result = asyncio.run(_fuzz(given.store, given.cases, given.seed or secrets.randbits(31)))
    tell(result, given.out)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
