"""The vendors' own programs at the same servers: what they make of an answer, and what they would send. Test dependencies."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anthropic
import botocore.config
import botocore.session
import httpx
import msgspec
import ollama as ollama_sdk
import openai
from google.genai import Client, types


@dataclass(frozen=True)
class Heard:
    """A conversation's answer as the vendor's program gives it; `stop` in the vendor's word."""

    text: str
    calls: tuple[tuple[str, str, object], ...]  # id, name, arguments
    stop: str
    input_tokens: int
    output_tokens: int
    reasoning: str = ""


#: (the body's fields, given to the program as its own parameters) -> what it heard.
Hear = Callable[[Mapping[str, Any]], Awaitable[Heard]]
#: Of Anthropic's program: what older models take and it has no parameter for any more.
OLDER = ("temperature", "top_p", "top_k")


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "stream"}


@asynccontextmanager
async def openai_chat(url: str, path: str = "/v1", more: tuple[str, ...] = ()) -> AsyncGenerator[Hear]:
    """As a stream, put together by the program itself. `more`: fields that another vendor's documents tell to give it besides."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        fields = _given(body)
        extra = {name: fields.pop(name) for name in more if name in fields}
        stream = await client.chat.completions.create(**fields, stream=True, extra_body=extra or None)
        text, reasoning, stop, usage = "", "", "", None
        calls: dict[int, list[str]] = {}
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                thought = [getattr(choice.delta, name, None) for name in ("reasoning_content", "reasoning")]
                reasoning += thought[0] or thought[1] or ""
                stop = choice.finish_reason or stop
                for call in choice.delta.tool_calls or ():
                    kept = calls.setdefault(call.index, ["", "", ""])
                    function = call.function
                    added = (call.id, function.name if function else None, function.arguments if function else None)
                    calls[call.index] = [old + (new or "") for old, new in zip(kept, added, strict=True)]
        assert usage is not None
        made = tuple((call_id, name, msgspec.json.decode(arguments)) for call_id, name, arguments in calls.values())
        return Heard(text, made, stop, usage.prompt_tokens, usage.completion_tokens, reasoning)

    async with openai.AsyncOpenAI(base_url=url + path, api_key="k", max_retries=0) as opened:
        client: Any = opened  # its types know no parameters that come from a mapping
        yield hear


def openrouter(url: str) -> AbstractAsyncContextManager[Hear]:
    """The program that OpenRouter's documents show."""
    return openai_chat(url, "/api/v1", ("top_k", "reasoning", "usage"))


@asynccontextmanager
async def openai_responses(url: str) -> AsyncGenerator[Hear]:
    """From the last event's response."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        stream = await client.responses.create(**_given(body), stream=True)
        final = None
        async for event in stream:
            if event.type in ("response.completed", "response.incomplete"):
                final = event.response
        assert final is not None
        calls = tuple(
            (item.call_id, item.name, msgspec.json.decode(item.arguments)) for item in final.output if item.type == "function_call"
        )
        reasoning = "".join(part.text for item in final.output if item.type == "reasoning" for part in item.summary)
        stop = final.incomplete_details.reason if final.incomplete_details else final.status
        usage = final.usage
        counted = (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)
        return Heard(final.output_text, calls, str(stop), *counted, reasoning)

    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as opened:
        client: Any = opened  # its types know no parameters that come from a mapping
        yield hear


@asynccontextmanager
async def anthropic_messages(url: str) -> AsyncGenerator[Hear]:
    """As a stream, put together by the program itself."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        fields = _given(body)
        older = {name: fields.pop(name) for name in OLDER if name in fields}
        async with client.messages.stream(**fields, extra_body=older or None) as stream:
            message = await stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        reasoning = "".join(block.thinking for block in message.content if block.type == "thinking")
        calls = tuple((block.id, block.name, block.input) for block in message.content if block.type == "tool_use")
        usage = message.usage
        asked = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        return Heard(text, calls, str(message.stop_reason), asked, usage.output_tokens, reasoning)

    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as opened:
        client: Any = opened  # its types know no parameters that come from a mapping
        yield hear


