"""`python -m fuzz.crowd [--store sqlite|pg] [--seconds 60] [--seed N] [--out FILE]`: `make crowd`.

Twenty writers and twenty watchers at once, a gateway killed in the middle: every watcher must end with exactly what the
store has, having been told each version once and in order. The result as JSON on stdout and in FILE; exit code 0 if it was so.
`tests` has to be on the path (`PYTHONPATH=tests`).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.crowd import embedded, spread, watched
from support.postgres import running_server
from support.program import tell


def main() -> int:
    """-> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.crowd", description="Many write, many watch, a gateway dies.")
    parser.add_argument("--store", choices=("sqlite", "pg"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is printed")
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    seed = given.seed or secrets.randbits(31)
    started = time.monotonic()
    report, failure = _run(given.store, seed, given.seconds)
    result = {
        **{"store": given.store, "seed": seed, "writers": 20, "watchers": 20, "seconds": given.seconds},
        **{"took_s": round(time.monotonic() - started, 1), **report, "passed": not failure, "failure": failure},
    }
    tell(result, given.out)
    return 0 if not failure else 1


def _run(store: str, seed: int, seconds: float) -> tuple[dict[str, Any], str]:
    with tempfile.TemporaryDirectory(prefix="talon-crowd-") as name:
        try:
            if store == "sqlite":
                return asyncio.run(watched(embedded(Path(name), None), seed, seconds)), ""
            with running_server() as server:
                return asyncio.run(watched(spread(Path(name), server), seed, seconds)), ""
        except AssertionError as error:
            return {}, str(error)


if __name__ == "__main__":
    sys.exit(main())
