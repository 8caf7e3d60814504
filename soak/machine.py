"""What can be done to the machine itself: a disk that fills up, a clock that jumps. Both only where the system allows it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

DISK_MB = 256
_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


class SmallDisk:
    """A tmpfs of its own for one directory; `full` leaves no byte on it. Needs root and the right to mount."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        """Take what is left."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65_536)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(directory: Path) -> Generator[SmallDisk | None]:
    """The directory on a disk of `DISK_MB`; None where that is not allowed."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "talon-soak", str(directory)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(directory) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False)


class JumpingClock:
    """libfaketime over Talon's processes: their wall clock is off by what a file says, their monotonic clock is the machine's."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._file = directory / "clock"
        self._file.write_text("+0")
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, rng: random.Random) -> int:
        """-> the seconds by which the clock is off from now on, up to an hour to either side."""
        off = rng.choice((-3600, -60, -5, 0, 5, 60, 3600))
        self.set(off)
        return off

    def set(self, off_s: int) -> None:
        """The clock is off by so many seconds from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{off_s:+d}")
        fresh.rename(self._file)


def jumping_clock(directory: Path) -> JumpingClock | None:
    """None where libfaketime (Debian's package of that name) is not installed."""
    for pattern in _LIBRARIES:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return JumpingClock(found, directory)
    return None
