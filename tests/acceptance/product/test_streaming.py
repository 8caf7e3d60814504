"""Streams: resumed in the middle of an answer, at another gateway, after a kill; nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support.product import ENDS, Api
from support.sse import Event, Parser, Reading
from support.stage import Stage, Watch, call, path, set_stage, slowly, stalls
from support.waiting import BOUND_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG = "Every word of this answer comes in a piece of its own, so that a client can leave in the middle of it and come back. " * 2


@contextlib.asynccontextmanager
async def connection(url: str, where: str, last_id: str = "", query: str = "") -> AsyncGenerator[AsyncIterator[Event]]:
    """One connection to a session's stream, as a browser makes it."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(url + path(where, "stream") + query, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        parser = Parser()

        async def events() -> AsyncIterator[Event]:
            async for chunk in answer.content.iter_any():
                for event in parser.feed(chunk):
                    yield event

        yield events()


async def read_on(reading: Reading, url: str, where: str, *, pieces: int | None = None) -> bool:
    """Read from where `reading` stands: so many pieces of text, or to a turn's end. -> whether an end came."""
    reading.resumed()
    async with connection(url, where, reading.last_id, "" if reading.last_id else "?after=0") as events:
        async for event in events:
            reading.take(event)
            if event.type in ENDS:
                return True
            if pieces is not None and event.type == "text.delta":
                pieces -= 1
                if pieces == 0:
                    return False
    raise AssertionError("the server ended the stream")


async def test_a_client_that_leaves_in_the_middle_of_the_text_again_and_again_gets_every_character_once(stage: Stage) -> None:
    where = stage.session()
    turn = await stage.turn(where, f"{where} talk", call("look", what="it"), slowly(LONG, 12, 25))
    reading = Reading(0)
    leaps = 0
    while not await read_on(reading, stage.apis[leaps % len(stage.apis)].url, where, pieces=2):
        leaps += 1
    assert leaps > 2, "the text came in too few pieces to leave in its middle"
    assert reading.seqs == list(range(1, reading.seqs[-1] + 1))
    assert LONG in reading.texts.values()
    answer = next(entry["payload"] for entry in await stage.api.journal(where) if entry["type"] == "message.completed")
    assert answer["content"] == LONG
    assert (await stage.api.get(path(where, "turns", turn)))["state"] == "completed"


async def test_every_gateway_streams_the_same_live(spread: Stage) -> None:
    where = spread.session()
    await spread.api.call("POST", "/v1/ns/default/agents/helper/sessions", {"id": where.rpartition("/")[2]}, expect=201)
    async with Watch(spread.api, where, after=None) as here, Watch(spread.other, where, after=None) as there:
        await asyncio.sleep(0)
        turn = await spread.turn(where, f"{where} talk", slowly(LONG, 12, 25))
        for watch in (here, there):
            await until(lambda watch=watch: any(event["type"] in ENDS for event in watch.events))
    for watch in (here, there):
        text = "".join(event["payload"]["text"] for event in watch.events if event["type"] == "text.delta")
        assert text == LONG
        assert len([event for event in watch.events if event["type"] == "text.delta"]) > 5
        assert {event["turn_id"] for event in watch.events} == {turn}


async def test_the_stream_of_one_turn_ends_with_its_end_and_has_nothing_of_others(stage: Stage) -> None:
    where = stage.session()
    first = await stage.turn(where, f"{where} first", slowly(LONG, 40, 20))
    second = (await stage.api.send(where, f"{where} second"))["turn_id"]
    async with Watch(stage.other, where, turn=second) as watch:
        events = await watch.ended()
    assert {event["turn_id"] for event in events} == {second}
    assert events[-1]["type"] == "turn.completed"
    async with Watch(stage.other, where, turn=first) as watch:
        events = await watch.ended()
    assert events[-1]["type"] == "turn.completed"
    assert {event["turn_id"] for event in events} == {first}


async def test_a_message_may_be_answered_with_its_turns_stream(stage: Stage) -> None:
    where = stage.session()
    stage.model.plan(f"{where} hello", call("look", what="it"), slowly("Hello to you.", 4, 10))
    body, headers = {"content": f"{where} hello"}, {"Accept": "text/event-stream"}
    parser = Parser()
    url = stage.api.url + path(where, "message?create=true")
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = parser.feed(await answer.read())
    assert events[0].type == "turn.queued"
    assert events[-1].type == "turn.completed"
    assert "".join(event.payload["text"] for event in events if event.type == "text.delta") == "Hello to you."


