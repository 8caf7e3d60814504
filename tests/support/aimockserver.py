"""aimock, an independent model server: installed from a lockfile into a directory that is kept, started once per test process."""

from __future__ import annotations

import json
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support.outside import Missing, command, installed, or_skip

HERE = Path(__file__).resolve().parent / "aimock"
START_S = 20


class Aimock:
    """A running server; `url` has no path."""

    def __init__(self, url: str) -> None:
        self.url = url


def install() -> Path:
    """The program, installed if it is not. Raises `Missing`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("the provider tests against an independent server need node and npm (Node 20.15 or later)")

    def into(place: Path) -> None:
        place.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        command("aimock", "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=place)

    place = installed("aimock", (HERE / "package-lock.json").read_bytes(), into)
    return place / "node_modules" / "@copilotkit" / "aimock" / "dist" / "aimock-cli.js"


def serve() -> Generator[Aimock]:
    """The server, until the generator is closed. Raises `Missing`."""
    program = install()
    with tempfile.TemporaryDirectory() as directory:
        # It cuts texts between UTF-16 units: with 5, no character of the fixtures is cut in two (as JSON cannot say the halves).
        config = Path(directory) / "config.json"
        config.write_text(json.dumps({"llm": {"fixtures": str(HERE / "fixtures.json"), "chunkSize": 5, "logLevel": "silent"}}))
        words = ["node", str(program), "--config", str(config), "--port", "0"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
    yield from or_skip(serve())
