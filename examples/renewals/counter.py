"""A tiny service outside of Talon that counts what the tools of the example did.

    python counter.py [--port 0] [--state FILE]

`POST /effects {key, tool, effect, subject, session}` is one delivery. A key that was seen before is honoured: it is counted as a
delivery and is no new effect. `GET /effects` tells of each effect (what tool did for what subject in what session) how
often it **happened** (under how many different keys) and how often it was **delivered**. So a runtime that does something twice
under two keys is found out, one that repeats itself under the same key is not.

The first line on stdout ends with the address. Deliveries are appended to FILE, one JSON document a line, before they are answered;
without FILE they live as long as the process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FIELDS = ("key", "tool", "effect", "subject", "session")
BODY_MAX = 65_536


class Counter:
    """The deliveries, in memory and (with `state`) in a file."""

    def __init__(self, state: Path | None) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._deliveries: list[dict[str, str]] = []
        if state is not None and state.exists():
            text = state.read_text()
            whole = text[: text.rfind("\n") + 1]  # a line that a crash cut short was never answered
            os.truncate(state, len(whole.encode()))
            self._deliveries = [json.loads(line) for line in whole.splitlines()]

    def deliver(self, told: dict[str, str]) -> bool:
        """Count one delivery, durably. -> whether its key is new."""
        with self._lock:
            if self._state is not None:
                with self._state.open("a") as file:
                    file.write(json.dumps(told) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            new = all(told["key"] != earlier["key"] for earlier in self._deliveries)
            self._deliveries.append(told)
            return new

    def effects(self) -> list[dict[str, Any]]:
        """One row an effect, in the order in which they first happened."""
        with self._lock:
            return summary(self._deliveries)


def summary(deliveries: Iterable[dict[str, str]]) -> list[dict[str, Any]]:
    """Deliveries by effect: its distinct keys are how often it happened."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for told in deliveries:
        rows.setdefault((told["tool"], told["effect"], told["subject"], told["session"]), []).append(told["key"])
    return [
        {
            **dict(zip(("tool", "effect", "subject", "session"), what, strict=True)),
            "key": keys[0],
            "happened": len(set(keys)),
            "delivered": len(keys),
        }
        for what, keys in rows.items()
    ]


class Handler(BaseHTTPRequestHandler):
    """`POST /effects` and `GET /effects`."""

    counter: Counter
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if self.path != "/effects":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no such path: {self.path}"})
            return
        self._answer(HTTPStatus.OK, {"effects": self.counter.effects()})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, {"error": f"a body of at most {BODY_MAX} bytes with its Content-Length, please"})
            return
        body = self.rfile.read(int(length))
        if self.path != "/effects":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no such path: {self.path}"})
            return
        try:
            told = json.loads(body)
            delivery = {field: told[field] for field in FIELDS}
        except (ValueError, KeyError, TypeError):
            delivery = {}
        if not delivery or not all(isinstance(value, str) and value for value in delivery.values()):
            self._answer(HTTPStatus.BAD_REQUEST, {"error": f"a JSON object with the texts {', '.join(FIELDS)}, please"})
            return
        self._answer(HTTPStatus.OK, {"new": self.counter.deliver(delivery)})

    def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        print(format % args, file=sys.stderr, flush=True)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Counts the effects of the example's tools.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    parser.add_argument("--state", type=Path, help="file that keeps the deliveries")
    options = parser.parse_args()
    Handler.counter = Counter(options.state)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"counter ready http://127.0.0.1:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
