"""`python -m talon.providers.scripted FILE [--host 127.0.0.1] [--port 0] [--api-key KEY]`: the fake model as a server.

The first line on standard output says that it is ready and where; SIGTERM or Ctrl-C ends it. Exit code 2: wrong use or script.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from talon.domain.errors import TalonError
from talon.providers.scripted.script import Script
from talon.providers.scripted.server import ScriptedServer


def main(arguments: list[str] | None = None) -> int:
    """Run the server; -> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m talon.providers.scripted", description="A fake model that follows a script.")
    parser.add_argument("file", help="the script: YAML, or a Python file with answer(conversation)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks one")
    parser.add_argument("--api-key", default="", help="refuse calls that do not carry it")
    options = parser.parse_args(arguments)
    try:
        server = ScriptedServer(Script.load(options.file), host=options.host, port=options.port, api_key=options.api_key)
        asyncio.run(_serve(server))
    except TalonError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{options.host}:{options.port} cannot be served: {error.strerror}\n")
        return 1
    return 0


async def _serve(server: ScriptedServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        sys.stdout.write(f"scripted model server ready {server.base_url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