@asynccontextmanager
async def gemini(url: str) -> AsyncGenerator[Hear]:
    """As a stream of whole parts."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        names = {"systemInstruction": "system_instruction", "toolConfig": "tool_config"}
        config = {names.get(name, name): value for name, value in body.items() if name not in ("contents", "generationConfig")}
        config |= body.get("generationConfig", {})
        contents = [types.Content.model_validate(content) for content in body["contents"]]
        options = types.GenerateContentConfig.model_validate(config)
        chunks = await client.models.generate_content_stream(model="gemini-3-flash", contents=contents, config=options)
        parts: list[Any] = []
        stop, usage = "", types.GenerateContentResponseUsageMetadata()
        async for chunk in chunks:
            usage = chunk.usage_metadata or usage
            for candidate in chunk.candidates or ():
                parts += (candidate.content.parts or ()) if candidate.content else ()
                stop = candidate.finish_reason.value if candidate.finish_reason else stop
        text = "".join(part.text or "" for part in parts if not part.thought)
        reasoning = "".join(part.text or "" for part in parts if part.thought)
        calls = tuple(
            (part.function_call.id, part.function_call.name, part.function_call.args) for part in parts if part.function_call
        )
        output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        return Heard(text, calls, stop, usage.prompt_token_count or 0, output, reasoning)

    async with httpx.AsyncClient() as http:  # it would take aiohttp, and in a way that aiohttp warns of
        options = types.HttpOptions(base_url=url, api_version="v1beta", httpx_async_client=http)
        opened: Any = Client(api_key="k", http_options=options)
        client = opened.aio
        yield hear
        opened.close()


@asynccontextmanager
async def ollama(url: str) -> AsyncGenerator[Hear]:
    """As a stream; the program knows no ids of calls."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        fields = {name: value for name, value in _given(body).items() if name != "truncate"}
        text, reasoning, last = "", "", None
        calls: list[tuple[str, str, object]] = []
        async for last in await client.chat(**fields, stream=True):
            text += last.message.content or ""
            reasoning += last.message.thinking or ""
            calls += [("", call.function.name, call.function.arguments) for call in last.message.tool_calls or ()]
        assert last is not None
        return Heard(text, tuple(calls), last.done_reason, last.prompt_eval_count, last.eval_count, reasoning)

    made: Any = ollama_sdk.AsyncClient(host=url)  # its own types are incomplete
    async with made as client:
        yield hear


def _bytes(value: Any) -> Any:
    """A body's base64 as the bytes that the program wants."""
    if isinstance(value, list):
        return [_bytes(item) for item in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    fields = cast(dict[str, Any], value)
    binary = ("bytes", "redactedContent")
    return {name: base64.b64decode(item) if name in binary else _bytes(item) for name, item in fields.items()}


@asynccontextmanager
async def bedrock(url: str) -> AsyncGenerator[Hear]:
    """As a stream, in a thread, as the program has no other way."""

    def ask(body: Mapping[str, Any]) -> Heard:
        events: list[dict[str, Any]] = list(client.converse_stream(modelId="m", **_bytes(dict(body)))["stream"])
        deltas = [
            (e["contentBlockDelta"]["contentBlockIndex"], e["contentBlockDelta"]["delta"])
            for e in events
            if "contentBlockDelta" in e
        ]
        starts = [e["contentBlockStart"] for e in events if "contentBlockStart" in e]
        text = "".join(delta.get("text", "") for _, delta in deltas)
        reasoning = "".join(delta.get("reasoningContent", {}).get("text", "") for _, delta in deltas)
        calls: list[tuple[str, str, object]] = []
        for start in starts:
            written = "".join(delta["toolUse"]["input"] for at, delta in deltas if at == start["contentBlockIndex"])
            use = start["start"]["toolUse"]
            calls.append((use["toolUseId"], use["name"], msgspec.json.decode(written)))
        stop = next(e["messageStop"]["stopReason"] for e in events if "messageStop" in e)
        usage = next((e["metadata"]["usage"] for e in events if "metadata" in e), dict[str, int]())
        cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
        return Heard(text, tuple(calls), stop, usage.get("inputTokens", 0) + cached, usage.get("outputTokens", 0), reasoning)

    async def hear(body: Mapping[str, Any]) -> Heard:
        return await asyncio.to_thread(ask, body)

    session: Any = botocore.session.Session()
    client = session.create_client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=botocore.config.Config(retries={"max_attempts": 0}, parameter_validation=True),
    )
    yield hear
    client.close()


#: By the kind of provider: (URL of the server) -> the vendor's program, opened once, as that takes its time.
SDKS: dict[str, Callable[[str], AbstractAsyncContextManager[Hear]]] = {
    "openai": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic_messages,
    "gemini": gemini,
    "bedrock": bedrock,
    "ollama": ollama,
    "openrouter": openrouter,
}
