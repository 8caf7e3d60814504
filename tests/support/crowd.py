"""Many writers and many watchers of resources at once: what each watcher was told must be the whole history, once and in order.

A watcher keeps what it is told as a client would, over lost connections and from gateway to gateway. It fails on a version that
comes twice or out of order, on an `added` of something that is there, and on a change of something that is not. In the end what it
has must be what the store has, and all watchers of a namespace together must have been told every version, without a gap.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from support.postgres import PostgresServer
from support.product import Product
from support.sse import Parser

LOST = (aiohttp.ClientError, TimeoutError, ConnectionError)
NAMESPACES = ("crowd", "crowd:eu")
#: Collections that take a small manifest without references.
BODIES: dict[str, dict[str, Any]] = {
    "templates": {"definition": {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "model", "name": "m"}}]}}},
    "knowledge": {"spec": {"documents": [{"name": "one", "content": "text"}]}},
    "secrets": {"spec": {"description": "none"}},
}
SELECTORS = {"tier=a": {"a"}, "tier in (a,b)": {"a", "b"}}
NAMES = 12
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=20)


@dataclass
class Crowd:
    """`urls` are the gateways that are up; a test changes the list while the crowd works."""

    urls: list[str]
    seed: int
    writes: int = 0
    refused: int = 0
    lost: int = 0
    watchers: list[Watcher] = field(default_factory=list["Watcher"])

    async def run(self, http: aiohttp.ClientSession, writers: int, watchers: int, seconds: float) -> None:
        """Write for `seconds`, with all watchers on; returns when each watcher has been told everything."""
        for namespace in NAMESPACES:
            await self.call(http, "POST", "/v1/namespaces", {"name": namespace})
        starts = {namespace: await self.listing(http, namespace, "templates") for namespace in NAMESPACES}
        places = [(namespace, plural) for namespace in NAMESPACES for plural in BODIES]
        for number in range(watchers):
            namespace, plural = places[number % len(places)]
            selector = ("", *SELECTORS)[number // len(places) % 3]
            version = int(starts[namespace][1])
            self.watchers.append(Watcher(self, number, namespace, plural, selector, version, version))
        watching = [asyncio.create_task(one.run(http)) for one in self.watchers]
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            await asyncio.gather(*(self._write(http, number, end) for number in range(writers)))
            for namespace in NAMESPACES:
                _, version = await self.listing(http, namespace, "templates")
                for one in self.watchers:
                    if one.namespace == namespace:
                        one.goal = int(version)
            done, late = await asyncio.wait(watching, timeout=60)
            assert not late, (
                f"watchers that were not told everything: {[one for one in self.watchers if one.place < (one.goal or 0)]}"
            )
            for task in done:
                task.result()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        await self._compare(http, {namespace: int(version) for namespace, (_, version) in starts.items()})

    def report(self) -> dict[str, Any]:
        """What happened, in numbers."""
        told = sum(len(one.told) for one in self.watchers)
        return {"writes": self.writes, "refused": self.refused, "connections_lost": self.lost, "changes_told": told}

    async def _compare(self, http: aiohttp.ClientSession, starts: dict[str, int]) -> None:
        for namespace in NAMESPACES:
            told: set[int] = set()
            for plural in BODIES:
                items, _ = await self.listing(http, namespace, plural)
                have = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}
                tiers = {item["metadata"]["name"]: item["metadata"]["labels"]["tier"] for item in items}
                for one in self.watchers:
                    if (one.namespace, one.plural) != (namespace, plural):
                        continue
                    wanted = SELECTORS.get(one.selector)
                    expected = {name: version for name, version in have.items() if wanted is None or tiers[name] in wanted}
                    assert one.known == expected, f"{one} has something else than the store"
                    told |= one.told
            newest = max((one.goal or 0) for one in self.watchers if one.namespace == namespace)
            missing = set(range(starts[namespace] + 1, newest + 1)) - told
            assert not missing, f"versions of {namespace} that nobody was told: {sorted(missing)[:20]}"

    async def _write(self, http: aiohttp.ClientSession, number: int, end: float) -> None:
        rng = random.Random(f"{self.seed} {number}")
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            namespace, plural = rng.choice(NAMESPACES), rng.choice(list(BODIES))
            path = f"/v1/ns/{namespace}/{plural}/n{rng.randrange(NAMES)}"
            labels = {"tier": rng.choice("abc"), "by": f"w{number}-{self.writes}"}
            what = rng.choices(("PUT", "PATCH", "DELETE"), (5, 3, 2))[0]
            body: Any = None
            if what == "PUT":
                body = {**BODIES[plural], "metadata": {"labels": labels}}
            elif what == "PATCH":
                body = {"metadata": {"labels": labels}}
            status = await self.call(http, what, path, body)
            assert status in (200, 201, 204, 404, 409), f"{what} {path}: {status}"
            self.writes += status < 300
            self.refused += status >= 300

    async def call(self, http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> int:
        """One request to some gateway, to another one if that is lost; -> the status."""
        for attempt in range(1_200):  # a minute: a killed gateway has to come back first
            url = self.urls[(len(path) + self.writes + attempt) % len(self.urls)]
            try:
                async with http.request(method, url + path, json=body, timeout=TIMEOUT) as answer:
                    if answer.status != 503:
                        return answer.status
            except LOST:
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"{method} {path}: no gateway answered")

    async def listing(self, http: aiohttp.ClientSession, namespace: str, plural: str) -> tuple[list[dict[str, Any]], str]:
        """All resources of a collection and the version of the list."""
        async with http.get(f"{self.urls[0]}/v1/ns/{namespace}/{plural}?limit=500") as answer:
            page = json.loads(await answer.text())
        assert answer.status == 200, page
        return page["items"], page["resource_version"]


@dataclass
class Watcher:
    """One client's watch. `known` is name -> version of what is there for it; `told` are the versions of changes."""

    crowd: Crowd = field(repr=False)
    number: int
    namespace: str
    plural: str
    selector: str
    start: int
    place: int
    goal: int | None = None
    known: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    told: set[int] = field(default_factory=set[int], repr=False)

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Watch until told everything up to `goal`, whatever happens to gateways."""
        turn = self.number
        while self.goal is None or self.place < self.goal:
            urls = self.crowd.urls
            try:
                await self._watch(http, urls[turn % len(urls)])
            except LOST:
                self.crowd.lost += 1
                await asyncio.sleep(0.05)
            turn += 1

    async def _watch(self, http: aiohttp.ClientSession, url: str) -> None:
        params = {
            "watch": "true",
            "resource_version": str(self.start),
            **({"label_selector": self.selector} if self.selector else {}),
        }
        headers = {"Last-Event-ID": str(self.place)} if self.place > self.start else {}
        route = f"{url}/v1/ns/{self.namespace}/{self.plural}"
        async with http.get(route, params=params, headers=headers, timeout=TIMEOUT) as answer:
            if answer.status == 503:
                await asyncio.sleep(0.05)
                return
            assert answer.status == 200, await answer.text()
            parser = Parser()
            async for chunk in answer.content.iter_any():
                for event in parser.feed(chunk):
                    self._take(event.type, int(event.id), event.data)
                if self.goal is not None and self.place >= self.goal:
                    return

    def _take(self, kind: str, version: int, data: dict[str, Any]) -> None:
        assert data["type"] == kind
        metadata = data["object"]["metadata"]
        assert metadata["resourceVersion"] == str(version)
        if kind == "bookmark":
            assert version >= self.place, f"{self}: a bookmark at {version}"
            self.place = version
            return
        assert version > self.place, f"{self}: version {version} came after {self.place}"
        self.place = version
        self.told.add(version)
        name = metadata["name"]
        if kind == "added":
            assert name not in self.known, f"{self}: {name} added at {version} is there already"
        else:
            assert name in self.known, f"{self}: {name} {kind} at {version} was not there"
        if kind == "deleted":
            del self.known[name]
        else:
            assert not self.selector or metadata["labels"]["tier"] in SELECTORS[self.selector]
            self.known[name] = metadata["resourceVersion"]


# --- where it happens --------------------------------------------------------------------------------------------------------

#: The gateways that are up, and what kills one of them and starts another.
Booted = tuple[list[str], Callable[[], Awaitable[None]]]
CONFIG = "gateway: {heartbeat_s: 0.5}\n"


async def watched(boot: contextlib.AbstractAsyncContextManager[Booted], seed: int, seconds: float) -> dict[str, Any]:
    """Twenty writers and twenty watchers for `seconds`, a gateway killed in the middle; -> what happened. Fails if any watcher was
    told something else than what was."""
    async with boot as (urls, kill):
        crowd = Crowd(urls, seed)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            running = asyncio.create_task(crowd.run(http, writers=20, watchers=20, seconds=seconds))
            await asyncio.wait({running}, timeout=seconds / 2)  # the middle: what is killed has clients of both kinds
            await kill()
            await running
        return crowd.report()


@contextlib.asynccontextmanager
async def embedded(directory: Path, _: PostgresServer | None) -> AsyncGenerator[Booted]:
    """`talon up` on SQLite, killed and started again."""
    (directory / "talon.yaml").write_text(CONFIG)
    up = Product(directory / "up", "up", ("--data-dir", str(directory / "data"), "--config", str(directory / "talon.yaml")))
    await up.start()
    urls = [up.url]

    async def kill() -> None:
        await up.kill()
        await up.start()
        urls[:] = [up.url]

    try:
        yield urls, kill
        assert "Traceback" not in up.log, up.log
    finally:
        await up.kill()


@contextlib.asynccontextmanager
async def spread(directory: Path, postgres: PostgresServer) -> AsyncGenerator[Booted]:
    """Two gateways on PostgreSQL, one of which is killed for good, and a third one."""
    (directory / "talon.yaml").write_text(CONFIG)
    database = postgres.create_database()
    env = {"DATABASE_URL": database, "TALON_SECRETS_KEY": base64.b64encode(bytes(range(32))).decode()}
    gateways = [
        Product(directory / f"g{n}", "gateway", ("--config", str(directory / "talon.yaml"), "--name", f"g{n}"), env=env)
        for n in range(3)
    ]
    await asyncio.gather(gateways[0].start(), gateways[1].start())
    urls = [gateways[0].url, gateways[1].url]

    async def kill() -> None:
        await gateways[0].kill()
        urls[:] = [gateways[1].url]
        await gateways[2].start()
        urls[:] = [gateways[1].url, gateways[2].url]

    try:
        yield urls, kill
        for one in gateways:
            assert "Traceback" not in one.log, one.log
    finally:
        for one in gateways:
            if one.process is not None:
                await one.kill()
        postgres.drop_database(database)
