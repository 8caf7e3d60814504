"""aimock, an independent model server: installed from a lockfile into a directory that is kept, started once per test process.

Where it cannot be had the tests that need it say so and are skipped; with CI=true they fail.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "aimock"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
INSTALL_S, START_S = 120, 20


class Missing(Exception):
    """Why there is no server; for people."""


class Aimock:
    """A running server; `url` has no path."""

    def __init__(self, url: str) -> None:
        self.url = url


def install() -> Path:
    """The program, installed if it is not. Raises `Missing`."""
    lock = (HERE / "package-lock.json").read_bytes()
    place = CACHE / f"aimock-{hashlib.sha256(lock).hexdigest()[:12]}"
    program = place / "node_modules" / "@copilotkit" / "aimock" / "dist" / "aimock-cli.js"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("the provider tests against an independent server need node and npm (Node 20.15 or later)")
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "aimock.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one of the test processes installs, the others wait for it
        if (place / "installed").exists():
            return program
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            raise Missing(f"aimock could not be installed within {INSTALL_S} s: `npm ci` in {place}") from None
        if done.returncode != 0:
            raise Missing(f"aimock could not be installed: `npm ci` said {done.stderr.strip()[-300:]}")
        (place / "installed").touch()
    return program


def serve() -> Generator[Aimock]:
    """The server, until the generator is closed. Raises `Missing`."""
    program = install()
    with tempfile.TemporaryDirectory() as directory:
        # It cuts texts between UTF-16 units: with 5, no character of the fixtures is cut in two (as JSON cannot say the halves).
        config = Path(directory) / "config.json"
        config.write_text(json.dumps({"llm": {"fixtures": str(HERE / "fixtures.json"), "chunkSize": 5, "logLevel": "silent"}}))
        command = ["node", str(program), "--config", str(config), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield Aimock(_address(process))
        finally:
            process.terminate()
            process.wait(timeout=10)
            if process.stdout is not None:
                process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_S):
            raise Missing(f"aimock did not start within {START_S} s")
    line = process.stdout.readline().strip()
    if "listening on " not in line:
        raise Missing(f"aimock did not start: {line}")
    return line.rpartition("listening on ")[2]


@pytest.fixture(scope="session")
def aimock() -> Iterator[Aimock]:
    """The one server of this test process."""
    server = serve()
    try:
        started = next(server)
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {missing}", pytrace=False)
        pytest.skip(str(missing))
    yield started
    server.close()
