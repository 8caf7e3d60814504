"""A watch shows each change once, whatever becomes of the connection, the server, and the changes that it keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from support.tinyhttp import Tiny, drop, serving
from talon.cli.client import Client
from talon.cli.connection import At
from talon.cli.kinds import kind_of
from talon.cli.watch import Change, Printer, watch, watch_everywhere
from talon.domain import errors as err

AGENTS = "/v1/ns/acme/agents"
Item = dict[str, Any]


def agent(name: str, version: int, uid: str = "") -> Item:
    return {"kind": "Agent", "metadata": {"name": name, "namespace": "acme", "uid": uid or name, "resourceVersion": str(version)}}


class Server:
    """One list and its changes. `cut_after` so many events the connection dies in the middle of the next; changes up to `kept`
    are no longer kept."""

    def __init__(self) -> None:
        self.pages: list[list[Item]] = [[]]
        self.version = 0
        self.changes: list[tuple[str, Item]] = []
        self.cut_after: int | None = None
        self.kept = 0
        self.bookmark = 0
        self.watched_from: list[int] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        at = int(request.query.get("cursor", "0"))
        after = str(at + 1) if at + 1 < len(self.pages) else None
        version = self.version + at  # the world goes on between two pages
        return web.json_response({"items": self.pages[at], "next_cursor": after, "resource_version": str(version)})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        after = int(request.headers.get("Last-Event-ID") or request.query["resource_version"])
        self.watched_from.append(after)
        if after < self.kept:
            body = {"code": "version_gone", "detail": "no longer kept"}
            return web.json_response(body, status=410, content_type="application/problem+json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.bookmark > after:
            mark = {"type": "bookmark", "object": {"metadata": {"resourceVersion": str(self.bookmark)}}}
            await response.write(f"id: {self.bookmark}\nevent: bookmark\ndata: {json.dumps(mark)}\n\n".encode())
        wanted = [(kind, item) for kind, item in self.changes if int(item["metadata"]["resourceVersion"]) > after]
        for number, (kind, item) in enumerate(wanted):
            data = json.dumps({"type": kind, "object": item})
            whole = f"id: {item['metadata']['resourceVersion']}\nevent: {kind}\ndata: {data}\n\n".encode()
            if number == self.cut_after:
                self.cut_after = None
                await response.write(whole[: len(whole) // 2])
                drop(request)
                return response
            await response.write(whole)
        await asyncio.Event().wait()
        return response


async def seen(server: Server, count: int, tiny: Tiny | None = None) -> list[tuple[str, str, int]]:
    """The first `count` changes that a watch shows: (type, name, version)."""
    found: list[tuple[str, str, int]] = []
    enough = asyncio.Event()

    def show(changes: Sequence[Change]) -> None:
        for change in changes:
            metadata = change.object["metadata"]
            found.append((change.type, metadata["name"], int(metadata["resourceVersion"])))
        if len(found) >= count:
            enough.set()

    async with serving(server) as tiny, Client(tiny.url) as client, asyncio.timeout(15):
        watching = asyncio.ensure_future(watch(client, AGENTS, {}, show))
        done, _ = await asyncio.wait({watching, asyncio.ensure_future(enough.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if watching in done:
            watching.result()
        watching.cancel()
        await asyncio.wait({watching})
    return found


async def test_what_is_there_comes_first_and_what_the_list_had_is_not_told_again() -> None:
    server = Server()
    server.version = 5
    server.pages = [[agent("a", 3)], [agent("b", 6), agent("d", 2)]]
    server.changes = [
        ("added", agent("b", 6)),
        ("modified", agent("a", 7)),
        ("added", agent("c", 8)),
        ("deleted", agent("d", 9)),
        ("deleted", agent("gone", 10)),
        ("modified", agent("c", 11)),
    ]
    assert await seen(server, 7) == [
        ("added", "a", 3),
        ("added", "b", 6),
        ("added", "d", 2),
        ("modified", "a", 7),
        ("added", "c", 8),
        ("deleted", "d", 9),
        ("modified", "c", 11),
    ]
    assert server.watched_from == [5], "from the version of the first page: what came between the pages is not lost"


async def test_a_connection_that_breaks_in_the_middle_of_a_change_goes_on_after_the_last_whole_one() -> None:
    server = Server()
    server.changes = [("added", agent(f"a{number}", number)) for number in range(1, 7)]
    server.cut_after = 3
    assert await seen(server, 6) == [("added", f"a{number}", number) for number in range(1, 7)]
    assert server.watched_from == [0, 3]


async def test_a_bookmark_moves_the_place_from_which_a_watch_goes_on() -> None:
    server = Server()
    server.bookmark = 40
    server.changes = [("added", agent("a", 41)), ("added", agent("b", 42))]
    server.cut_after = 0
    assert await seen(server, 2) == [("added", "a", 41), ("added", "b", 42)]
    assert server.watched_from == [0, 40]


async def test_what_is_no_longer_kept_is_read_anew_and_told_as_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    server.version = 2
    server.pages = [[agent("a", 1), agent("b", 2), agent("c", 2), agent("same", 1)]]
    original = server._watch  # pyright: ignore[reportPrivateUsage]

    async def once(request: web.Request) -> web.StreamResponse:
        """Gone at the first try; meanwhile a was changed, b deleted, c deleted and made again, d made."""
        if not server.watched_from:
            server.kept, server.version = 10, 20
            server.pages = [[agent("a", 15), agent("c", 16, "another"), agent("d", 17), agent("same", 1)]]
            server.changes = [("modified", agent("a", 21))]
        return await original(request)

    server._watch = once  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    assert await seen(server, 10) == [
        ("added", "a", 1),
        ("added", "b", 2),
        ("added", "c", 2),
        ("added", "same", 1),
        ("deleted", "b", 2),
        ("deleted", "c", 2),
        ("modified", "a", 15),
        ("added", "c", 16),
        ("added", "d", 17),
        ("modified", "a", 21),
    ]
    assert "reading anew" in capsys.readouterr().err


async def test_what_is_refused_ends_the_watch() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"code": "namespace_not_found", "detail": "no"}, status=404)

    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(err.NotFound):
            await watch(client, AGENTS, {}, lambda _: None)
        with pytest.raises(err.NotFound):
            await watch_everywhere(client, At(tiny.url, "default"), kind_of("agents"), {}, lambda _: None)


async def test_a_watch_of_all_namespaces_takes_in_those_that_come_and_outlives_those_that_go() -> None:
    names: list[tuple[str, str]] = []
    enough, gone = asyncio.Event(), asyncio.Event()
    spaces, inside = Server(), Server()
    spaces.pages = [[{"kind": "Namespace", "metadata": {"name": "acme", "uid": "1", "resourceVersion": "1"}}]]
    spaces.version = 1
    beta = {"kind": "Namespace", "metadata": {"name": "beta", "uid": "2", "resourceVersion": "2"}}
    spaces.changes = [("added", beta)]
    inside.pages = [[agent("a", 1)]]

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/namespaces":
            return await spaces(request)
        if "/acme/" in request.path:
            gone.set()
            return web.json_response({"code": "namespace_not_found", "detail": "no"}, status=404)
        await gone.wait()
        return await inside(request)

    def show(changes: Sequence[Change]) -> None:
        names.extend((change.type, change.object["metadata"]["name"]) for change in changes)
        enough.set()

    async with serving(handler) as tiny, Client(tiny.url) as client, asyncio.timeout(15):
        watching = asyncio.ensure_future(watch_everywhere(client, At(tiny.url, "x"), kind_of("agents"), {}, show))
        await asyncio.wait({watching, asyncio.ensure_future(enough.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert not watching.done()
        watching.cancel()
        await asyncio.wait({watching})
    assert names == [("added", "a")]


def test_rows_keep_the_columns_of_the_first_and_names_and_json_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    full: Item = {"metadata": {"namespace": "acme", "updatedAt": "2026"}, "status": {"revision": 3, "conditions": []}}

    def change(kind: str, name: str) -> Change:
        item = agent(name, 1)
        return Change(kind, {**item, **full, "metadata": {**item["metadata"], **full["metadata"]}})

    printer = Printer(kind_of("ag"), "table")
    printer.show([change("added", "long-name")])
    printer.show([change("modified", "b")])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["CHANGE", "NAMESPACE", "NAME", "TEMPLATE", "REVISION", "STATUS", "UPDATED"]
    assert second.split() == ["ADDED", "acme", "long-name", "-", "3", "ok", "2026"]
    assert third.index("ok") == second.index("ok")
    Printer(kind_of("ag"), "name").show([change("deleted", "b")])
    assert capsys.readouterr().out == "deleted agent/b\n"
    Printer(kind_of("ag"), "json").show([change("deleted", "b")])
    assert json.loads(capsys.readouterr().out)["type"] == "deleted"
