"""`python -m bench.counted FILE up …`: Talon's command line, with the steps of every SQLite machine in it counted in FILE.

FILE holds one number of 64 bits for each connection; who maps it too reads them while the program runs. Counting costs CPU.
"""

from __future__ import annotations

import itertools
import mmap
import runpy
import sqlite3
import sys
from pathlib import Path
from typing import Any

#: More connections than a store has lanes.
CONNECTIONS_MAX = 64
SIZE_BYTES = 8 * CONNECTIONS_MAX


class Steps:
    """The numbers in a file, read."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(SIZE_BYTES))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), SIZE_BYTES)).cast("Q")

    def total(self) -> int:
        """The steps of all connections so far."""
        return sum(self._numbers)


def main() -> None:
    """Take FILE out of the arguments, count, and be `python -m talon`."""
    with Path(sys.argv.pop(1)).open("r+b") as file:
        numbers = memoryview(mmap.mmap(file.fileno(), SIZE_BYTES)).cast("Q")
    connect, places = sqlite3.connect, itertools.count()

    def counting(*args: Any, **settings: Any) -> sqlite3.Connection:
        connection, place = connect(*args, **settings), next(places)

        def step() -> int:
            numbers[place] += 1  # one thread at a time uses a connection
            return 0

        connection.set_progress_handler(step, 1)
        return connection

    sqlite3.connect = counting
    runpy.run_module("talon", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
