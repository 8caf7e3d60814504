"""The HTTP client against a real server that refuses, dies, and comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from support.rawserver import RawServer
from support.tinyhttp import Tiny, drop, serving
from talon.cli.client import Client, Unreachable, path_of
from talon.cli.errors import Failed, WrongUse
from talon.cli.follow import follow, must_be_completed
from talon.cli.sse import Event
from talon.domain import errors as err


def event_bytes(seq: int, kind: str, turn: str, payload: dict[str, Any]) -> bytes:
    data = {"seq": seq, "turn_id": turn, "type": kind, "at": "2026-11-20T09:00:00.000Z", "payload": payload}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


Journal = list[tuple[int, str, str, dict[str, Any]]]


def streaming(journal: Journal, cut_after: int = 0) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Serves `journal` from Last-Event-ID on; the first connection dies `cut_after` entries in, in the middle of the next."""
    connections = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal connections
        connections += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": talon\nretry: 1000\n\n")
        after = int(request.headers["Last-Event-ID"].partition(".")[0])
        for number, (seq, kind, turn, payload) in enumerate((e for e in journal if e[0] > after), 1):
            whole = event_bytes(seq, kind, turn, payload)
            if connections == 1 and cut_after and number > cut_after:
                await response.write(whole[: len(whole) // 2])
                drop(request)
                return response
            await response.write(whole)
        await asyncio.Event().wait()  # an open stream says nothing more
        return response

    return handler


async def take(client: Client, count: int, after: str = "0") -> list[Event]:
    async with asyncio.timeout(10), aclosing(client.events("/v1/stream", {}, after)) as events:
        found: list[Event] = []
        async for event in events:
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError("unreachable")


async def test_a_problem_becomes_the_error_of_its_status_with_its_code_fields_and_words() -> None:
    async def handler(_: web.Request) -> web.Response:
        body = {"status": 422, "code": "invalid", "detail": "spec is wrong", "errors": [{"field": "spec.x", "message": "unknown"}]}
        return web.json_response(body, status=422, content_type="application/problem+json")

    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(err.Invalid) as caught:
            await client.get("/v1/x")
    assert (caught.value.code, caught.value.detail, caught.value.exit_code) == ("invalid", "spec is wrong", 3)
    assert caught.value.errors == (err.FieldError("spec.x", "unknown"),)


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (404, err.NotFound, 3),
        (409, err.Conflict, 3),
        (410, err.Gone, 3),
        (418, err.Refused, 3),
        (429, err.Throttled, 3),
        (503, err.Unavailable, 1),
        (500, err.Defect, 1),
    ],
)
async def test_the_exit_code_follows_the_family_of_the_problem(status: int, kind: type[err.TalonError], exit_code: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"code": "x", "detail": "d"}, status=status, headers={"Retry-After": "2.5"})

    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(kind) as caught:
            await client.get("/v1/x")
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert caught.value.retry_after_s == 2.5


async def test_a_server_that_is_none_of_ours_is_said_to_be_one() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/json":
            return web.Response(body=b"{", content_type="application/json")
        return web.Response(status=502, text="<html>bad gateway")

    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(Failed, match="answered 502 without a problem document"):
            await client.get("/v1/x")
        with pytest.raises(Failed, match="broken JSON"):
            await client.get("/json")


