"""A process of the bench: started, ready with its address, ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

READY_S = 60.0


class NotReady(Exception):
    """A process ended, or said nothing, instead of being ready; the message has the end of its log."""


class Node:
    """One process whose first line on stdout ends with its address. Its stderr goes to a file."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
        self._name, self._log = name, directory / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TALON_", "OPENAI_", "DATABASE_URL"))}
        self.began_s = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=directory, env={**kept, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self.url = self._ready()
        self.ready_s = time.monotonic()

    def _ready(self) -> str:
        assert self._process.stdout is not None
        found, _, _ = select.select([self._process.stdout], [], [], READY_S)
        line = self._process.stdout.readline().decode().strip() if found else ""
        url = line.rpartition(" ")[2]
        if not url.startswith("http://"):
            self.kill()
            raise NotReady(f"{self._name} did not start: {line!r}\n{self._log.read_text(errors='replace')[-3000:]}")
        return url

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def stop(self, timeout_s: float = 20.0) -> None:
        """SIGTERM, and wait; SIGKILL for what does not end."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
