"""The lock on the data directory: on SQLite exactly one process owns everything in it (K8)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from talon.domain.errors import Unavailable


class DataLock:
    """An exclusive lock on a file beside the database. The system drops it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock at once. Raises `Unavailable` that names the process which has it."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unavailable("database_unavailable", f"the lock {path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise Unavailable(
                "database_unavailable",
                f"{who} already runs on the data directory {path.parent}; stop it, choose another --data-dir, "
                "or use PostgreSQL for several processes",
            ) from error
        # Not truncated first: who asks in between must find a whole number.
        os.pwrite(self._file, f"{os.getpid():<31}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock up. The file stays: removing it could take it from under the next owner."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1
