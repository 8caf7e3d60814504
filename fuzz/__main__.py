"""`python -m fuzz [--cases 100000] [--store sqlite|pg] [--auth none|api_key] [--seed N] [--out FILE]`: `make fuzz`.

Boots Talon and holds it against its own document, run after run with a new seed, until so many requests were made. Under `api_key`
each role has its turn, and nobody: a fresh key each time, since a run may well end the key that it has. Progress on stderr, the
result as JSON on stdout and in FILE, also of a run that Ctrl-C or SIGTERM ends. Exit code 0: nothing was found; 1: something was.
`tests` has to be on the path (`PYTHONPATH=tests`): the product and the PostgreSQL that are started are those of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz.roles import ASKING, key
from fuzz.run import Outcome, run
from support.planted import VAULT_KEY
from support.postgres import running_server
from support.product import Product
from support.program import in_order, tell
from talon.access.roles import ROLES

_ROUND_S = 120
_EXAMPLES = 50


def main() -> int:
    """-> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Requests that nobody thought of, against the document.")
    parser.add_argument("--cases", type=int, default=100_000, help="so many requests at least")
    parser.add_argument("--store", choices=("sqlite", "pg"), default="sqlite")
    parser.add_argument("--auth", choices=("none", "api_key"), default="none")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is printed")
    parser.add_argument("--round", type=float, default=_ROUND_S, help="seconds of one run")
    parser.add_argument("--workers", type=int, default=max(1, min(4, (os.cpu_count() or 2) - 1)), help="requests at once")
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    seed = given.seed or secrets.randbits(31)
    result = in_order(_fuzz(given, seed))
    tell(result, given.out)
    return 0 if result["passed"] else 1


async def _fuzz(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    total, started, rounds = Outcome(), time.monotonic(), 0
    by_role: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="talon-fuzz-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        (directory / "st").mkdir()
        env: dict[str, str] = {} if given.auth == "none" else ASKING
        if given.store == "pg":
            server = stack.enter_context(running_server())
            database = server.create_database()
            stack.callback(server.drop_database, database)
            env = {**env, "DATABASE_URL": database, "TALON_SECRETS_KEY": VAULT_KEY}
        async with Product(directory / "up", args=("--data-dir", str(directory / "data")), env=env) as up:
            # Ctrl-C and SIGTERM end it early: what was found until then is told.
            with contextlib.suppress(asyncio.CancelledError):
                while total.cases < given.cases:
                    role = "everybody" if given.auth == "none" else (*ROLES, "nobody")[rounds % (len(ROLES) + 1)]
                    outcome = await run(
                        up.url,
                        directory / "st",
                        seed=seed + rounds,
                        examples=_EXAMPLES,
                        seconds=given.round,
                        workers=given.workers,
                        authorization=f"Bearer {await key(up.url, role)}" if role in ROLES else "",
                    )
                    rounds += 1
                    total.add(outcome)
                    by_role[role] += outcome.cases
                    print(f"{total.cases} requests, {total.failures.total()} failures ({role})", file=sys.stderr)
                    if outcome.cases == 0:
                        raise AssertionError(f"no request was made\n{outcome.shown}")
            traces = up.log.count("Traceback")
    if total.failures:
        print(total.shown, file=sys.stderr)
    return {
        "store": given.store,
        "auth": given.auth,
        "seed": seed,
        "rounds": rounds,
        "requests": total.cases,
        "complete": total.cases >= given.cases,
        "requests_by_role": dict(by_role),
        "operations": total.operations,
        "seconds": round(time.monotonic() - started, 1),
        "failures": dict(total.failures),
        "tracebacks": traces,
        "passed": not total.failures and not traces,
    }


if __name__ == "__main__":
    sys.exit(main())
