"""`python -m fuzz [--cases 100000] [--store sqlite|pg] [--seed N] [--out FILE]`: `make fuzz`.

Boots Talon and holds it against its own document, run after run with a new seed, until so many requests were made. Progress on
stderr, the result as JSON on stdout and in FILE. Exit code 0: nothing was found; 1: something was. `tests` has to be on the path
(`PYTHONPATH=tests`): the product and the PostgreSQL that are started are those of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz.run import Outcome, run
from support.postgres import running_server
from support.product import Product

_ROUND_S = 120
_EXAMPLES = 50


def main() -> int:
    """-> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Requests that nobody thought of, against the document.")
    parser.add_argument("--cases", type=int, default=100_000, help="so many requests at least")
    parser.add_argument("--store", choices=("sqlite", "pg"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is printed")
    parser.add_argument("--workers", type=int, default=max(1, min(4, (os.cpu_count() or 2) - 1)), help="requests at once")
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    seed = given.seed or secrets.randbits(31)
    try:
        result = asyncio.run(_fuzz(given.store, given.cases, seed, given.workers))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("given up; nothing that was started is left", file=sys.stderr)
        return 130
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return 0 if result["passed"] else 1


async def _fuzz(store: str, cases: int, seed: int, workers: int) -> dict[str, Any]:
    """SIGTERM ends it as Ctrl-C does: in order, so that no process stays behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    total, started, rounds = Outcome(), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="talon-fuzz-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        (directory / "st").mkdir()
        env: dict[str, str] = {}
        if store == "pg":
            database = stack.enter_context(running_server()).create_database()
            env = {"DATABASE_URL": database, "TALON_SECRETS_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}
        async with Product(directory / "up", args=("--data-dir", str(directory / "data")), env=env) as up:
            while total.cases < cases:
                outcome = await run(
                    up.url, directory / "st", seed=seed + rounds, examples=_EXAMPLES, seconds=_ROUND_S, workers=workers
                )
                rounds += 1
                total.add(outcome)
                print(f"{total.cases} requests, {total.failures.total()} failures", file=sys.stderr)
                if outcome.cases == 0:
                    raise AssertionError(f"no request was made\n{outcome.shown}")
            traces = up.log.count("Traceback")
    if total.failures:
        print(total.shown, file=sys.stderr)
    return {
        "store": store,
        "seed": seed,
        "rounds": rounds,
        "requests": total.cases,
        "operations": total.operations,
        "seconds": round(time.monotonic() - started, 1),
        "failures": dict(total.failures),
        "tracebacks": traces,
        "passed": not total.failures and not traces,
    }


if __name__ == "__main__":
    sys.exit(main())
