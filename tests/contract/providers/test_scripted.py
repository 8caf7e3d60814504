"""One script, two ways: in process and over the wire a conversation looks the same, faults included."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from support.chats import BOUND_S, ask, collect, end_of, failure, reasoning_of, text_of
from support.waiting import until
from talon.domain.entries import Usage
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.openai_chat import OpenAIChat
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Finished, Provider, TextDelta, ToolDef
from talon.providers.scripted.provider import ScriptedProvider
from talon.providers.scripted.script import Script
from talon.providers.scripted.server import REQUESTS_MAX, ScriptedServer

SCRIPT = r"""
defaults: {chunk_chars: 4}
rules:
  - when: {user_matches: 'due in (?P<days>\d+)', step: 1}
    reasoning: I need the list first.
    text: One moment, 日本語.
    calls:
      - {tool: list_renewals, arguments: {days: '{{ match.days | json }}', note: "quotes \" and 😀"}}
      - {tool: current_time}
  - when: {results: 2}
    text: 'Found {{ result.0 }} at {{ result.1 }}.'
    usage: {input_tokens: 900, output_tokens: 40, cached_tokens: 7}
  - {when: {user: cut off}, text: It is cut, stop_reason: length}
default: {text: 'You said: {{ user }}'}
"""


@asynccontextmanager
async def both(script: str, limits: CallLimits | None = None) -> AsyncGenerator[dict[str, Provider]]:
    """The same script in process and behind a server, each with counters of its own."""
    async with ScriptedServer(Script.parse(script)) as server:
        wire = HttpProvider("main", OpenAIChat(server.base_url), limits=limits)
        try:
            yield {"process": ScriptedProvider("main", Script.parse(script), limits=limits), "wire": wire}
        finally:
            await wire.close()


def seen(events: list[ChatEvent]) -> tuple[str, str, Finished]:
    end = msgspec.structs.replace(end_of(events), opaque=None)  # what a wire wants back, a call in process has no need of
    return text_of(events), reasoning_of(events), end


async def test_a_turn_with_parallel_calls_is_the_same_both_ways() -> None:
    async with both(SCRIPT) as providers:
        turns = {way: await _turn(provider) for way, provider in providers.items()}
    assert turns["process"] == turns["wire"]
    first, second = turns["wire"]
    assert first[:2] == ("One moment, 日本語.", "I need the list first.")
    assert [call.name for call in first[2].tool_calls] == ["list_renewals", "current_time"]
    assert msgspec.json.decode(first[2].tool_calls[0].arguments) == {"days": 14, "note": 'quotes " and 😀'}
    assert second == ("Found two at noon.", "", Finished("stop", Usage(900, 40, 7), (), "m"))


async def _turn(provider: Provider) -> list[tuple[str, str, Finished]]:
    tools = (ToolDef("list_renewals", "Lists.", {"type": "object"}), ToolDef("current_time", "", {"type": "object"}))
    messages = (ChatMessage("system", "Be kind."), ChatMessage("user", "Renewals due in 14 days"))
    first = await collect(provider, ChatRequest("m", messages, tools, 0.5, 100, "s-1"))
    calls = end_of(first).tool_calls
    results = tuple(ChatMessage("tool", text, tool_call_id=call.id) for call, text in zip(calls, ("two", "noon"), strict=True))
    second = await collect(
        provider, ChatRequest("m", (*messages, ChatMessage("assistant", text_of(first), calls), *results), tools)
    )
    return [seen(first), seen(second)]


@pytest.mark.parametrize("text", ["hello", "please be cut off", "", "a\x00b\n\t", "x" * 5000, "日本語 😀"])
async def test_an_answer_is_the_same_both_ways_whatever_came_together(text: str) -> None:
    async with both(SCRIPT) as providers:
        process, wire = [seen(await collect(provider, ask(text))) for provider in providers.values()]
    assert process == wire


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("{kind: status, status: 401}", "authentication", ""),
        ("{kind: status, status: 429, retry_after_s: 1.5}", "rate_limit", ""),
        ("{kind: status, status: 500}", "server", ""),
        ("{kind: status, status: 529}", "overloaded", ""),
        ("{kind: status, status: 400, message: maximum context length is 10}", "context_overflow", ""),
        ("{kind: empty}", "empty", ""),
        ("{kind: garbage}", "malformed", ""),
        ("{kind: half_json}", "malformed", ""),
        ("{kind: half_json, after: 2}", "malformed", "abcdefgh"),
        ("{kind: cut}", "connection", ""),
        ("{kind: cut, after: 1}", "connection", "abcd"),
        ("{kind: cut, after: 99}", "connection", "abcdefghij"),
        ("{kind: stall}", "timeout", ""),
        ("{kind: stall, after: 3}", "timeout", "abcdefghij"),
    ],
)
async def test_a_fault_fails_the_same_way_both_ways_and_then_is_over(fault: str, error: str, text: str) -> None:
    script = f"defaults: {{chunk_chars: 4}}\nrules: [{{times: 1, text: abcdefghij, fault: {fault}}}]\ndefault: {{text: fine}}"
    limit = 0.4 if error == "timeout" else 5.0
    async with both(script, CallLimits(first_token_s=limit, idle_s=limit)) as providers:
        failed = {way: await failure(provider) for way, provider in providers.items()}
        after = [text_of(await collect(provider, ask())) for provider in providers.values()]
    assert after == ["fine", "fine"]
    for caught, events in failed.values():
        assert (caught.error, text_of(events)) == (error, text), caught.detail
    process, wire = failed["process"][0], failed["wire"][0]
    assert (process.status, process.retry_after_s) == (wire.status, wire.retry_after_s)


async def test_a_request_that_the_script_cannot_answer_fails_the_same_way() -> None:
    async with both("rules: [{when: {user: x}, text: a}]") as providers:
        for provider in providers.values():
            caught, _ = await failure(provider, ask("hello"))
            assert (caught.error, caught.status, "no rule" in caught.detail) == ("bad_request", 400, True)


async def test_delays_hold_back_the_first_token_and_each_piece() -> None:
    script = "default: {text: abcd, delay_ms: 60, chunk_chars: 1, chunk_delay_ms: 30}"
    loop = asyncio.get_running_loop()
    async with both(script) as providers:
        for provider in providers.values():
            start = loop.time()
            times = [loop.time() - start async for event in provider.chat(ask()) if isinstance(event, TextDelta)]
            assert times[0] >= 0.059
            assert times[3] >= 0.059 + 3 * 0.029


@pytest.mark.parametrize(
    "script", ["default: {text: a, delay_ms: 60000}", "default: {text: ab, chunk_chars: 1, chunk_delay_ms: 60000}"]
)
async def test_a_model_that_is_too_slow_times_out_the_same_way(script: str) -> None:
    async with both(script, CallLimits(first_token_s=0.2, idle_s=0.2)) as providers:
        for provider in providers.values():
            caught, _ = await failure(provider)
            assert caught.error == "timeout"


async def test_a_client_that_goes_away_is_seen_by_the_server() -> None:
    async with ScriptedServer(Script.parse("default: {text: abc, fault: {kind: stall, after: 1}}")) as server:
        provider = HttpProvider("main", OpenAIChat(server.base_url))
        stream = provider.chat(ask())
        await asyncio.wait_for(anext(stream), BOUND_S)
        assert server.requests[0].ended == "open"
        await stream.aclose()
        await until(lambda: server.requests[0].ended == "disconnected")
        await provider.close()


async def test_without_stream_the_whole_answer_comes_as_one_document_and_faults_too() -> None:
    script = (
        "rules: [{when: {user: half}, text: abc, fault: {kind: half_json}}, {when: {user: cut}, text: abc, fault: {kind: cut}}]"
    )
    script += "\ndefault: {text: hi, reasoning: hm, calls: [{tool: t, arguments: {a: 1}}]}"
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
    async with ScriptedServer(Script.parse(script)) as server, aiohttp.ClientSession() as http:
        url = server.base_url + "/chat/completions"
        async with http.post(url, json=body) as response:
            answer = await response.json()
        async with http.post(url, json=body | {"messages": [{"role": "user", "content": "half"}]}) as response:
            with pytest.raises(msgspec.DecodeError):
                msgspec.json.decode(await response.read())
        with pytest.raises(aiohttp.ClientPayloadError):
            async with http.post(url, json=body | {"messages": [{"role": "user", "content": "cut"}]}) as response:
                await response.read()
    call = {"id": "call_0", "type": "function", "function": {"name": "t", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": "hi", "reasoning_content": "hm", "tool_calls": [call]}
    assert answer["choices"] == [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    assert answer["usage"]["prompt_tokens"] == 2  # "hello" / 4, rounded up


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":"m"}', b'{"model":"m","messages":[{"role":"robot","content":"x"}]}', b"\xff"]
)
async def test_a_request_that_is_no_request_gets_a_400_in_the_vendors_form(body: bytes) -> None:
    async with (
        ScriptedServer(Script.parse("default: {text: a}")) as server,
        aiohttp.ClientSession() as http,
        http.post(server.base_url + "/chat/completions", data=body) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_the_server_asks_for_its_key_and_never_shows_one() -> None:
    async with ScriptedServer(Script.parse("default: {text: a}"), api_key="sk-right") as server:
        wrong, right = (HttpProvider("main", OpenAIChat(server.base_url), key) for key in ("sk-wrong", "sk-right"))
        caught, _ = await failure(wrong)
        assert (caught.error, "providers.main.api_key" in caught.detail) == ("authentication", True)
        await collect(right, ask())
        async with aiohttp.ClientSession() as http, http.get(server.base_url.removesuffix("/v1") + "/requests") as response:
            assert b"sk-" not in await response.read()
        await wrong.close()
        await right.close()


async def test_requests_are_kept_for_inspection_up_to_a_bound() -> None:
    async with ScriptedServer(Script.parse("default: {text: a}")) as server, aiohttp.ClientSession() as http:
        provider = HttpProvider("main", OpenAIChat(server.base_url))
        for number in range(REQUESTS_MAX + 5):
            await collect(provider, ask(f"n{number}"))
        root = server.base_url.removesuffix("/v1")
        async with http.get(root + "/requests?last=2") as response:
            shown = await response.json()
        async with http.delete(root + "/requests") as response:
            assert response.status == 204
        assert shown["total"] == REQUESTS_MAX + 5
        assert [item["body"]["messages"][0]["content"] for item in shown["items"]] == ["n1003", "n1004"]
        assert {item["ended"] for item in shown["items"]} == {"done"}
        assert len(server.requests) == 0
        await provider.close()


async def test_many_calls_at_once_do_not_mix() -> None:
    async with both(SCRIPT) as providers:
        for provider in providers.values():
            answers = await asyncio.gather(*(collect(provider, ask(f"caller {n}")) for n in range(64)))
            assert [text_of(events) for events in answers] == [f"You said: caller {n}" for n in range(64)]


async def test_the_program_says_first_where_it_is_ready_and_ends_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("default: {text: from outside, fault: null}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talon.providers.scripted", str(path), "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), BOUND_S)).decode()
        words, _, url = line.rpartition(" ")
        assert words == "scripted model server ready"
        provider = HttpProvider("main", OpenAIChat(url.strip()))
        assert text_of(await collect(provider, ask())) == "from outside"
        await provider.close()
        os.kill(process.pid, signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), BOUND_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_program_refuses_a_wrong_script_with_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("rules: [{txt: a}]")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talon.providers.scripted", str(path), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert process.returncode == 2
    assert b"rules[0]" in errors
    assert b"Traceback" not in errors
