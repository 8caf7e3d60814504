"""The emulator of Cloud Tasks from PyPI, in an environment of its own that is kept: it needs an older protobuf than Talon."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from support.cloudtasks import PARENT
from support.outside import Missing, command, installed, or_skip

WANTED = Path(__file__).resolve().parent / "tasksemulator.txt"
START_S = 60
WHAT = "the emulator of Cloud Tasks"


def install() -> Path:
    """The Python of its environment, made if it is not there. Raises `Missing`."""

    def into(place: Path) -> None:
        uv = str(Path(sys.executable).with_name("uv"))
        command(WHAT, uv, "venv", "--quiet", "--python", sys.executable, str(place))
        command(WHAT, uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "-r", str(WANTED))

    return installed("tasks-emulator", WANTED.read_bytes(), into) / "bin" / "python"


def serve(queue: str) -> Generator[str]:
    """Its endpoint, until the generator is closed. Raises `Missing`."""
    program = install().with_name("gcloud-tasks-emulator")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        words = [str(program), "start", f"--port={port}", f"--default-queue={queue}"]
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            if not _listens(process, port):
                log.seek(0)
                raise Missing(f"{WHAT} did not start: {log.read().decode(errors='replace')[-300:]}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(timeout=10)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


class Looking:
    """A look into the emulator's queue."""

    def __init__(self, endpoint: str) -> None:
        client: Any = import_module("google.cloud.tasks_v2").CloudTasksAsyncClient
        self._channel = grpc.aio.insecure_channel(endpoint.removeprefix("http://"))
        self._client = client(transport=client.get_transport_class("grpc_asyncio")(channel=self._channel))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def waits(self, tasks: int) -> bool:
        """Whether at least so many tasks wait."""
        found = await self._client.list_tasks(parent=PARENT, timeout=5)
        return len([task async for task in found]) >= tasks


@pytest.fixture(scope="session")
def tasks_emulator() -> Iterator[str]:
    """The endpoint of the one emulator of this test process, with the queue that `support.cloudtasks` names."""
    yield from or_skip(serve(PARENT))