async def test_what_speaks_no_http_is_said_to() -> None:
    async def settings_of_http2(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00")
        await writer.drain()

    async with RawServer(settings_of_http2) as raw, Client(f"http://127.0.0.1:{raw.port}") as client:
        for asking in (client.get("/v1/x"), anext(client.events("/v1/x", {}, "0"))):
            with pytest.raises(Failed, match="speaks no HTTP: is it Talon's gRPC port"):
                await asyncio.wait_for(asking, 5)


async def test_no_server_is_reported_at_once_with_how_to_start_one() -> None:
    async with serving(lambda _: asyncio.sleep(0, web.Response())) as tiny:
        pass  # its port is free again
    async with asyncio.timeout(5), Client(tiny.url, patience_s=60) as client:
        with pytest.raises(Unreachable, match=r"(?s)Connection refused.*talon up"):
            await client.get("/v1/x")


@pytest.mark.parametrize("url", ["127.0.0.1:19789", "ftp://x", "http://"])
def test_an_address_that_is_none_is_wrong_use(url: str) -> None:
    with pytest.raises(WrongUse, match="expected a URL like"):
        Client(url)


async def test_a_request_whose_answer_was_lost_is_made_again_under_the_same_key() -> None:
    async def handler(request: web.Request) -> web.Response:
        if len(tiny.requests) < 3:
            await request.read()
            drop(request)
        return web.json_response({"ok": True}, status=202)

    async with serving(handler) as tiny, asyncio.timeout(10), Client(tiny.url) as client:
        assert await client.call("POST", "/v1/m", body={"content": "x"}) == {"ok": True}
        assert await client.call("POST", "/v1/m", body={"content": "x"}, key="mine") == {"ok": True}
    keys = [request[2] for request in tiny.requests]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != ""
    assert keys[3] == "mine"


async def test_a_deletion_whose_answer_was_lost_is_done_when_nothing_is_left_to_delete() -> None:
    there = True

    async def handler(request: web.Request) -> web.Response:
        nonlocal there
        if not there:
            return web.json_response({"code": "session_not_found", "detail": "no session"}, status=404)
        if request.method == "DELETE":
            there = False
            drop(request)
        return web.json_response({})

    async with serving(handler) as tiny, asyncio.timeout(10), Client(tiny.url) as client:
        await client.delete("/v1/s")
        assert [request[0] for request in tiny.requests] == ["GET", "DELETE", "DELETE"]
        with pytest.raises(err.NotFound):
            await client.delete("/v1/s")


async def test_a_server_that_restarts_is_waited_for_and_the_user_is_told() -> None:
    async def handler(_: web.Request) -> web.Response:
        if len(tiny.requests) == 2:
            return web.json_response({"code": "shutting_down", "detail": "stopping"}, status=503)
        return web.json_response({"n": len(tiny.requests)})

    notes: list[str] = []
    told = asyncio.Event()

    def on_wait(note: str) -> None:
        notes.append(note)
        told.set()

    async with serving(handler) as tiny, asyncio.timeout(15), Client(tiny.url, on_wait=on_wait) as client:
        assert await client.get("/v1/x") == {"n": 1}
        assert await client.get("/v1/x") == {"n": 3}
        told.clear()
        await tiny.stop()
        asked = asyncio.ensure_future(client.get("/v1/x"))
        await told.wait()
        await tiny.start()
        assert await asked == {"n": 4}
    assert len(notes) == 2
    assert all("lost, waiting" in note for note in notes)


async def test_patience_with_a_lost_server_is_bounded() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({})

    async with serving(handler) as tiny, asyncio.timeout(10), Client(tiny.url, patience_s=0.2) as client:
        await client.get("/v1/x")
        await tiny.stop()
        with pytest.raises(Unreachable, match=r"did not come back within 0\.2 s"):
            await client.get("/v1/x")


async def test_who_asks_a_server_with_tls_without_it_is_told() -> None:
    async def hangs_up(_: asyncio.StreamWriter) -> None:
        """As a server does that expects a handshake."""

    async with RawServer(hangs_up) as raw, Client(f"http://127.0.0.1:{raw.port}", patience_s=0.2) as client:
        with pytest.raises(Unreachable, match=r"(?s)did not come back.*begins with https://"):
            await asyncio.wait_for(client.get("/v1/x"), 5)


async def test_patience_with_a_server_that_takes_streams_and_drops_them_is_bounded() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": talon\n\n")
        drop(request)
        return response

    async with serving(handler) as tiny, asyncio.timeout(10), Client(tiny.url, patience_s=0.3) as client:
        with pytest.raises(Unreachable, match="did not come back"):
            await take(client, 1)
    assert len(tiny.requests) > 1


