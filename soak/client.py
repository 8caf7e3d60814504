"""Requests as a careful client makes them: with an Idempotency-Key, repeated under the same key until they are answered."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Self

import aiohttp

from soak.report import Report

NAMESPACE, AGENT = "soak", "worker"
#: How long one request may take, and how long a client goes on trying.
REQUEST_S, PATIENCE_S = 8.0, 60.0
#: What a client tries again: nobody there, overloaded, broken.
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class NotAnswered(Exception):
    """No gateway answered within the client's patience."""


def session_path(session: str) -> str:
    """The route of a session."""
    return f"/v1/ns/{NAMESPACE}/agents/{AGENT}/sessions/{session}"


class Client:
    """Asks whichever of the gateways answers."""

    def __init__(self, urls: Callable[[], Sequence[str]], rng: random.Random, report: Report) -> None:
        self._urls, self._rng, self._report = urls, rng, report
        self.http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_S), connector=aiohttp.TCPConnector(limit=0, force_close=False)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    def url(self) -> str:
        """Some gateway's address."""
        return self._rng.choice(self._urls())

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = "", patience_s: float = PATIENCE_S
    ) -> tuple[int, Any]:
        """-> (status, JSON), once there is an answer that repeating would not change. Raises `NotAnswered`."""
        headers = {"Idempotency-Key": key} if key else {}
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + patience_s, 0.05
        while True:
            problem = ""
            try:
                async with self.http.request(method, self.url() + path, json=body, headers=headers) as answer:
                    text = await answer.text()
                    if answer.status == 500:
                        self._report.seen["answers 500"] += 1
                    if answer.status not in AGAIN:
                        return answer.status, json.loads(text) if text else None
                    problem = f"{answer.status} {text[:300]}"
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                problem = f"{type(error).__name__} {error}"
            self._report.seen["requests repeated"] += 1
            if loop.time() + pause_s > deadline:
                raise NotAnswered(f"{method} {path}: {problem}")
            await asyncio.sleep(pause_s * (0.5 + self._rng.random()))
            pause_s = min(1.0, pause_s * 2)

    async def get(self, path: str) -> Any:
        """A GET that must be answered with 200; -> its JSON. Raises `NotAnswered`."""
        status, body = await self.call("GET", path)
        if status != 200:
            raise NotAnswered(f"GET {path}: {status} {body}")
        return body

    async def pages(self, path: str) -> list[dict[str, Any]]:
        """Every item of a list."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.get(f"{path}?limit=500{'&cursor=' + cursor if cursor else ''}")
            items += page["items"]
            cursor = page["next_cursor"] or ""
            if not cursor:
                return items
