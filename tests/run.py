"""`make test`: lint, types, import contracts, every test. One line per step; stops at nothing, fails if anything failed.

tests/run.py              all of it
tests/run.py PYTEST-ARGS  only pytest, with these arguments
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WORKERS = str(min(4, os.cpu_count() or 1))
STEPS: tuple[tuple[str, list[str]], ...] = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("imports", ["lint-imports", "--no-cache"]),
    ("types", ["pyright"]),
)
#: Without a window to the world, tools must not look for newer versions of themselves.
QUIET = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONDONTWRITEBYTECODE": ""}


def run(name: str, command: list[str]) -> bool:
    """Run one step; its output is shown when it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env={**os.environ, **QUIET, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {name} ({time.monotonic() - started:.1f} s)", flush=True)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return done.returncode == 0


def install_browser() -> None:
    """As root on Debian, the browser that the page's test needs; elsewhere that test says why it is skipped."""
    if shutil.which("chromium") or shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]):
        if subprocess.run(command, env=env, capture_output=True, timeout=600, check=False).returncode != 0:
            print(f"FAILED {' '.join(command)}: the page's test will not run", flush=True)
            return
    print("ok     chromium installed", flush=True)


def pytest(arguments: list[str]) -> bool:
    """All tests, or what the arguments choose; -> whether they passed."""
    command = [sys.executable, "-m", "pytest", *(arguments or ["-q", "-n", WORKERS, "--dist", "worksteal"])]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """-> the exit code."""
    arguments = sys.argv[1:]
    if arguments:
        return 0 if pytest(arguments) else 1
    install_browser()
    passed = [run(name, command) for name, command in STEPS]
    passed.append(pytest([]))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
