"""CPU of one model call, as a ratio: Talon's adapter against a bare aiohttp call that reads the same stream (`bench.bare`:
cuts it into its events, decodes each and collects the text); and against one that
looks at none of its bytes.

    PYTHONPATH=tests python -m bench.calls [--vendors NAME …] [--ways packets|burst …] [--rounds N] [--words N] [--out FILE]

The streams are those of the vendors' fakes. All ways run in one process, in turns, against a server in a process of its own. One
stream is written in two ways: an event per packet (a model that is slower than the network), and all at once. What counts is the
median, over the rounds, of the ratio of two ways' CPU. Calls have an API key, also those of Bedrock: nothing is signed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import multiprocessing
import multiprocessing.connection
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from bench import bare, machine
from bench.stats import median
from support.vendors.base import Says, Vendor
from support.vendors.table import VENDORS
from talon.providers.http import HttpProvider
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, TextDelta

RATIO_MAX = 1.5
WORD = " word"
#: Calls of one way in one round: an event per packet takes its time.
CALLS = {"packets": 6, "burst": 60}
#: Between two packets: the reader has read by then, so an event is a packet and a wake-up.
PACE_S = 0.0003
KEY = "sk-bench"


def serve(told: multiprocessing.connection.Connection, events: list[bytes], content_type: str, *, paced: bool) -> None:
    """The server's process: answers every request with the stream."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await _request(reader)
                if not paced:
                    writer.write(head + b"".join(chunks) + b"0\r\n\r\n")
                    continue
                writer.write(head)
                for chunk in chunks:
                    await asyncio.sleep(PACE_S)
                    writer.write(chunk)
                writer.write(b"0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def _request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)


async def measure(vendor: Vendor, base_url: str, words: int, calls: int, rounds: int) -> list[dict[str, float]]:
    """-> CPU milliseconds a call of each round, {ours, bare, bytes}."""
    dialect = vendor.dialect(base_url)
    request = ChatRequest(vendor.model, (ChatMessage("system", "Be kind."), ChatMessage("user", "Tell me a story.")))
    provider = HttpProvider("bench", dialect, KEY)
    url, body = dialect.url(request), dialect.body(request)
    headers = {"Content-Type": "application/json", **dialect.headers(KEY, url, body)}

    async def ours() -> None:
        text, ended = 0, False
        async for event in provider.chat(request):
            if isinstance(event, TextDelta):
                text += len(event.text)
            ended = isinstance(event, Finished)
        assert ended
        assert text == len(WORD) * words

    async with aiohttp.ClientSession() as session:

        async def reads() -> None:
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == 200
                assert len(await bare.read(vendor.kind, response)) == len(WORD) * words

        async def takes_bytes() -> None:
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == 200
                async for _ in response.content.iter_any():
                    pass

        ways: dict[str, Callable[[], Awaitable[None]]] = {"ours": ours, "bare": reads, "bytes": takes_bytes}
        found: list[dict[str, float]] = []
        for number in range(rounds + 1):
            spent = {name: await _cpu_ms(ways[name], calls) for name in ((*ways,) if number % 2 else (*reversed(ways),))}
            if number:  # the first warms both up
                found.append(spent)
    await provider.close()
    return found


async def _cpu_ms(call: Callable[[], Awaitable[None]], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - began) * 1000 / calls


def compared(vendor: Vendor, way: str, words: int, rounds: int) -> dict[str, Any]:
    """One vendor's stream, written in one way."""
    events = vendor.fake.stream(Says(WORD * words, piece=len(WORD)))
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, events, vendor.fake.content_type), kwargs={"paced": way == "packets"}
    )
    server.start()
    try:
        base_url = f"http://127.0.0.1:{here.recv()}{vendor.path}"
        found = asyncio.run(measure(vendor, base_url, words, CALLS[way], rounds))
    finally:
        server.terminate()
        server.join()
    ratios = {way: [spent["ours"] / spent[way] for spent in found] for way in ("bare", "bytes")}
    return {
        "vendor": vendor.kind,
        "way": way,
        "cpu_ms_per_call": {name: round(median([spent[name] for spent in found]), 3) for name in ("ours", "bare", "bytes")},
        "ratios": [round(one, 3) for one in ratios["bare"]],
        "ratio": round(median(ratios["bare"]), 3),
        "ratio_to_bytes": round(median(ratios["bytes"]), 3),
    }


def main() -> int:
    """Prints a line per vendor and way, and at the end the worst ratio; -> 1 if it is above the target."""
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description=__doc__)
    parser.add_argument("--vendors", nargs="+", choices=[vendor.kind for vendor in VENDORS], help="only these")
    parser.add_argument("--ways", nargs="+", choices=[*CALLS], default=[*CALLS], help="only these")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--words", type=int, default=200, help="events of one answer")
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="talon-calls-") as directory:
        result: dict[str, Any] = {
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "commit": machine.commit(),
            "machine": machine.describe(Path(directory)),
            "words": given.words,
            "rounds": given.rounds,
            "calls": CALLS,
            "target": RATIO_MAX,
        }
    found: list[dict[str, Any]] = []
    for vendor in VENDORS:
        for way in given.ways if vendor.kind in (given.vendors or vendor.kind) else ():
            one = compared(vendor, way, given.words, given.rounds)
            found.append(one)
            cpu = one["cpu_ms_per_call"]
            print(
                f"{vendor.kind:18} {way:8} {cpu['ours']:7.2f} ms  bare {cpu['bare']:7.2f} ms  x {one['ratio']:.2f}"
                f"  (bytes alone {cpu['bytes']:7.2f} ms  x {one['ratio_to_bytes']:.2f})",
                flush=True,
            )
    result |= {"worst": max(one["ratio"] for one in found), "streams": found}
    print(f"worst ratio: {result['worst']:.2f}; target {RATIO_MAX}")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    return int(result["worst"] > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
