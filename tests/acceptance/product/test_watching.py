"""Watches over HTTP, through the booted product, on both stores: each change once, in order, whatever is lost in between."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import pytest_asyncio

from support.crowd import embedded, spread, watched
from support.postgres import PostgresServer
from support.sse import Event, Parser
from support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")
CROWD_S = 4.0


class Watching:
    """One connection to a watch."""

    def __init__(self, url: str, path: str, last_id: str = "", **params: str) -> None:
        self._url, self._params = url + path, {"watch": "true", **params}
        self._headers = {"Last-Event-ID": last_id} if last_id else {}
        self._parser, self._waiting = Parser(), list[Event]()

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        self._response = await self._http.get(self._url, params=self._params, headers=self._headers)
        assert self._response.status == 200, await self._response.text()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._response.close()
        await self._http.close()

    async def next(self, *, bookmarks: bool = False) -> tuple[str, str, str] | None:
        """(type, name, version) of the next event; None when the server has ended it."""
        async with asyncio.timeout(10):
            while True:
                while self._waiting:
                    event = self._waiting.pop(0)
                    if event.type != "bookmark":
                        metadata = event.data["object"]["metadata"]
                        assert metadata["resourceVersion"] == event.id
                        return event.type, metadata["name"], event.id
                    if bookmarks:
                        return "bookmark", "", event.id
                chunk = await self._response.content.readany()
                if not chunk:
                    return None
                self._waiting += self._parser.feed(chunk)

    async def take(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of so many changes."""
        found = [await self.next() for _ in range(count)]
        return [one[:2] for one in found if one is not None]


_count = 0


@pytest_asyncio.fixture(loop_scope="session")
async def path(stage: Stage) -> str:
    """The secrets of a fresh namespace."""
    global _count
    _count += 1
    await stage.api.call("POST", "/v1/namespaces", {"name": f"watched{_count}"}, expect=201)
    return f"/v1/ns/watched{_count}/secrets"


async def put(stage: Stage, path: str, name: str, **labels: str) -> str:
    """-> the version."""
    status, row = await stage.api.call("PUT", f"{path}/{name}", {"metadata": {"labels": labels}})
    assert status in (200, 201), row
    return row["metadata"]["resourceVersion"]


async def test_a_watch_tells_what_is_added_modified_and_deleted_and_goes_on_where_it_was(stage: Stage, path: str) -> None:
    await put(stage, path, "before")
    version = (await stage.api.get(path))["resource_version"]
    async with Watching(stage.other.url, path, resource_version=version) as watch:
        assert await watch.next(bookmarks=True) == ("bookmark", "", version)
        await put(stage, path, "one")
        await put(stage, path, "one", tier="a")
        await stage.api.call("DELETE", f"{path}/one", expect=204)
        assert await watch.take(3) == [("added", "one"), ("modified", "one"), ("deleted", "one")]
        last = await put(stage, path, "two")
        assert await watch.next() == ("added", "two", last)
    for question in ({"last_id": version}, {"resource_version": version}):
        async with Watching(stage.api.url, path, **question) as watch:
            assert await watch.take(4) == [("added", "one"), ("modified", "one"), ("deleted", "one"), ("added", "two")]
            assert await watch.next(bookmarks=True) == ("bookmark", "", last)
    async with Watching(stage.api.url, path) as watch:
        assert await watch.next(bookmarks=True) == ("bookmark", "", last)
        template = {"definition": {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "model", "name": "m"}}]}}}
        await stage.api.call("PUT", path.replace("secrets", "templates") + "/other", template, expect=201)
        while (event := await watch.next(bookmarks=True)) == ("bookmark", "", last):
            pass  # what happens to other kinds is told by bookmarks only
        assert event == ("bookmark", "", str(int(last) + 1))


async def test_with_a_selector_what_begins_to_match_is_added_and_what_stops_is_deleted(stage: Stage, path: str) -> None:
    await put(stage, path, "one", tier="b")
    version = (await stage.api.get(path))["resource_version"]
    told = [("added", "one"), ("modified", "one"), ("deleted", "one"), ("added", "two"), ("deleted", "two")]
    async with Watching(stage.other.url, path, resource_version=version, label_selector="tier=a") as live:
        for tier in ("a", "a", "b", "c"):
            await put(stage, path, "one", tier=tier, again=f"{tier}{_count}{len(tier)}", **{"n": os.urandom(2).hex()})
        await put(stage, path, "two", tier="a")
        await stage.api.call("DELETE", f"{path}/two", expect=204)
        await stage.api.call("DELETE", f"{path}/one", expect=204)
        assert await live.take(5) == told
    async with Watching(stage.api.url, path, resource_version=version, label_selector="tier in (a)") as later:
        assert await later.take(5) == told


async def test_namespaces_are_watched_too_and_a_watch_ends_with_its_namespace(stage: Stage, path: str) -> None:
    name = path.split("/")[3]
    async with Watching(stage.api.url, "/v1/namespaces") as all_, Watching(stage.other.url, path) as inside:
        await inside.next(bookmarks=True)
        await stage.api.call("POST", "/v1/namespaces", {"name": f"{name}:eu"}, expect=201)
        assert (await all_.take(1)) == [("added", f"{name}:eu")]
        await put(stage, path, "one")
        await stage.api.call("DELETE", f"/v1/namespaces/{name}?cascade=true", expect=202)
        assert await inside.take(2) == [("added", "one"), ("deleted", "one")]
        ends = await all_.take(3)
        assert sorted(ends[:2]) == [("deleted", f"{name}:eu"), ("modified", name)]
        assert ends[2] == ("deleted", name)
        while (event := await inside.next(bookmarks=True)) is not None:
            assert event[0] == "bookmark"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("watch=true&resource_version=999999999", 422, "version_ahead"),
        ("watch=true&resource_version=x", 422, "invalid"),
        ("watch=true&resource_version=1234567890123456789012", 422, "invalid"),
        ("watch=true&limit=5", 422, "invalid"),
        ("watch=true&label_selector=a=b=c", 422, "invalid"),
        ("watch=maybe", 422, "invalid"),
        ("resource_version=1", 422, "invalid"),
    ],
)
async def test_a_watch_that_cannot_be_is_refused_before_it_begins(
    stage: Stage, path: str, query: str, status: int, code: str
) -> None:
    _, problem = await stage.api.call("GET", f"{path}?{query}", expect=status)
    assert problem["code"] == code


# --- a crowd, with processes that die ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("boot", [embedded, spread])
async def test_twenty_watchers_are_told_what_twenty_writers_do_once_and_in_order_though_a_gateway_dies(
    boot: Any, tmp_path: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int.from_bytes(os.urandom(4))
    report = await watched(boot(tmp_path, postgres), seed, CROWD_S)
    with capsys.disabled():
        print(f"\n{boot.__name__} seed {seed}: {report}")
    assert report["writes"] > 50
    assert report["connections_lost"] > 0, "nobody lost a connection: the kill was no kill"
