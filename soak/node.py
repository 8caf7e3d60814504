"""One process that others may hurt: a `talon` of any role, or a service beside it. It keeps its port over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
READY_S = 60.0
_BOOT = re.compile(r"worker ([a-z0-9-]+/[0-9a-f-]{36}) ")


class NotStarted(Exception):
    """The process ended, or said something else, instead of being ready."""


@dataclass
class Node:
    """A process whose first line on stdout ends with its address. `command` may hold `{port}`: 0 at the first start, then the
    one that it got."""

    name: str
    command: Sequence[str]
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int = 0
    state: str = "down"  # down | up | paused
    ready_s: float = 0.0  # how long the last start took
    url: str = ""
    process: asyncio.subprocess.Process | None = None
    boots: set[str] = field(default_factory=set[str])  # workers (name/boot) that ended with a SIGKILL of ours
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by whoever is doing something to it
    _log_from: int = 0

    @property
    def log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    def tail(self, size: int = 3000) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process exists, stopped or not."""
        return self.process is not None and self.process.returncode is None

    async def start(self, timeout_s: float = READY_S) -> float:
        """Start, and wait for the ready line; -> the Unix time when it came. Raises `NotStarted`."""
        began = time.monotonic()
        command = [sys.executable, *(word.format(port=self.port) for word in self.command)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TALON_", "OPENAI_", "DATABASE_URL"))}
        with self.log_path.open("ab") as log:
            self._log_from = log.tell()
            self.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.directory,
                env={**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **self.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = ""
        with contextlib.suppress(TimeoutError):
            line = (await asyncio.wait_for(self.process.stdout.readline(), timeout_s)).decode().strip()
        at = time.time()
        url = line.rpartition(" ")[2]
        if not url.startswith("http://"):
            await self.kill()
            raise NotStarted(f"{self.name} did not start: {line!r}\n{self.tail()}")
        self.url, self.port, self.state = url, urlsplit(url).port or 0, "up"
        self.ready_s = time.monotonic() - began
        return at

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.state != "down":
            self.boots |= set(self.current_boots()[-1:])
        self.state = "down"
        if self.process is not None and self.alive:
            self._signal(signal.SIGKILL)
            await self.process.wait()

    async def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; -> the exit code. Raises `TimeoutError` when it does not end by itself; then it is killed."""
        self.state = "down"
        if self.process is None:
            return 0
        if self.alive:
            self._signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            await self.kill()
            raise

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)
        self.state = "paused"

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.state = "up"

    def _signal(self, number: signal.Signals) -> None:
        # Not `Process.send_signal`: it looks whether the process has ended, and so takes its exit code from whoever waits for it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def current_boots(self) -> list[str]:
        """The workers (name/boot) that this life of the process has been, from its log."""
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as log:
            log.seek(self._log_from)
            return _BOOT.findall(log.read().decode(errors="replace"))
