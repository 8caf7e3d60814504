"""`HttpProvider` against servers that misbehave to the byte: every bad end has its class, its bound, and its closed socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from support.certificates import Authority
from support.chats import ask, collect, end_of, failure, text_of
from support.rawserver import BOUND_S, LAST_CHUNK, Answer, RawServer, answering, chunk, chunked_head, hanging, reply, stream_head
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.openai_chat import OpenAIChat
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, ProviderError, TextDelta

KEY = "sk-never-to-be-seen"
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def serving(answer: Answer, limits: CallLimits | None = None) -> AsyncGenerator[tuple[HttpProvider, RawServer]]:
    async with RawServer(answer) as server:
        provider = HttpProvider("main", OpenAIChat(server.base_url), KEY, limits=limits)
        try:
            yield provider, server
        finally:
            await provider.close()


@pytest.mark.parametrize(
    "parts",
    [
        (stream_head(), HELLO, STOP, USAGE, DONE),
        (stream_head(), (HELLO + STOP + USAGE + DONE).replace(b"\n", b"\r\n")),
        (stream_head(), (HELLO + STOP + USAGE + DONE).replace(b"\n", b"\r")),
        (stream_head("text/plain"), HELLO + STOP + USAGE + DONE),
        (stream_head("application/json"), HELLO + STOP + USAGE + DONE),
        (stream_head(), b": queued\n\n", b": queued\n\n", HELLO, b": still\n\n", STOP, USAGE, DONE),
        (stream_head(), b"\n\n", HELLO + STOP + USAGE + DONE),
        (stream_head(), b"event: message\nid: 1\n" + HELLO, STOP + USAGE + DONE),
        (stream_head(), HELLO + STOP + USAGE),  # no end mark
        (stream_head(), HELLO + STOP + USAGE + b"data: [DONE]"),  # the end mark is not closed
        (stream_head(), HELLO + STOP + USAGE.rstrip(b"\n")),
        (chunked_head(), *(chunk(bytes([b])) for b in HELLO), chunk(STOP + USAGE + DONE), LAST_CHUNK),  # byte by byte
        (chunked_head(), chunk(HELLO + STOP + USAGE)),  # cut, but after everything was said
        (stream_head(), b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}],',
         b'"usage":{"prompt_tokens":3,"completion_tokens":1}}'),  # not a stream at all
    ],
)  # fmt: skip
async def test_every_legible_form_gives_the_same_answer(parts: tuple[bytes, ...]) -> None:
    async with serving(answering(*parts)) as (provider, _):
        events = await collect(provider, ask())
    assert text_of(events) == "Hello"
    assert end_of(events) == Finished("stop", Usage(3, 1))


async def test_characters_that_are_cut_by_packets_come_whole() -> None:
    text = "naïve 😀 日本語 e\u0301"
    event = b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": text}}]}) + b"\n\n"
    pieces = [event[n : n + 1] for n in range(len(event))]
    async with serving(answering(chunked_head(), *map(chunk, pieces), chunk(STOP + DONE), LAST_CHUNK)) as (provider, _):
        assert text_of(await collect(provider, ask())) == text


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ((), "connection", "closed the connection"),
        ((b"HTTP/1.1 200 OK\r\nContent-",), "connection", "closed the connection"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "malformed", "does not answer in HTTP"),
        ((stream_head(),), "empty", "empty body"),
        ((reply("204 No Content", b""),), "empty", "204"),
        ((stream_head(), b" \n \n"), "empty", "empty body"),
        ((stream_head(), b": ping\n\n"), "empty", "without one event"),
        ((stream_head(), DONE), "empty", "empty"),
        ((stream_head(), b'data: {"choices":[]}\n\n' + DONE), "empty", "empty"),
        ((stream_head(), b'{"choices":[]}'), "empty", "empty"),
        ((stream_head(), b"{}"), "empty", "empty"),
        ((stream_head(), b'data: {"choices":[{"delta":{"cont'), "malformed", "cannot be read"),
        ((stream_head(), HELLO, b'data: {"choices":[{"delta":{"cont\n\n', DONE), "malformed", "cannot be read"),
        ((stream_head(), b'data: {"choices":[{"delta":{"content":7}}]}\n\n'), "malformed", "cannot be read"),
        ((stream_head(), b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'), "malformed", "cannot be read"),
        ((stream_head(), b"data: 42\n\n"), "malformed", "cannot be read"),
        ((stream_head(), b'{"choices":[{"message":{"content":"Hel'), "malformed", "cannot be read"),
        ((stream_head("text/html"), b"<html>It works!</html>"), "malformed", "It works!"),
        ((stream_head(), b"internal problem\n"), "malformed", "internal problem"),
        ((stream_head(), b"[1,2]"), "malformed", "[1,2]"),
        ((stream_head(), b"\x00\x01\x02"), "malformed", "neither"),
        ((stream_head(), HELLO), "connection", "why it stopped"),
        ((chunked_head(), chunk(HELLO)), "connection", "closed the connection"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", HELLO), "connection", "closed the connection"),
        ((stream_head(), HELLO, b'data: {"error":{"message":"busy","code":503}}\n\n'), "server", "busy"),
        ((b"HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\n{",), "server", "500"),
        ((reply("307 Moved", b"", "Location: http://127.0.0.1:9/"),), "bad_request", "base_url"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,), "malformed", "does not answer in HTTP"),
    ],
)  # fmt: skip
async def test_every_illegible_form_has_its_class(parts: tuple[bytes, ...], error: str, words: str) -> None:
    async with serving(answering(*parts)) as (provider, server):
        failed, events = await failure(provider)
    assert (failed.error, words in failed.detail) == (error, True), failed.detail
    assert failed.detail.startswith("providers.main") or str(server.port) in failed.detail
    assert events == ([TextDelta("Hello")] if HELLO in b"".join(parts) else [])
    if events:
        assert failed.usage == Usage(2, 2, estimated=True)  # "hello" asked, "Hello" answered: 5 / 4, rounded up


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "wait"),
    [
        (
            "401 Unauthorized",
            (),
            b'{"error":{"message":"Incorrect API key provided: sk-never-to-be-seen"}}',
            "authentication",
            None,
        ),
        ("429 Too Many", ("Retry-After: 7",), b'{"error":{"message":"slow down"}}', "rate_limit", 7.0),
        (
            "429 Too Many",
            ("Date: Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After: Wed, 21 Oct 2026 07:28:09 GMT"),
            b"",
            "rate_limit",
            9.0,
        ),
        ("503 Later", ("Retry-After: 2",), b"", "server", 2.0),
        ("529 Busy", (), b"", "overloaded", None),
        ("400 Bad", (), b'{"error":{"message":"x","code":"context_length_exceeded"}}', "context_overflow", None),
    ],
)
async def test_a_status_is_classed_and_no_secret_comes_back(
    status: str, headers: tuple[str, ...], body: bytes, error: str, wait: float | None
) -> None:
    async with serving(answering(reply(status, body, *headers))) as (provider, server):
        failed, _ = await failure(provider)
    assert (failed.error, failed.status, failed.retry_after_s) == (error, int(status[:3]), wait)
    assert KEY not in failed.detail + str(failed) + repr(failed)
    assert f"Authorization: Bearer {KEY}".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "limits", "words"),
    [
        (hanging(), CallLimits(first_token_s=0.2), "first_token_timeout_s (0.2 s)"),
        (hanging(stream_head()), CallLimits(first_token_s=0.2), "first_token_timeout_s (0.2 s)"),
        (hanging(stream_head(), b": alive\n\n"), CallLimits(first_token_s=0.2), "first_token_timeout_s (0.2 s)"),
        (hanging(stream_head(), HELLO), CallLimits(idle_s=0.2), "idle_timeout_s (0.2 s)"),
        (hanging(stream_head(), b'{"choices"'), CallLimits(idle_s=0.2), "idle_timeout_s (0.2 s)"),
        (hanging(stream_head(), HELLO), CallLimits(total_s=0.2), "total_timeout_s (0.2 s)"),
        (hanging(), CallLimits(total_s=0.2), "total_timeout_s (0.2 s)"),
    ],
)
async def test_a_stall_ends_at_its_named_limit_and_closes_the_socket(answer: Answer, limits: CallLimits, words: str) -> None:
    async with serving(answer, limits) as (provider, server):
        failed, _ = await failure(provider)
        assert (failed.error, words in failed.detail) == ("timeout", True), failed.detail
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)


async def test_keeping_the_line_alive_for_ever_does_not_stretch_the_first_token() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head())
        while True:
            writer.write(b": alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(answer, CallLimits(first_token_s=0.3, idle_s=5)) as (provider, _):
        failed, _ = await failure(provider)
    assert "first_token_timeout_s" in failed.detail


async def test_a_server_that_says_why_it_stopped_and_then_hangs_has_answered() -> None:
    async with serving(hanging(stream_head(), HELLO, STOP), CallLimits(idle_s=0.2)) as (provider, _):
        assert end_of(await collect(provider, ask())).stop_reason == "stop"


async def test_an_end_mark_is_the_end_even_if_the_body_stays_open() -> None:
    async with serving(hanging(chunked_head(), chunk(HELLO + STOP + DONE))) as (provider, server):
        stream = provider.chat(ask())
        events = [await asyncio.wait_for(anext(stream), BOUND_S / 2) for _ in range(2)]
        assert isinstance(events[-1], Finished)
        await stream.aclose()
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)


@pytest.mark.parametrize("way", ["cancel", "aclose"])
@pytest.mark.parametrize("begun", [False, True])
async def test_who_stops_reading_closes_the_socket(way: str, begun: bool) -> None:
    async with serving(hanging(stream_head(), HELLO) if begun else hanging()) as (provider, server):
        stream = provider.chat(ask())
        reading = asyncio.create_task(anext(stream))
        await asyncio.wait_for(server.asked.wait(), BOUND_S)
        if begun:
            assert await asyncio.wait_for(reading, BOUND_S) == TextDelta("Hello")
        if way == "cancel" or not begun:  # a generator that is running cannot be closed, only its reader be cancelled
            task = asyncio.create_task(anext(stream)) if begun else reading
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await stream.aclose()
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)


async def test_closing_the_provider_ends_the_calls_under_way() -> None:
    async with serving(hanging(stream_head(), HELLO)) as (provider, _):
        stream = provider.chat(ask())
        await asyncio.wait_for(anext(stream), BOUND_S)
        call = asyncio.create_task(failure_of(stream))
        await asyncio.sleep(0)
        await provider.close()
        assert await asyncio.wait_for(call, BOUND_S) == "connection"
        assert (await failure(provider))[0].error == "connection"


async def failure_of(stream: AsyncIterator[object]) -> str:
    try:
        await anext(stream)
    except ProviderError as error:
        return error.error
    return ""


@pytest.mark.parametrize("leave", ["at the end", "at Finished"])
async def test_connections_are_reused_after_a_whole_answer_and_not_after_half_of_one(leave: str) -> None:
    ended = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(chunked_head() + chunk(HELLO + STOP + DONE))
        await writer.drain()
        await asyncio.sleep(0.01)  # the body's end comes in a packet of its own
        writer.write(LAST_CHUNK)
        ended.set()

    async with RawServer(answer, keep_alive=True) as server:
        provider = HttpProvider("main", OpenAIChat(server.base_url))
        for _ in range(3):
            async with asyncio.timeout(BOUND_S), aclosing(provider.chat(ask())) as stream:
                async for event in stream:
                    if leave == "at Finished" and isinstance(event, Finished):
                        break
            await asyncio.wait_for(ended.wait(), BOUND_S)
            await asyncio.sleep(0.02)  # the client, on this loop too, reads that end
            ended.clear()
        assert server.connections == 1
        stream = provider.chat(ask())
        await anext(stream)
        await stream.aclose()
        await collect(provider, ask())
        assert (len(server.requests), server.connections) == (5, 2)
        await provider.close()


async def test_ten_megabytes_pass_and_one_character_more_does_not() -> None:
    event = b'data: {"choices":[{"delta":{"content":"' + b"x" * 10_000 + b'"}}]}\n\n'
    whole = (stream_head(), *[event * 100] * 10, STOP, DONE)  # 10 × 100 × 10,000 characters
    async with serving(answering(*whole)) as (provider, _):
        assert len(text_of(await collect(provider, ask()))) == 10_000_000
    async with serving(answering(*whole[:-2], HELLO, STOP, DONE)) as (provider, _):
        failed, _ = await failure(provider)
    assert (failed.error, "answer_max (10000000 characters)" in failed.detail) == ("malformed", True)


async def test_a_document_that_never_ends_is_stopped() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + b'{"choices":[{"message":{"content":"')
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving(answer, CallLimits(answer_max=100_000, line_max=100_000)) as (provider, server):
        failed, _ = await failure(provider)
        assert (failed.error, "answer_max" in failed.detail) == ("malformed", True)
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)


async def test_a_line_that_never_ends_is_stopped() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + b"data: ")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving(answer) as (provider, _):
        failed, _ = await failure(provider)
    assert (failed.error, "line_max (1048576 bytes)" in failed.detail) == ("malformed", True)


async def test_a_large_request_arrives_whole() -> None:
    text = "é" * 2_000_000
    async with serving(answering(stream_head(), HELLO, STOP, DONE)) as (provider, server):
        await collect(provider, ask(text))
    body = msgspec.json.decode(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["messages"][0]["content"] == text


async def test_a_refused_connection_and_a_name_that_is_not_there_are_connection_errors() -> None:
    async with RawServer(hanging()) as server:
        port = server.port
    for url, words in ((f"http://127.0.0.1:{port}/v1", "cannot connect"), ("http://no-such-host.invalid/v1", "cannot be resolved")):
        provider = HttpProvider("main", OpenAIChat(url))
        failed, _ = await failure(provider)
        await provider.close()
        assert (failed.error, words in failed.detail, failed.usage) == ("connection", True, Usage()), failed.detail


async def test_tls_with_a_server_that_speaks_none_is_a_connection_error() -> None:
    class Mail(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(b"220 mail.example ESMTP\r\n")
            transport.close()

    server = await asyncio.get_running_loop().create_server(Mail, "127.0.0.1", 0)
    provider = HttpProvider("main", OpenAIChat(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"), KEY)
    failed, _ = await failure(provider)
    await provider.close()
    server.close()
    assert (failed.error, failed.usage) == ("connection", Usage())
    assert KEY not in failed.detail


async def test_a_certificate_of_an_unknown_authority_says_where_to_name_it(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().files(tmp_path, "server"))
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
    provider = HttpProvider("main", OpenAIChat(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"), KEY)
    failed, _ = await failure(provider)
    await provider.close()
    server.close()
    assert (failed.error, "is not trusted" in failed.detail, "SSL_CERT_FILE" in failed.detail) == ("connection", True, True)


async def test_a_body_whose_framing_breaks_ends_at_the_idle_limit_at_the_latest() -> None:
    # The HTTP library notices the bad chunk and closes, but does not always tell the reader.
    async with serving(answering(chunked_head(), chunk(HELLO), b"zz\r\n"), CallLimits(idle_s=0.3)) as (provider, _):
        failed, events = await failure(provider)
    assert failed.error in ("connection", "timeout")
    assert events == [TextDelta("Hello")]


async def test_a_connection_that_is_never_accepted_ends_at_connect_s() -> None:
    # A listener whose queue is full answers no SYN; where a kernel does answer, the first-token limit ends the call.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        provider = HttpProvider(
            "main", OpenAIChat(f"http://127.0.0.1:{port}/v1"), limits=CallLimits(connect_s=0.3, first_token_s=1.0)
        )
        failed, _ = await failure(provider)
        await provider.close()
        for filler in fillers:
            filler.close()
    assert (failed.error, "connect_timeout_s (0.3 s)" in failed.detail) == ("timeout", True), failed.detail


async def test_a_request_that_json_cannot_say_is_refused_without_a_call() -> None:
    async with serving(answering()) as (provider, server):
        failed, _ = await failure(provider, ChatRequest("m", (ChatMessage("user", "\ud83d"),)))
        assert (failed.error, server.connections) == ("bad_request", 0)
