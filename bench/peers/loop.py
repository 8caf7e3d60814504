"""The agent loop in plain asyncio, `save` called with every step before the next begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from front import Message, Model, Turn, run_tools

Save = Callable[[str, Message], Awaitable[None]]


async def run(turn: Turn, model: Model, save: Save) -> None:
    """message → model → tool → model → answer."""
    messages: list[Message] = [{"role": "user", "content": turn.content}]
    await save("message", messages[0])
    while True:
        answer = await model.ask(turn.model, messages, turn.on_text)
        await save("model", answer)
        if "tool_calls" not in answer:
            break
        results = await run_tools(answer)
        for result in results:
            await save("tool", result)
        messages += [answer, *results]
    await save("answer", answer)
