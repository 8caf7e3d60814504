"""The world outside, in a process of its own that nobody hurts: it takes effects and remembers every attempt.

    POST /effects {key, attempt, effect, subject, session}    200, or 409 for an attempt that a probe has closed
    POST /probe {key, attempt}                                -> {happened}; closes the attempts up to this one
    GET /keys?session=S    GET /keys?subject=S                 what was attempted there
    DELETE /keys?session=S                                    forget it

An `idempotent` effect honours its key: it happens once. Every other one happens as often as it is asked for.
The first line on stdout ends with the address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Key:
    """What happened under one key. `attempts` are the numbers of the attempts as they came, `refused` of them closed ones."""

    key: str
    effect: str
    subject: str
    session: str
    attempts: list[int] = field(default_factory=list[int])
    happened: int = 0
    refused: int = 0


class World:
    """All keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.closed: dict[str, int] = {}

    def act(self, told: dict[str, Any]) -> bool:
        """-> whether it was allowed."""
        key: str = told["key"]
        one = self.keys.setdefault(key, Key(key, told["effect"], told["subject"], told["session"]))
        one.attempts.append(told["attempt"])
        if told["attempt"] <= self.closed.get(key, 0):
            one.refused += 1
            return False
        if one.effect != "idempotent" or not one.happened:
            one.happened += 1
        return True

    def probe(self, key: str, attempt: int) -> bool:
        """-> whether it happened; if not, it will not happen by this attempt any more."""
        happened = key in self.keys and self.keys[key].happened > 0
        if not happened:
            self.closed[key] = max(attempt, self.closed.get(key, 0))
        return happened


def application(world: World) -> web.Application:
    """The routes."""

    async def effects(request: web.Request) -> web.Response:
        allowed = world.act(await request.json())
        return web.json_response({"allowed": allowed}, status=200 if allowed else 409)

    async def probe(request: web.Request) -> web.Response:
        asked = await request.json()
        return web.json_response({"happened": world.probe(asked["key"], asked["attempt"])})

    def chosen(request: web.Request) -> list[Key]:
        wanted = {name: request.query[name] for name in ("session", "subject") if name in request.query}
        return [one for one in world.keys.values() if all(getattr(one, name) == value for name, value in wanted.items())]

    async def keys(request: web.Request) -> web.Response:
        return web.json_response({"keys": [asdict(one) for one in chosen(request)]})

    async def forget(request: web.Request) -> web.Response:
        for one in chosen(request):
            del world.keys[one.key]
            world.closed.pop(one.key, None)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/effects", effects)
    app.router.add_post("/probe", probe)
    app.router.add_get("/keys", keys)
    app.router.add_delete("/keys", forget)
    return app


async def serve(port: int) -> None:
    """Until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(World()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"counter ready http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Counts what the soak's tools did.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))
