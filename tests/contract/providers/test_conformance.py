"""Every vendor's wire, spoken by a fake byte by byte: one suite over the table of vendors (`support.vendors`).

What an independent server makes of the same calls is in `test_aimock.py`, what the vendors' own programs do in `test_drift.py`.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from support.chats import collect, end_of, failure, reasoning_of, text_of
from support.rawserver import BOUND_S, LAST_CHUNK, Answer, RawServer, answering, chunk, chunked_head, hanging, reply, stream_head
from support.vendors.base import Says, Vendor
from support.vendors.table import VENDORS
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.protocol import (
    ChatMessage,
    ChatRequest,
    Image,
    ProviderError,
    Text,
    TextDelta,
    ToolCall,
    ToolDef,
)

KEY = "sk-never-to-be-seen"
CALLS = (ToolCall("call_a", "get_weather", '{"city":"São Paulo"}'), ToolCall("call_b", "get_time", "{}"))
pytestmark = pytest.mark.parametrize("vendor", VENDORS, ids=[vendor.kind for vendor in VENDORS])


@asynccontextmanager
async def serving(
    vendor: Vendor, answer: Answer, limits: CallLimits | None = None
) -> AsyncGenerator[tuple[HttpProvider, RawServer]]:
    async with RawServer(answer) as server:
        provider = HttpProvider("main", vendor.dialect(f"http://127.0.0.1:{server.port}{vendor.path}"), KEY, limits=limits)
        try:
            yield provider, server
        finally:
            await provider.close()


def streamed(vendor: Vendor, says: Says, *, cut: int | None = None) -> Answer:
    """The answer as one stream; `cut`: only so many of its bytes."""
    return answering(stream_head(vendor.fake.content_type), b"".join(vendor.fake.stream(says))[:cut])


def body_of(server: RawServer) -> dict[str, Any]:
    return msgspec.json.decode(server.requests[-1].partition(b"\r\n\r\n")[2], type=dict[str, Any])


def request(vendor: Vendor, *messages: ChatMessage, **fields: Any) -> ChatRequest:
    return ChatRequest(vendor.model, messages or (ChatMessage("user", "hello"),), **fields)


# --- what models answer ---------------------------------------------------------------------------------------------------------


async def test_text_reasoning_usage_and_the_models_name_arrive(vendor: Vendor) -> None:
    says = Says(text="Hello, wörld.", reasoning="Let me see.")
    async with serving(vendor, streamed(vendor, says)) as (provider, server):
        events = await collect(provider, request(vendor))
    assert (text_of(events), reasoning_of(events)) == (says.text, says.reasoning)
    end = end_of(events)
    assert (end.stop_reason, end.usage, end.tool_calls) == ("stop", vendor.counts(Says().usage or Usage()), ())
    assert end.model.startswith(vendor.model[:3]) or (end.model == "" and "model" in vendor.lacks)
    assert vendor.key_header.format(KEY).lower() in server.requests[0].decode().lower()


async def test_parallel_calls_arrive_whole_with_the_text_before_them(vendor: Vendor) -> None:
    says = Says(text="Let me look.", calls=CALLS, stop="tool_calls", piece=3)
    async with serving(vendor, streamed(vendor, says)) as (provider, _):
        events = await collect(provider, request(vendor))
    assert text_of(events) == "Let me look."
    assert (end_of(events).stop_reason, end_of(events).tool_calls) == ("tool_calls", CALLS)


async def test_calls_and_their_results_go_back_and_stand_together(vendor: Vendor) -> None:
    messages = (
        ChatMessage("system", "Be kind."),
        ChatMessage("user", "weather?"),
        ChatMessage("assistant", "Let me look.", CALLS),
        ChatMessage("tool", "sunny", tool_call_id="call_a"),
        ChatMessage("tool", "noon", tool_call_id="call_b"),
        ChatMessage("user", "and now?"),
    )
    async with serving(vendor, streamed(vendor, Says(text="ok"))) as (provider, server):
        await collect(provider, request(vendor, *messages))
    sent = msgspec.json.encode(body_of(server)).decode()
    places = [sent.index(word) for word in ("weather?", "Let me look.", "get_weather", "sunny", "noon", "and now?")]
    assert places == sorted(places)
    if "ids" not in vendor.lacks:
        assert places[1] < sent.index("call_a") < places[3]
        assert sent.count("call_a") == sent.count("call_b") == 2
    assert "Be kind." in sent


async def test_arguments_that_are_no_json_and_a_tool_that_is_not_there_are_passed_on(vendor: Vendor) -> None:
    calls = (ToolCall("c1", "no_such_tool", '{"city": tru'),)
    says = Says(text="ok") if "raw arguments" in vendor.lacks else Says(calls=calls, stop="tool_calls")
    async with serving(vendor, streamed(vendor, says)) as (provider, server):
        end = end_of(await collect(provider, request(vendor)))
        assert end.tool_calls == says.calls
        back = (ChatMessage("assistant", "", calls), ChatMessage("tool", "no such tool", tool_call_id="c1"))
        await collect(provider, request(vendor, ChatMessage("user", "hi"), *back))
    assert "invalid_json" in server.requests[-1].decode()


async def test_ids_of_another_vendor_are_written_so_that_this_one_takes_them(vendor: Vendor) -> None:
    calls = (ToolCall("functions.get_weather:0", "get_weather", "{}"), ToolCall("x" * 90, "get_time", "{}"))
    results = [ChatMessage("tool", "ok", tool_call_id=call.id) for call in calls]
    async with serving(vendor, streamed(vendor, Says(text="ok"))) as (provider, server):
        await collect(provider, request(vendor, ChatMessage("user", "hi"), ChatMessage("assistant", "", calls), *results))
    sent = server.requests[-1].decode()
    assert "functions.get_weather:0" not in sent
    assert "x" * 41 not in sent


@pytest.mark.parametrize("piece", [1, 10_000])
async def test_characters_that_are_cut_anywhere_come_whole(vendor: Vendor, piece: int) -> None:
    says = Says(text="naïve 😀 日本語 e\u0301 \u2028 \U0001f469\u200d\U0001f680", calls=CALLS[:1], stop="tool_calls", piece=piece)
    whole = b"".join(vendor.fake.stream(says))
    answer = answering(chunked_head(), b"".join(chunk(whole[n : n + 1]) for n in range(len(whole))), LAST_CHUNK)
    async with serving(vendor, answer) as (provider, _):
        events = await collect(provider, request(vendor))
    assert (text_of(events), end_of(events).tool_calls) == (says.text, CALLS[:1])


async def test_a_long_answer_arrives_whole_and_one_above_the_limit_does_not(vendor: Vendor) -> None:
    says = Says(text="x" * 10_000_000, usage=None, piece=100_000)
    async with serving(vendor, streamed(vendor, says)) as (provider, _):
        assert len(text_of(await collect(provider, request(vendor)))) == 10_000_000
    async with serving(vendor, streamed(vendor, dataclasses.replace(says, text=says.text + "x"))) as (provider, _):
        failed, _ = await failure(provider, request(vendor))
    assert (failed.error, "answer_max (10000000 characters)" in failed.detail) == ("malformed", True)


async def test_an_answer_that_was_not_streamed_is_the_same(vendor: Vendor) -> None:
    says = Says(text="Hello", reasoning="Hm.", calls=CALLS, stop="tool_calls")
    whole = vendor.fake.whole(says)
    if whole is None:
        pytest.skip("this vendor's stream cannot come as one document")
    async with serving(vendor, answering(stream_head("application/json"), whole)) as (provider, _):
        events = await collect(provider, request(vendor))
    end = end_of(events)
    assert (text_of(events), reasoning_of(events), end.stop_reason, end.usage) == (
        "Hello",
        "Hm.",
        "tool_calls",
        vendor.counts(Says().usage or Usage()),
    )
    assert [(call.id, msgspec.json.decode(call.arguments)) for call in end.tool_calls] == [
        (call.id, msgspec.json.decode(call.arguments)) for call in CALLS
    ]


async def test_the_output_limit_is_a_reason_for_stopping(vendor: Vendor) -> None:
    async with serving(vendor, streamed(vendor, Says(text="It was a", stop="length"))) as (provider, _):
        assert end_of(await collect(provider, request(vendor))).stop_reason == "length"


@pytest.mark.parametrize("stop", ["content_filter", "refusal"])
async def test_a_filter_and_a_refusal_are_errors_with_what_they_cost(vendor: Vendor, stop: str) -> None:
    if stop not in vendor.fake.stops:
        pytest.skip(f"this vendor never stops for {stop}")
    says = Says(text="" if stop == "refusal" else "It", refusal="I cannot help with that." if stop == "refusal" else "", stop=stop)
    async with serving(vendor, streamed(vendor, says)) as (provider, _):
        failed, _ = await failure(provider, request(vendor))
    assert (failed.error, failed.retryable, failed.usage) == (stop, False, vendor.counts(Says().usage or Usage()))
    assert stop == "content_filter" or "I cannot help with that." in failed.detail


async def test_usage_that_nobody_counted_is_estimated_and_marked(vendor: Vendor) -> None:
    async with serving(vendor, streamed(vendor, Says(text="Hello, you!", usage=None))) as (provider, _):
        end = end_of(await collect(provider, request(vendor, ChatMessage("user", "12345678"))))
    assert end.usage == Usage(2, 3, estimated=True)


async def test_what_is_counted_is_what_the_vendor_tells(vendor: Vendor) -> None:
    usage = Usage(100, 20, 30, cache_write_tokens=50, reasoning_tokens=3)
    async with serving(vendor, streamed(vendor, Says(text="ok", usage=usage))) as (provider, _):
        counted = end_of(await collect(provider, request(vendor))).usage
    assert counted == vendor.counts(usage)


# --- what vendors want back -----------------------------------------------------------------------------------------------------


async def test_what_the_vendor_wants_back_with_its_calls_goes_back_in_its_place_and_to_no_other_model(vendor: Vendor) -> None:
    says = Says(text="Let me look.", reasoning="Hm.", calls=CALLS, stop="tool_calls", signed=True)
    async with serving(vendor, streamed(vendor, says)) as (provider, server):
        end = end_of(await collect(provider, request(vendor)))
        assert end.opaque is not None
        results = [ChatMessage("tool", "ok", tool_call_id=call.id) for call in end.tool_calls]
        answered = ChatMessage("assistant", "Let me look.", end.tool_calls, opaque=end.opaque)
        messages = (ChatMessage("user", "hello"), answered, *results)
        await collect(provider, request(vendor, *messages))
        kept = vendor.kept(body_of(server))
        assert kept
        sent = msgspec.json.encode(body_of(server)).decode()
        await collect(provider, replace(request(vendor, *messages), model=vendor.model + "-other"))
        assert vendor.kept(body_of(server)) == []
        journaled = replace(answered, opaque=replace(end.opaque, provider="another"))
        await collect(provider, request(vendor, messages[0], journaled, *results))
        assert vendor.kept(body_of(server)) == []
    assert sent.count("Let me look.") == 1
    assert all(msgspec.json.encode(piece).decode().strip("{}") in sent for piece in kept)


# --- what goes to the model -----------------------------------------------------------------------------------------------------

FIELDS = [field for field in ChatRequest.__struct_fields__ if field not in ("model", "messages")]


@pytest.mark.parametrize("field", FIELDS)
async def test_every_field_of_a_request_reaches_the_wire_or_is_said_to_have_no_word_there(vendor: Vendor, field: str) -> None:
    known = vendor.sent.get(field)
    dialect = vendor.dialect("http://127.0.0.1:1")
    assert (known is None) == (field in dialect.leaves_out)
    if known is None:
        return
    plain = replace(request(vendor, **known.more), prompt_cache=False, model=known.model or vendor.model)
    async with serving(vendor, streamed(vendor, Says(text="ok"))) as (provider, server):
        await collect(provider, plain)
        without = body_of(server)
        await collect(provider, replace(plain, **{field: known.value}))
        with_it = body_of(server)
    added = {key: value for key, value in with_it.items() if key not in without or without[key] != value}
    assert added == known.body


async def test_images_go_in_by_bytes_and_by_address_among_the_text(vendor: Vendor) -> None:
    data = bytes(range(256))
    parts = (Text("Compare"), Image("image/png", data), Text("with"), Image(url="https://example.com/a.png"))
    words: list[Any] = ["Compare", vendor.image("image/png", base64.b64encode(data).decode()), "with"]
    async with serving(vendor, streamed(vendor, Says(text="ok"))) as (provider, server):
        if vendor.image_url is not None:
            words.append(vendor.image_url("https://example.com/a.png"))
        else:
            failed, _ = await failure(provider, request(vendor, ChatMessage("user", parts=parts)))
            assert (failed.error, "by its address" in failed.detail, server.connections) == ("bad_request", True, 0)
        asked = request(vendor, ChatMessage("user", parts=parts[: len(words)]))
        await collect(provider, replace(asked, prompt_cache=False))
    sent = msgspec.json.encode(body_of(server)).decode()
    places = [sent.index(msgspec.json.encode(word).decode()) for word in words]
    assert places == sorted(places)


async def test_an_image_in_a_tools_result_reaches_the_model(vendor: Vendor) -> None:
    result = ChatMessage("tool", tool_call_id="call_a", parts=(Text("a map"), Image("image/png", b"\x89PNG")))
    messages = (ChatMessage("user", "map?"), ChatMessage("assistant", "", CALLS[:1]), result)
    async with serving(vendor, streamed(vendor, Says(text="ok"))) as (provider, server):
        await collect(provider, replace(request(vendor, *messages), prompt_cache=False))
    sent = msgspec.json.encode(body_of(server)).decode()
    image = vendor.image("image/png", base64.b64encode(b"\x89PNG").decode())
    assert sent.index("a map") < sent.index(msgspec.json.encode(image).decode())


async def test_a_request_that_json_cannot_say_is_refused_without_a_call(vendor: Vendor) -> None:
    async with serving(vendor, answering()) as (provider, server):
        failed, _ = await failure(provider, request(vendor, ChatMessage("user", "\ud83d")))
        assert (failed.error, server.connections) == ("bad_request", 0)
        failed, _ = await failure(provider, request(vendor, tools=(ToolDef("t", "", {"x": {1, 2}.__iter__()}),)))
        assert (failed.error, server.connections) == ("bad_request", 0)


# --- what goes wrong ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "headers", "wait"),
    [
        ("rate_limit", ("Retry-After: 7",), 7.0),
        ("rate_limit", ("Date: Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After: Wed, 21 Oct 2026 07:28:09 GMT"), 9.0),
        ("rate_limit", ("x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 1m12.5s"), 72.5),
        ("rate_limit", (), None),
        ("server", (), None),
        ("overloaded", ("Retry-After: 2",), 2.0),
        ("authentication", (), None),
        ("context_overflow", (), None),
        ("content_filter", (), None),
    ],
)
async def test_a_status_has_its_class_and_its_wait_and_shows_no_key(
    vendor: Vendor, kind: str, headers: tuple[str, ...], wait: float | None
) -> None:
    if kind in vendor.lacks:
        pytest.skip(f"this vendor has no error for {kind}: {vendor.lacks[kind]}")
    status, body = vendor.fake.error(kind)
    body = re.sub(rb'"(message|error)":"', rf'"\1":"{KEY} '.encode(), body)
    assert KEY.encode() in body
    async with serving(vendor, answering(reply(f"{status} No", body, *headers))) as (provider, _):
        failed, events = await failure(provider, request(vendor))
    assert (failed.error, failed.status, failed.retry_after_s, events) == (kind, status, wait, [])
    assert failed.usage == Usage()
    assert KEY not in failed.detail + str(failed) + repr(failed)


@pytest.mark.parametrize("kind", ["server", "overloaded"])
async def test_an_error_in_the_middle_of_a_stream_has_its_class_and_its_usage(vendor: Vendor, kind: str) -> None:
    error = vendor.fake.error_event(kind)
    if error is None:
        pytest.skip("this vendor has no errors within a stream")
    events = vendor.fake.stream(Says(text="Hello", usage=None))
    begun = next(n for n, event in enumerate(events) if b"Hello" in event) + 1
    answer = answering(stream_head(vendor.fake.content_type), *events[:begun], error)
    async with serving(vendor, answer) as (provider, _):
        failed, seen = await failure(provider, request(vendor))
    assert (failed.error, text_of(seen)) == (kind, "Hello")
    assert failed.usage == Usage(2, 2, estimated=True)


async def test_a_stream_that_is_cut_anywhere_is_never_taken_for_an_answer(vendor: Vendor) -> None:
    """Cut at each event and in the middle of each: an error, unless the model had said why it stopped."""
    says = Says(text="Hello", reasoning="Hm", calls=CALLS, stop="tool_calls")
    events = vendor.fake.stream(says)
    whole = b"".join(events)
    cuts = sorted({n for at in _ends(events) for n in (at, at - 1, at - len(events[0]) // 2)} - {0, len(whole)})
    outcomes: list[str] = []
    for cut in cuts:
        async with serving(vendor, streamed(vendor, says, cut=cut)) as (provider, _):
            outcomes.append(await _outcome(provider, request(vendor)))
    assert set(outcomes) <= {"connection", "malformed", "empty", "whole"}
    assert {"connection", "malformed"} <= set(outcomes)
    assert "whole" not in outcomes[:-8]  # at the earliest when the model has said why it stopped


async def _outcome(provider: HttpProvider, asked: ChatRequest) -> str:
    try:
        end = end_of(await collect(provider, asked))
    except ProviderError as error:
        return error.error
    return "whole" if (end.tool_calls, end.stop_reason) == (CALLS, "tool_calls") else f"half: {end}"


def _ends(events: list[bytes]) -> list[int]:
    ends, at = list[int](), 0
    for event in events:
        at += len(event)
        ends.append(at)
    return ends


@pytest.mark.parametrize("fault", ["nothing", "no event", "no words"])
async def test_an_empty_answer_is_an_error(vendor: Vendor, fault: str) -> None:
    bodies = {"nothing": [], "no event": [vendor.quiet], "no words": vendor.fake.stream(Says(usage=None))}
    async with serving(vendor, answering(stream_head(vendor.fake.content_type), *bodies[fault])) as (provider, _):
        failed, events = await failure(provider, request(vendor))
    assert (failed.error, events) == ("empty", [])


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stalled_stream_ends_at_its_limit_and_closes_the_socket(vendor: Vendor, begun: bool) -> None:
    events = vendor.fake.stream(Says(text="Hello", usage=None))
    upto = next(n for n, event in enumerate(events) if b"Hello" in event) + 1 if begun else 0
    answer = hanging(stream_head(vendor.fake.content_type), *events[:upto])
    limits = CallLimits(idle_s=0.2) if begun else CallLimits(first_token_s=0.2)
    async with serving(vendor, answer, limits) as (provider, server):
        failed, seen = await failure(provider, request(vendor))
        assert (failed.error, text_of(seen)) == ("timeout", "Hello" if begun else "")
        assert ("idle_timeout_s" if begun else "first_token_timeout_s") in failed.detail
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)


@pytest.mark.parametrize("way", ["cancel", "aclose"])
async def test_who_stops_in_the_middle_closes_the_socket_and_leaves_no_task(vendor: Vendor, way: str) -> None:
    events = vendor.fake.stream(Says(text="Hello", usage=None))
    begun = next(n for n, event in enumerate(events) if b"Hello" in event) + 1
    async with serving(vendor, hanging(stream_head(vendor.fake.content_type), *events[:begun])) as (provider, server):
        stream = provider.chat(request(vendor))
        assert await asyncio.wait_for(anext(stream), BOUND_S) == TextDelta("Hello")
        tasks = asyncio.all_tasks()
        if way == "cancel":
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        else:
            await stream.aclose()
        await asyncio.wait_for(server.client_gone.wait(), BOUND_S)
        assert asyncio.all_tasks() <= tasks


async def test_too_many_calls_and_an_event_that_never_ends_are_stopped_by_name(vendor: Vendor) -> None:
    async with serving(vendor, streamed(vendor, Says(calls=CALLS, stop="tool_calls")), CallLimits(tool_calls_max=1)) as (
        provider,
        _,
    ):
        failed, _ = await failure(provider, request(vendor))
    assert (failed.error, "tool_calls_max (1)" in failed.detail) == ("malformed", True), failed.detail
    endless = answering(stream_head(vendor.fake.content_type), vendor.endless)
    async with serving(vendor, endless, CallLimits(line_max=1024, answer_max=1000)) as (provider, _):
        failed, _ = await failure(provider, request(vendor))
    assert (failed.error, "line_max (" in failed.detail) == ("malformed", True), failed.detail


async def test_a_key_that_changes_counts_from_the_next_call_on_and_one_that_cannot_be_had_ends_the_call(vendor: Vendor) -> None:
    keys = ["sk-one", "sk-two"]

    async def key() -> str:
        if not keys:
            raise ProviderError("unresolved", "providers.main.api_key: secret 'x' has no value")
        return keys.pop(0)

    async with RawServer(streamed(vendor, Says(text="ok"))) as server:
        provider = HttpProvider("main", vendor.dialect(f"http://127.0.0.1:{server.port}{vendor.path}"), key)
        await collect(provider, request(vendor))
        await collect(provider, request(vendor))
        failed, _ = await failure(provider, request(vendor))
        await provider.close()
        assert [vendor.key_header.format(k).encode() in r for k, r in zip(("sk-one", "sk-two"), server.requests, strict=True)] == [
            True
        ] * 2
    assert failed.error == "unresolved"
