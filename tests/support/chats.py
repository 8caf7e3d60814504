"""Short ways to make chat requests and to collect what a provider answers."""

from __future__ import annotations

import asyncio

from talon.providers.protocol import (
    ChatEvent,
    ChatMessage,
    ChatRequest,
    Finished,
    Provider,
    ProviderError,
    ReasoningDelta,
    TextDelta,
)

BOUND_S = 20.0


def ask(text: str = "hello", *more: ChatMessage, model: str = "m") -> ChatRequest:
    return ChatRequest(model, (ChatMessage("user", text), *more))


async def collect(provider: Provider, request: ChatRequest) -> list[ChatEvent]:
    async def read() -> list[ChatEvent]:
        return [event async for event in provider.chat(request)]

    return await asyncio.wait_for(read(), BOUND_S)


async def failure(provider: Provider, request: ChatRequest | None = None) -> tuple[ProviderError, list[ChatEvent]]:
    """The error of a call that must fail, and what came before it."""
    events: list[ChatEvent] = []

    async def read() -> ProviderError | None:
        try:
            async for event in provider.chat(request or ask()):
                events.append(event)  # noqa: PERF401 - what came before the error counts
        except ProviderError as error:
            return error
        return None

    error = await asyncio.wait_for(read(), BOUND_S)
    assert error is not None, f"the call should have failed, but gave {events}"
    return error, events


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def reasoning_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def end_of(events: list[ChatEvent]) -> Finished:
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert isinstance(events[-1], Finished)
    return events[-1]
