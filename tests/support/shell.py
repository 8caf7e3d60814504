"""`talon` commands as a user types them, against a booted product."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import planted
from support.product import clean_environment

END_S = 60.0


async def ended(process: asyncio.subprocess.Process, stdin: str = "") -> tuple[int, str, str]:
    """Wait for the end of a command -> (exit code, stdout, stderr); it is killed if it does not come."""
    try:
        out, errors = await asyncio.wait_for(process.communicate(stdin.encode()), END_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    assert "Traceback" not in errors.decode()
    planted.nothing_in("what a command wrote", out, errors)
    return process.returncode, out.decode(), errors.decode()


@dataclass
class Shell:
    """Runs commands in a directory and a namespace, against one server."""

    url: str
    cwd: Path
    namespace: str = "default"

    async def start(
        self, *args: str, terminal: int | None = None, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """A running command, on pipes or on a terminal."""
        pipe = asyncio.subprocess.PIPE if terminal is None else terminal
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "talon", *args),
            cwd=self.cwd,
            env=clean_environment(
                planted.of_commands({"TALON_SERVER": self.url, "TALON_NAMESPACE": self.namespace, **(env or {})})
            ),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )

    async def run(self, *args: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        """-> (exit code, stdout, stderr)."""
        return await ended(await self.start(*args, env=env), stdin)

    async def ok(self, *args: str, stdin: str = "", **env: str) -> str:
        """-> stdout of a command that must succeed."""
        code, out, errors = await self.run(*args, stdin=stdin, **env)
        assert code == 0, f"talon {' '.join(args)}\n{out}\n{errors}"
        return out

    async def data(self, *args: str) -> Any:
        """-> what `-o json` writes."""
        return json.loads(await self.ok(*args, "-o", "json"))

    def write(self, name: str, text: str) -> None:
        """A file in its directory."""
        (self.cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (self.cwd / name).write_text(text)


def free_port() -> int:
    """A port that was free a moment ago: for a server that must come back on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
