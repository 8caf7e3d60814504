"""The vendors' own programs at the same servers: what they make of an answer, and what they would send. Test dependencies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import msgspec
import openai


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
async def openai_chat(url: str) -> AsyncGenerator[Hear]:
    """As a stream, put together by the program itself."""

    async def hear(body: Mapping[str, Any]) -> Heard:
        stream = await client.chat.completions.create(**_given(body), stream=True)
        text, reasoning, stop, usage = "", "", "", None
        calls: dict[int, list[str]] = {}
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                stop = choice.finish_reason or stop
                for call in choice.delta.tool_calls or ():
                    kept = calls.setdefault(call.index, ["", "", ""])
                    function = call.function
                    added = (call.id, function.name if function else None, function.arguments if function else None)
                    calls[call.index] = [old + (new or "") for old, new in zip(kept, added, strict=True)]
        assert usage is not None
        made = tuple((call_id, name, msgspec.json.decode(arguments)) for call_id, name, arguments in calls.values())
        return Heard(text, made, stop, usage.prompt_tokens, usage.completion_tokens, reasoning)

    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as opened:
        client: Any = opened  # its types know no parameters that come from a mapping
        yield hear


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


#: By the kind of provider: (URL of the server) -> the vendor's program, opened once, as that takes its time.
SDKS: dict[str, Callable[[str], AbstractAsyncContextManager[Hear]]] = {
    "openai": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic_messages,
}
