"""Streams over real sockets: what is durable is what is seen, once, wherever a client comes in."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from support.bootedgateway import SESSIONS, Booted, Stream, booted
from support.waiting import until
from talon.domain.entries import TurnCancelled
from talon.store.model import TurnChange


async def test_a_stream_shows_the_turn_live_and_each_cursor_goes_on_exactly_there(gateway: Booted) -> None:
    session = await gateway.session()
    async with gateway.stream(session) as live:
        receipt = await gateway.message(session)
        assert receipt == {"session_id": "s1", "turn_id": receipt["turn_id"], "seq": 1, "strategy": "enqueue"}
        held = await gateway.hand.claim()
        model = await gateway.hand.start(held)
        await gateway.hand.say(held, model, 0, "Good ")
        await gateway.hand.say(held, model, 5, "day 🙂")
        await gateway.hand.finish(held, model, "Good day 🙂, all of you")
        seen = await live.take(10)
    assert [(one.id, one.type) for one in seen] == [
        ("1", "message.received"),
        ("2", "turn.queued"),
        ("3", "turn.started"),
        ("4", "model.started"),
        ("4.5", "text.delta"),
        ("4.10", "text.delta"),
        ("5", "model.finished"),
        ("5.22", "text.delta"),
        ("6", "message.completed"),
        ("7", "turn.completed"),
    ]
    assert seen[4].payload == {"offset": 0, "text": "Good "}
    assert seen[4].data["seq"] == model
    assert seen[4].data["turn_id"] == receipt["turn_id"]
    assert "".join(one.payload["text"] for one in seen if one.type == "text.delta") == "Good day 🙂, all of you"
    for at, event in enumerate(seen):
        async with gateway.stream(session, "?after=1", event.id) as resumed:  # the header wins
            # The fragments are dropped with their message: one slice of it holds what they held.
            rest = await resumed.take(
                len([one for one in seen[at + 1 :] if one.type != "text.delta"]) + ("." in event.id and at < 7)
            )
        entries = [one.id for one in rest if one.type != "text.delta"]
        assert entries == [one.id for one in seen[at + 1 :] if one.type != "text.delta"]
        texts = [one.payload for one in rest if one.type == "text.delta"]
        if at in (4, 5):
            assert texts == [
                {"offset": int(event.id.split(".")[1]), "text": "Good day 🙂, all of you"[int(event.id.split(".")[1]) :]}
            ]


async def test_a_cursor_in_the_middle_of_an_answer_is_served_from_the_fragments(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    held = await gateway.hand.claim()
    model = await gateway.hand.start(held)
    await gateway.hand.say(held, model, 0, "abc")
    await gateway.hand.say(held, model, 3, "def")
    async with gateway.stream(session, last_id="4.2") as resumed:
        (event,) = await resumed.take(1)
        assert (event.id, event.payload) == ("4.3", {"offset": 2, "text": "c"})
        assert (await resumed.take(1))[0].payload == {"offset": 3, "text": "def"}
    async with gateway.stream(session) as fresh:  # from now on, but an open answer is given whole
        assert [one.payload["text"] for one in await fresh.take(2)] == ["abc", "def"]
    assert (await gateway.call("GET", session + "/stream?after=4.7")).body["code"] == "cursor_ahead"


async def test_a_message_in_the_middle_of_an_answer_is_repeated_by_no_cursor(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    held = await gateway.hand.claim()
    model = await gateway.hand.start(held)
    async with gateway.stream(session, "?after=0") as live:
        await live.take(4)
        await gateway.hand.say(held, model, 0, "abc")
        await gateway.message(session, "one more")
        await gateway.hand.say(held, model, 3, "def")
        seen = await live.take(4)
    assert [one.id for one in seen] == ["4.3", "5", "6", "6.6"]
    assert seen[3].data["seq"] == model
    async with gateway.stream(session, last_id="6.6") as resumed:
        await gateway.hand.finish(held, model, "abcdef")
        assert [one.type for one in await resumed.take(3)] == ["model.finished", "message.completed", "turn.completed"]


async def test_bad_cursors_are_told_apart(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    for cursor, status, code in (
        ("3", 416, "cursor_ahead"),
        ("99999999999", 416, "cursor_ahead"),
        ("x", 422, "cursor_invalid"),
        ("-1", 422, "cursor_invalid"),
        ("1.2.3.4", 422, "cursor_invalid"),
        ("", 422, "cursor_invalid"),
    ):
        answer = await gateway.call("GET", f"{session}/stream?after={cursor}")
        assert (answer.status, answer.body["code"]) == (status, code), cursor
        if cursor:
            assert (await gateway.call("GET", f"{session}/stream?after=0", Last_Event_ID=cursor)).status == status
    assert (await gateway.call("GET", f"{session}/stream?from=1")).body["errors"][0]["field"] == "from"


async def test_a_stream_of_a_turn_ends_with_its_end_also_when_that_was_long_ago(gateway: Booted) -> None:
    session = await gateway.session()
    first = await gateway.message(session, "one")
    second = await gateway.message(session, "two")
    async with gateway.stream(session, f"?turn={second['turn_id']}&after=0") as watching:
        for _ in range(2):
            held = await gateway.hand.claim()
            await gateway.hand.finish(held, await gateway.hand.start(held), "done")
        seen = await watching.rest()
    assert {one.data["turn_id"] for one in seen} == {second["turn_id"]}
    assert seen[0].type == "message.received"
    assert seen[-1].type == "turn.completed"
    async with gateway.stream(session, f"?turn={first['turn_id']}") as late:
        assert [one.type for one in await late.rest()] == ["turn.completed"]
    async with gateway.stream(session, f"?turn={first['turn_id']}", last_id=seen[-1].id) as past:
        assert past.response is not None
        assert past.response.status == 204
    unknown = await gateway.call("GET", f"{session}/stream?turn=0199a0c0-0000-7000-8000-000000000001")
    assert (unknown.status, unknown.body["code"]) == (404, "turn_not_found")


async def test_a_message_can_be_answered_with_the_stream_of_its_own_turn(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session, "first")
    held = await gateway.hand.claim()
    posted = Stream(gateway, session + "/message", {"Accept": "text/event-stream"}, "POST", {"content": "second"})
    async with posted:
        assert posted.response is not None
        assert posted.response.status == 200
        (queued,) = await posted.take(1)
        assert queued.type == "turn.queued"
        assert queued.payload["behind"]["turn_id"] == held.turn.turn_id
        await gateway.hand.finish(held, await gateway.hand.start(held), "one")
        second = await gateway.hand.claim()
        await gateway.hand.finish(second, await gateway.hand.start(second), "two")
        rest = await posted.rest()
    assert [one.type for one in rest][-2:] == ["message.completed", "turn.completed"]
    assert {one.data["turn_id"] for one in rest} == {queued.data["turn_id"]}


async def test_a_deleted_sessions_stream_ends_and_the_next_of_the_name_refuses_its_cursors(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    async with gateway.stream(session, "?after=0") as live:
        await live.take(2)
        assert (await gateway.call("DELETE", session)).status == 204
        assert [one.type for one in await live.rest()] == ["turn.cancelled"]
    assert (await gateway.call("GET", session + "/stream")).body["code"] == "session_not_found"
    await gateway.session()
    answer = await gateway.call("GET", session + "/stream?after=3")
    assert (answer.status, answer.body["code"]) == (410, "session_replaced")
    fresh = (await gateway.call("GET", session)).body
    assert fresh["last_seq"] == 0
    async with gateway.stream(session, f"?after={fresh['last_seq']}") as live:
        await gateway.message(session, "again")
        assert (await live.take(1))[0].payload["content"] == "again"


async def test_an_idle_session_that_is_deleted_ends_its_stream_too(gateway: Booted) -> None:
    session = await gateway.session()
    async with gateway.stream(session) as live:
        await live.comment()
        assert (await gateway.call("DELETE", session)).status == 204
        assert await live.rest() == []


async def test_a_running_turn_of_a_deleted_session_is_streamed_to_its_end(gateway: Booted) -> None:
    session = await gateway.session()
    await gateway.message(session)
    held = await gateway.hand.claim()
    await gateway.hand.start(held)
    async with gateway.stream(session) as live:
        await live.comment()
        assert (await gateway.call("DELETE", session)).status == 204
        (asked,) = await live.take(1)
        assert asked.type == "turn.cancel_requested"
        change = TurnChange(held.turn.turn_id, state="cancelled", reason="deleted")
        await gateway.hand.append(held, TurnCancelled(reason="deleted"), turn=change, hold="release")
        assert [one.type for one in await live.rest()] == ["turn.cancelled"]


async def test_a_gateway_that_hears_nothing_finds_the_entries_of_other_processes_by_its_poll(tmp_path: Path) -> None:
    async with booted(tmp_path, shared=True, poll_s=0.05) as gateway:
        session = await gateway.session()
        async with gateway.stream(session) as live:
            await live.comment()
            await gateway.message(session)
            held = await gateway.hand.claim()
            model = await gateway.hand.start(held)
            await gateway.hand.say(held, model, 0, "abc")
            seen = await live.take(5)
            await gateway.hand.say(held, model, 3, "def")
            seen += await live.take(1)
            await gateway.hand.finish(held, model, "abcdef")
            seen += await live.take(3)
        assert [one.id for one in seen] == ["1", "2", "3", "4", "4.3", "4.6", "5", "6", "7"]


async def test_heartbeats_come_as_comments(tmp_path: Path) -> None:
    async with booted(tmp_path, heartbeat_s=0.1) as gateway:
        async with gateway.stream(await gateway.session()) as live:
            await live.comment()
            await live.comment()
            await live.comment()
        assert live.waiting == []


async def test_only_so_many_streams_are_opened(tmp_path: Path) -> None:
    async with booted(tmp_path, streams_max=1) as gateway:
        session = await gateway.session()
        async with gateway.stream(session) as live:
            await live.comment()
            answer = await gateway.call("GET", session + "/stream")
            assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (429, "too_many_streams", "5")
        await until(lambda: gateway.hub.count == 0)
        async with gateway.stream(session) as live:
            await live.comment()


async def test_a_client_that_reads_nothing_is_cut_and_others_do_not_notice(tmp_path: Path) -> None:
    async with booted(tmp_path, stream_buffer_max=64 * 1024) as gateway:
        session = await gateway.session()
        host, port = gateway.url.removeprefix("http://").split(":")
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        deaf.sendall(f"GET {session}/stream?after=0 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        async with gateway.stream(session) as live:
            await live.comment()
            await until(lambda: gateway.hub.count == 2)
            sent = 0
            async with asyncio.timeout(60):
                while gateway.hub.count == 2:
                    await gateway.message(session, "x" * 60_000)
                    sent += 1
                    assert sent < 99, "the deaf client was kept"
                    await live.take(2)
            await gateway.message(session, "after")
            assert (await live.take(1))[0].payload["content"] == "after"
        deaf.close()


async def test_shutting_down_ends_streams_at_once_and_finishes_the_server(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway:
        session = await gateway.session()
        async with gateway.stream(session) as live:
            await live.comment()
            gateway.stop.set()
            assert await live.rest() == []
        await asyncio.wait_for(gateway.serving, 3)
        assert gateway.hub.closing


async def test_a_page_of_another_site_reads_no_stream(gateway: Booted) -> None:
    await gateway.session()
    answer = await gateway.call("GET", f"{SESSIONS}/s1/stream", Origin="https://evil.example")
    assert (answer.status, answer.body["code"]) == (403, "forbidden_origin")