async def test_cursors_that_nobody_handed_out_are_refused_in_words(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} hello")
    last = (await stage.api.get(path(where)))["last_seq"]

    async def refused(query: str = "", **headers: str) -> tuple[int, str]:
        status, problem = await stage.api.call("GET", path(where, "stream") + query, headers=headers)
        return status, problem["code"]

    assert await refused(f"?after={last + 1}") == (416, "cursor_ahead")
    for cursor in ("x", "-1", "1.", "1.2.3.4", "1e3", "%00", "9" * 40, "٣"):
        assert await refused(f"?after={cursor}") == (422, "cursor_invalid"), cursor
        assert await refused("?after=0", **{"Last-Event-ID": "nonsense"}) == (422, "cursor_invalid")
    await stage.api.call("DELETE", path(where), expect=204)
    await stage.run(where, f"{where} again")
    assert await refused(f"?after={last}") == (410, "session_replaced")
    assert (await stage.api.journal(where))[0]["seq"] > last


async def test_an_idle_stream_beats(stage: Stage) -> None:
    where = stage.session()
    await stage.run(where, f"{where} hello")
    parser = Parser()
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(stage.other.url + path(where, "stream")) as answer:
        while parser.comments < 3:  # the greeting and two beats
            parser.feed(await answer.content.readany())


async def test_a_reader_that_takes_nothing_is_cut_off_and_others_are_served(embedded: Stage) -> None:
    """The kernel's buffers fill, then the server's own bound, and the connection is aborted."""
    stage = embedded
    where = stage.session()
    turn = await stage.turn(where, f"{where} hello", call("look", gate="never"))
    await stage.began(where, "look")
    host, _, port = stage.api.url.removeprefix("http://").partition(":")
    lazy = socket.socket()
    with lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((host, int(port)))
        lazy.sendall(f"GET {path(where, 'stream')} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with Watch(stage.api, where, after=None) as quick:
            messages = stage.config["session"]["queue_max"]
            for number in range(messages):
                await stage.api.send(where, f"{number} " + "x" * 1_000_000)
            await until(lambda: sum(event["type"] == "turn.queued" for event in quick.events) == messages)
        await stage.api.call("DELETE", path(where), expect=204)
        lazy.settimeout(BOUND_S)
        got = 0
        with contextlib.suppress(ConnectionResetError):  # bounded by the end of the session, after which a stream is over
            while data := await asyncio.to_thread(lazy.recv, 65536):
                got += len(data)
                assert b"turn.cancelled" not in data, f"turn {turn} was streamed to its end"
    assert got < 1_000_000 * messages, "it was served whole"


# --- a kill -------------------------------------------------------------------------------------------------------------------


async def test_after_a_kill_in_the_middle_of_an_answer_the_client_goes_on_where_it_was(tmp_path: Path) -> None:
    async with set_stage(tmp_path) as stage:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        up = stage.product("up", "up", "--port", port)
        async with up, Api(up.url) as api:
            stage.apis, stage.gateways, stage.workers = [api], [up], [up]
            await stage.agent()
            where = "default/helper/killed"
            await stage.turn(where, "talk", [stalls(3, LONG), slowly(LONG, 12, 5)])
            reading = Reading(0)
            assert not await read_on(reading, up.url, where, pieces=1)
            await up.kill()
            began = time.monotonic()
            await up.start()
            ready = time.monotonic()
            assert await read_on(reading, up.url, where)
            assert time.monotonic() - ready < 5, f"resumed {time.monotonic() - began:.1f} s after the restart began"
        assert reading.seqs == list(range(1, reading.seqs[-1] + 1))
        assert LONG in reading.texts.values()
        assert "Traceback" not in up.log


async def test_a_client_of_a_killed_gateway_goes_on_at_the_other_one(spread: Stage) -> None:
    where = spread.session()
    dying = spread.product("gateway", "dying")
    async with dying, Api(dying.url):
        await spread.turn(where, f"{where} talk", slowly(LONG, 12, 40))
        reading = Reading(0)
        assert not await read_on(reading, dying.url, where, pieces=2)
        await dying.kill()
        with pytest.raises(aiohttp.ClientConnectionError):
            await read_on(reading, dying.url, where)
    assert await read_on(reading, spread.other.url, where)
    assert LONG in reading.texts.values()
    assert reading.seqs == list(range(1, reading.seqs[-1] + 1))
