"""Programs of others that some tests need. Where one cannot be had these tests are skipped, and with CI=true they fail."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache"
INSTALL_S = 120
T = TypeVar("T")


class Missing(Exception):
    """Why it cannot be had; for people."""


def installed(name: str, versions: bytes, install: Callable[[Path], None]) -> Path:
    """The directory that `install` has filled, now or before, for these `versions`; it raises `Missing`."""
    place = CACHE / f"{name}-{hashlib.sha256(versions).hexdigest()[:12]}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one of the test processes installs, the others wait for it
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            install(place)
            (place / "installed").touch()
    return place


def command(what: str, *words: str, cwd: Path | None = None) -> None:
    """Run one command of the installation of `what`. Raises `Missing`."""
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        raise Missing(f"{what} could not be installed: {error}") from None
    if done.returncode != 0:
        raise Missing(f"{what} could not be installed: {' '.join(words[:2])} said {done.stderr.strip()[-300:]}")


def or_skip(running: Generator[T]) -> Generator[T]:
    """What `running` yields, for a fixture: it raises `Missing` before, if at all."""
    try:
        found = next(running)
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {missing}", pytrace=False)
        pytest.skip(str(missing))
    yield found
    next(running, None)  # to its end, and what it looks at there
