"""The booted product: a real `talon` process, its port and its database, driven from outside."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from support import planted
from support.sse import Parser
from talon.cli.sources import VENDOR_ENV

READY_S = 30.0
ENDS = ("turn.completed", "turn.failed", "turn.cancelled", "turn.denied")


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of Talon, and `more`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TALON_", "DATABASE_URL", *VENDOR_ENV))}
    return {**env, **more}


@dataclass
class Product:
    """One `talon up|gateway|worker`. `log` is its stderr, kept in a file beside its data. `wrapper` is a command that ends by
    executing its arguments: the process under it. `said` is what it wrote to stdout.

    It is started with secrets planted (`support.planted`), and however it ends, what it leaves is searched for them.
    """

    directory: Path
    role: str = "up"
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    wrapper: Sequence[str] = ()
    url: str = ""
    process: asyncio.subprocess.Process | None = None
    grpc_address: str = ""
    said: bytes = b""
    _searched: bool = True

    async def start(self) -> Self:
        """Start it and wait for its ready line."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*self.wrapper, sys.executable, "-m", "talon", self.role, "--port", "0", *self.args),
                cwd=self.directory,
                env=clean_environment(planted.environment(self.env)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._searched = False
        try:
            line = await self._line()
            assert line.startswith("talon ready http"), f"talon {self.role} did not start: {line!r}\n{self.log}"
        except BaseException:  # also who was cancelled, or waited in vain, leaves no process behind
            await self.kill()
            raise
        self.url = line.removeprefix("talon ready ")
        self.grpc_address = ""
        return self

    async def grpc(self) -> str:
        """HOST:PORT of its gRPC server, which it prints behind the ready line."""
        if not self.grpc_address:
            line = await self._line()
            assert line.startswith("talon grpc "), f"{line!r}\n{self.log}"
            self.grpc_address = line.removeprefix("talon grpc ")
        return self.grpc_address

    async def _line(self) -> str:
        """The next one of its stdout."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), READY_S)
        self.said += line
        return line.decode().strip()

    @property
    def log_path(self) -> Path:
        """Where its stderr goes."""
        name = dict(zip(self.args, self.args[1:], strict=False)).get("--name", "")
        return self.directory / f"{self.role}{name}.log"

    @property
    def log(self) -> str:
        """Its stderr so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        """SIGKILL: no goodbye."""
        await self._end(signal.SIGKILL, 10)

    async def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; -> its exit code."""
        return await self._end(signal.SIGTERM, timeout_s)

    async def _end(self, number: signal.Signals, timeout_s: float) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"talon {self.role} did not end within {timeout_s} s\n{self.log}") from None
        await self._search()
        return code

    async def _search(self) -> None:
        """For what was planted, in all that it wrote; once for each of its lives."""
        assert self.process is not None
        assert self.process.stdout is not None
        if self._searched:
            return
        self._searched = True
        self.said += await asyncio.wait_for(self.process.stdout.read(), READY_S)
        named = dict(zip(self.args, self.args[1:], strict=False)).get("--data-dir", "talon-data")
        planted.search(f"talon {self.role}", self.said, (self.directory, self.directory / named), (self.url,))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        if self.process is None:
            return
        if self.process.returncode is None:
            await self.kill()
        else:
            await self._search()


class Api:
    """A plain HTTP client of the pinned surface (design: the API page), one aiohttp session; with a `key` that it shows, if any.
    Its headers have planted secrets, which no answer may say back."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        shown = planted.headers(f"Bearer {key}" if key else "")
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), headers=shown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, expect: int | None = None
    ) -> tuple[int, Any]:
        """-> (status, JSON body or text). `body`: str and bytes go as they are, anything else as JSON."""
        raw = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        kind = {} if isinstance(body, str | bytes) or body is None else {"Content-Type": "application/json"}
        data = io.BytesIO(raw.encode() if isinstance(raw, str) else raw) if raw else raw  # aiohttp warns of large texts
        async with self._http.request(method, self.url + path, data=data, headers={**kind, **(headers or {})}) as answer:
            text = await answer.text()
            parsed = json.loads(text) if "json" in answer.headers.get("Content-Type", "") and text else text
            planted.answered(self.url, f"{method} {path}", text, answer.raw_headers, parsed)
            if expect is not None:
                assert answer.status == expect, f"{method} {path}: {answer.status} {text[:2000]}"
            return answer.status, parsed

    async def get(self, path: str) -> Any:
        """A GET that must succeed; -> its JSON."""
        return (await self.call("GET", path, expect=200))[1]

    async def apply(self, yaml: str) -> Any:
        """Apply manifests that must be accepted."""
        return (await self.call("POST", "/v1/apply", yaml, headers={"Content-Type": "application/yaml"}, expect=200))[1]

    async def agent(
        self,
        name: str,
        *models: Mapping[str, Any],
        namespace: str = "default",
        policy: Mapping[str, Any] | None = None,
        **definition: Any,
    ) -> str:
        """Apply an agent whose profiles p0, p1, … have these models, none if there are none; `policy` says more. -> its name."""
        profiles = [{"name": f"p{number}", "model": model} for number, model in enumerate(models)]
        manifest: dict[str, Any] = {
            "apiVersion": "talon.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": name, "namespace": namespace},
            "definition": {"systemPrompt": "Be kind.", **definition},
        }
        if profiles:
            manifest["definition"]["modelPolicy"] = {"profiles": profiles, **(policy or {})}
        await self.apply(json.dumps(manifest))
        return name

    async def send(self, where: str, content: str | list[dict[str, Any]], *, key: str = "", **body: Any) -> Any:
        """Post a message that must be accepted to `ns/agent/session`; -> the receipt."""
        headers = {"Idempotency-Key": key} if key else {}
        path = f"{session_path(where)}/message?create=true"
        return (await self.call("POST", path, {"content": content, **body}, headers=headers, expect=202))[1]

    async def journal(self, where: str) -> list[dict[str, Any]]:
        """The whole journal, page by page."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.get(f"{session_path(where)}/journal?limit=500{'&cursor=' + cursor if cursor else ''}")
            items += page["items"]
            cursor = page["next_cursor"] or ""
            if not cursor:
                return items

    async def events(self, where: str, *, after: int | str | None = 0, turn: str = "") -> AsyncIterator[dict[str, Any]]:
        """Events of the stream from `after` on (None: from now); ends when the server ends it."""
        query = [f"after={after}"] if after is not None else []
        query += [f"turn={turn}"] if turn else []
        path = f"{self.url}{session_path(where)}/stream?{'&'.join(query)}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with self._http.get(path, timeout=timeout) as answer:
            assert answer.status == 200, await answer.text()
            parser = Parser()
            async for chunk in answer.content.iter_any():
                planted.nothing_in(f"the stream of {where}", chunk)
                for event in parser.feed(chunk):
                    yield {"id": event.id, **event.data}

    async def end_of(self, where: str, turn_id: str, timeout_s: float = 30) -> dict[str, Any]:
        """Wait for the turn's end entry."""
        async with asyncio.timeout(timeout_s):
            async for event in self.events(where, turn=turn_id):
                if event["type"] in ENDS and event["turn_id"] == turn_id:
                    return event
        raise AssertionError(f"the stream of turn {turn_id} ended without its end")


def session_path(where: str) -> str:
    """`ns/agent/session` -> its route."""
    namespace, agent, session = where.split("/")
    return f"/v1/ns/{namespace}/agents/{agent}/sessions/{session}"