async def test_a_list_is_read_to_its_last_page() -> None:
    async def handler(request: web.Request) -> web.Response:
        start = int(request.query.get("cursor", "0"))
        return web.json_response({"items": [start, start + 1], "next_cursor": str(start + 2) if start < 4 else None})

    async with serving(handler) as tiny, Client(tiny.url) as client:
        assert await client.items("/v1/x", {"state": "open"}) == [0, 1, 2, 3, 4, 5]
    assert [request[1] for request in tiny.requests][1] == "/v1/x?limit=500&state=open&cursor=2"


def test_a_name_cannot_leave_its_place_in_a_path() -> None:
    assert path_of("ns", "acme:eu", "agents", "../x?y#z") == "/v1/ns/acme:eu/agents/..%2Fx%3Fy%23z"


JOURNAL: Journal = [(n, "tool.finished", "t1", {"call": n, "output": "ä" * n}) for n in range(1, 8)]


async def test_a_stream_that_breaks_in_the_middle_of_an_event_goes_on_after_the_last_whole_one() -> None:
    async with serving(streaming(JOURNAL, cut_after=3)) as tiny, Client(tiny.url) as client:
        events = await take(client, 7)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert events[6].payload == {"call": 7, "output": "äääääää"}
    assert [request[3] for request in tiny.requests] == ["0", "3"]


async def test_a_stream_survives_a_restart_of_the_server() -> None:
    journal: Journal = JOURNAL[:2]
    async with (
        serving(streaming(journal)) as tiny,
        Client(tiny.url) as client,
        asyncio.timeout(15),
        aclosing(client.events("/v1/stream", {}, "0")) as events,
    ):
        assert [(await anext(events)).seq for _ in range(2)] == [1, 2]
        await tiny.stop()
        journal.append(JOURNAL[2])
        waiting = asyncio.ensure_future(anext(events))
        await tiny.start()
        assert (await waiting).seq == 3
    assert tiny.requests[-1][3] == "2"


async def test_a_stream_that_is_refused_raises_the_problem() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"code": "session_replaced", "detail": "gone"}, status=410)

    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(err.Gone):
            await take(client, 1)


async def receipt_and_end(journal: Journal, receipt: dict[str, Any], cut_after: int = 0) -> tuple[list[int], Event, Tiny]:
    shown: list[int] = []
    async with serving(streaming(journal, cut_after)) as tiny, asyncio.timeout(10), Client(tiny.url) as client:
        end = await follow(client, "/v1/stream", receipt, lambda event: shown.append(event.seq))
    return shown, end, tiny


async def test_following_a_message_shows_its_own_turn_only_and_ends_with_that_turns_end() -> None:
    journal: Journal = [
        (8, "turn.completed", "old", {}),
        (9, "message.received", "t1", {"content": "hi"}),
        (10, "turn.completed", "other", {}),
        (11, "message.completed", "t1", {"content": "yes"}),
        (12, "turn.completed", "t1", {}),
        (13, "turn.queued", "later", {}),
    ]
    shown, end, tiny = await receipt_and_end(journal, {"turn_id": "t1", "seq": 9}, cut_after=2)
    assert shown == [11, 12], "the message itself is the receipt's; what comes after it is shown"
    assert end.seq == 12
    assert tiny.requests[0][3] == "9"
    must_be_completed(end)


async def test_a_steering_message_that_becomes_a_turn_of_its_own_is_followed_there() -> None:
    journal: Journal = [
        (5, "message.received", "t1", {"content": "also this"}),
        (6, "input.steered", "t1", {"message_seq": 5, "state": "offered"}),
        (7, "input.steered", "t1", {"message_seq": 5, "state": "requeued", "turn": "t2"}),
        (8, "turn.completed", "t1", {}),
        (9, "turn.started", "t2", {}),
        (10, "turn.failed", "t2", {"reason": "model_failed", "detail": "no"}),
    ]
    shown, end, _ = await receipt_and_end(journal, {"turn_id": "t1", "seq": 5})
    assert shown == [6, 7, 9, 10]
    with pytest.raises(Failed, match="ended as failed: model_failed, no"):
        must_be_completed(end)
