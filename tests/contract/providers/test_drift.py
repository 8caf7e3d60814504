"""The vendors' official programs at the same servers hear the same conversation, and know every field that we send.

They are test dependencies. Where a vendor changes its wire, a new version of its program fails here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

from support.aimockserver import Aimock
from support.chats import collect, end_of, reasoning_of, text_of
from support.rawserver import RawServer, answering, stream_head
from support.vendors.base import Says, Vendor
from support.vendors.sdks import SDKS, Heard
from support.vendors.table import VENDORS
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, Text, ToolCall, ToolDef

CALLS = (ToolCall("call_a", "get_weather", '{"city":"São Paulo"}'), ToolCall("call_b", "get_time", "{}"))
TOOLS = tuple(ToolDef(call.name, "", {"type": "object", "properties": {}}) for call in CALLS)
STOPS = {  # the vendors' words for ours
    "stop": {"stop", "completed", "end_turn", "STOP"},
    "tool_calls": {"tool_calls", "completed", "tool_use", "STOP", "FUNCTION_CALL", "stop"},
    "length": {"length", "max_output_tokens", "max_tokens", "incomplete", "MAX_TOKENS"},
}
pytestmark = pytest.mark.parametrize("vendor", [v for v in VENDORS if v.kind in SDKS], ids=lambda vendor: vendor.kind)


@asynccontextmanager
async def both(vendor: Vendor, url: str) -> AsyncGenerator[Callable[[ChatRequest], Awaitable[tuple[list[ChatEvent], Heard]]]]:
    """What we hear at `url`, and what the vendor's program hears when it is given the very same request."""
    dialect = vendor.dialect(url + vendor.path)
    provider = HttpProvider("main", dialect, "k")
    async with SDKS[vendor.kind](url) as hear:

        async def ask(request: ChatRequest) -> tuple[list[ChatEvent], Heard]:
            return await collect(provider, request), await hear(msgspec.json.decode(dialect.body(request)))

        try:
            yield ask
        finally:
            await provider.close()


def check(vendor: Vendor, events: list[ChatEvent], heard: Heard) -> None:
    end = end_of(events)
    calls = tuple(
        ("" if "ids" in vendor.lacks else call.id, call.name, msgspec.json.decode(call.arguments)) for call in end.tool_calls
    )
    assert (text_of(events), reasoning_of(events), calls) == (heard.text, heard.reasoning, heard.calls)
    assert heard.stop in STOPS[end.stop_reason]
    if heard.output_tokens:
        assert (end.usage.input_tokens, end.usage.output_tokens) == (heard.input_tokens, heard.output_tokens)
    else:  # a server that counts nothing, as 0
        assert end.usage.estimated


SAID = (
    Says(text="Hello, wörld 😀."),
    Says(text="It is 42.", reasoning="Let me see.", signed=True),
    Says(text="Let me look.", calls=CALLS, stop="tool_calls", reasoning="Hm.", signed=True),
    Says(text="It was a", stop="length", usage=Usage(100, 7, 30, cache_write_tokens=50)),
)


async def test_our_fakes_are_understood_by_the_vendors_program(vendor: Vendor) -> None:
    said = list(SAID)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head(vendor.fake.content_type) + b"".join(vendor.fake.stream(said[0])))

    async with RawServer(answer) as server, both(vendor, f"http://127.0.0.1:{server.port}") as ask:
        while said:
            events, heard = await ask(ChatRequest(vendor.model, (ChatMessage("user", "hello"),), TOOLS))
            check(vendor, events, heard)
            assert (heard.text, heard.reasoning, len(heard.calls)) == (said[0].text, said[0].reasoning, len(said[0].calls))
            said.pop(0)


async def test_at_an_independent_server_both_hear_the_same(vendor: Vendor, aimock: Aimock) -> None:
    if "program" in vendor.aimock_wrong:
        pytest.skip(f"the vendor's program does not understand aimock: {vendor.aimock_wrong['program']}; it understands the fake")
    async with both(vendor, aimock.url) as ask:
        calls = () if "calls" in vendor.aimock_wrong else ("one tool", "two tools")
        for text in ("say hello", *calls, "cut by length"):
            messages = (ChatMessage("system", "Be kind."), ChatMessage("user", text))
            check(vendor, *await ask(ChatRequest(vendor.model, messages, TOOLS)))


async def test_every_field_that_we_send_is_a_parameter_of_the_vendors_program_and_comes_out_of_it_unchanged(vendor: Vendor) -> None:
    images = (Image("image/png", b"\x89PNG"), *([Image(url="https://example.com/a.png")] if vendor.image_url else []))
    history = (
        ChatMessage("system", "Be kind."),
        ChatMessage("user", parts=(Text("Look"), *images)),
        ChatMessage("assistant", "Let me look.", CALLS),
        *(ChatMessage("tool", "ok", tool_call_id=call.id) for call in CALLS),
    )
    plain = ChatRequest(vendor.model, history, TOOLS)
    requests = [replace(plain, **known.more, **{field: known.value}) for field, known in vendor.sent.items()]
    answer = answering(stream_head(vendor.fake.content_type), b"".join(vendor.fake.stream(Says(text="ok"))))
    async with RawServer(answer) as server, both(vendor, f"http://127.0.0.1:{server.port}") as ask:
        for request in [plain, *requests]:
            await ask(request)
            ours, theirs = (msgspec.json.decode(sent.partition(b"\r\n\r\n")[2]) for sent in server.requests[-2:])
            assert ours == vendor.likewise(theirs)
