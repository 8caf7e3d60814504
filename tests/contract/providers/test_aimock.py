"""Every vendor's wire against aimock, a model server that we did not write. Its fixtures are in `support/aimock/fixtures.json`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from support.aimockserver import Aimock
from support.chats import collect, end_of, failure, reasoning_of, text_of
from support.vendors.base import Vendor
from support.vendors.table import VENDORS
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.protocol import AnswerSchema, ChatMessage, ChatRequest, Image, Text, ToolDef

LONG = "Hello, naïve 😀 日本語 e\u0301!"
TOOLS = (
    ToolDef("get_weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}),
    ToolDef("get_time", "Tells the time.", {"type": "object"}),
)
pytestmark = pytest.mark.parametrize("vendor", VENDORS, ids=[vendor.kind for vendor in VENDORS])


@pytest.fixture
async def provider(vendor: Vendor, aimock: Aimock) -> AsyncGenerator[HttpProvider]:
    _right(vendor, "all")
    made = HttpProvider("main", vendor.dialect(aimock.url + vendor.path), "k", limits=CallLimits(first_token_s=10, idle_s=0.5))
    yield made
    await made.close()


def _right(vendor: Vendor, case: str) -> None:
    if case in vendor.aimock_wrong:
        pytest.skip(f"aimock is wrong here: {vendor.aimock_wrong[case]}; the fake is not")


def request(vendor: Vendor, text: str, *more: ChatMessage, **fields: Any) -> ChatRequest:
    return ChatRequest(vendor.model, (ChatMessage("system", "Be kind."), ChatMessage("user", text), *more), **fields)


async def test_text_comes_with_all_its_characters_and_is_counted(vendor: Vendor, provider: HttpProvider) -> None:
    events = await collect(provider, request(vendor, "say hello"))
    assert text_of(events) == LONG
    end = end_of(events)
    assert end.stop_reason == "stop"
    assert end.usage.output_tokens > 0


async def test_reasoning_comes_apart_from_the_text(vendor: Vendor, provider: HttpProvider) -> None:
    _right(vendor, "reasoning")
    events = await collect(provider, request(vendor, "think first", thinking="low", max_output_tokens=9000))
    assert (reasoning_of(events), text_of(events)) == ("Six times seven, let me see.", "It is 42.")


@pytest.mark.parametrize("tools", [1, 2])
async def test_a_conversation_with_tools(vendor: Vendor, provider: HttpProvider, tools: int) -> None:
    asked = request(vendor, "one tool" if tools == 1 else "two tools", tools=TOOLS)
    first = await collect(provider, asked)
    calls = end_of(first).tool_calls
    assert end_of(first).stop_reason == "tool_calls"
    assert [call.name for call in calls] == ["get_weather", "get_time"][:tools]
    assert msgspec.json.decode(calls[0].arguments) == {"city": "São Paulo" if tools == 1 else "Rome"}
    answered = ChatMessage("assistant", text_of(first), calls, opaque=end_of(first).opaque)
    results = (ChatMessage("tool", "sunny", tool_call_id=call.id) for call in calls)
    second = await collect(provider, msgspec.structs.replace(asked, messages=(*asked.messages, answered, *results)))
    assert text_of(second) == ("It is sunny." if tools == 1 else "Sunny, and noon.")


async def test_an_answer_by_schema(vendor: Vendor, provider: HttpProvider) -> None:
    schema = AnswerSchema("place", {"type": "object", "properties": {"city": {"type": "string"}}})
    text = text_of(await collect(provider, request(vendor, "as json", answer_schema=schema)))
    assert msgspec.json.decode(text) == {"city": "Rome", "degrees": 20}


async def test_an_image_is_taken(vendor: Vendor, provider: HttpProvider) -> None:
    seen = ChatMessage("user", parts=(Image("image/png", b"\x89PNG\r\n"), Text("what do you see?")))
    events = await collect(provider, ChatRequest(vendor.model, (seen,)))
    assert text_of(events) == "A red square."


async def test_the_output_limit(vendor: Vendor, provider: HttpProvider) -> None:
    _right(vendor, "length")
    events = await collect(provider, request(vendor, "cut by length", max_output_tokens=5))
    assert (text_of(events), end_of(events).stop_reason) == ("It was a dark and", "length")


async def test_a_filter(vendor: Vendor, provider: HttpProvider) -> None:
    _right(vendor, "content_filter")
    failed, _ = await failure(provider, request(vendor, "filtered"))
    assert failed.error == "content_filter"


async def test_nothing_is_an_error(vendor: Vendor, provider: HttpProvider) -> None:
    failed, _ = await failure(provider, request(vendor, "nothing"))
    assert failed.error == "empty"


async def test_a_stream_that_is_cut(vendor: Vendor, provider: HttpProvider) -> None:
    failed, events = await failure(provider, request(vendor, "cut off"))
    assert failed.error == "connection"
    assert failed.usage.estimated or failed.usage == Usage()
    assert "This answer is long enough to be cut off in its middle by the server.".startswith(text_of(events))


async def test_a_stream_that_stalls(vendor: Vendor, provider: HttpProvider) -> None:
    failed, _ = await failure(provider, request(vendor, "stall"))
    assert failed.error == "timeout"


@pytest.mark.parametrize(
    ("text", "error", "status", "wait"),
    [
        ("fail 429", "rate_limit", 429, 1.0),
        ("fail 500", "server", 500, None),
        ("fail 529", "overloaded", 529, None),
        ("fail 401", "authentication", 401, None),
        ("fail overflow", "context_overflow", 400, None),
        ("fail filter", "content_filter", 400, None),
    ],
)
async def test_a_status(vendor: Vendor, provider: HttpProvider, text: str, error: str, status: int, wait: float | None) -> None:
    failed, events = await failure(provider, request(vendor, text))
    assert (failed.error, failed.status, failed.retry_after_s, events) == (error, status, wait, []), failed.detail
