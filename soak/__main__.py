"""`python -m soak [--store sqlite|pg] [--minutes 30] [--out FILE] [--seed N] [--negative no_fence|ack_first]`: `make soak`.

Progress on stderr, the result as JSON on stdout and in FILE. Exit code 0: every promise was kept; 1: one was broken; 2: wrong use.
`tests` has to be on the path (`PYTHONPATH=tests`): the PostgreSQL that is started is that of the tests.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from soak.negative import MODES
from soak.run import Options, soak
from support.program import in_order, tell


def main() -> int:
    """-> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak", description="Hurts Talon at random and looks for broken promises.")
    parser.add_argument("--store", choices=("sqlite", "pg"), default="sqlite")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one; it is printed")
    parser.add_argument("--negative", choices=("", *MODES), default="", help="take a promise out of Talon: must fail")
    parser.add_argument("--lanes", type=int, default=16, help="sessions at once")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that passed")
    given = parser.parse_args()
    options = Options(given.store, given.minutes, given.seed or secrets.randbits(32), given.negative, given.lanes, given.keep)
    result = in_order(soak(options))
    tell(result, given.out)
    print("PASSED" if result["passed"] else "FAILED", file=sys.stderr)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
