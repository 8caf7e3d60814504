"""What a script may look at: the conversation of one request, and what a vendor would refuse in it."""

from __future__ import annotations

import re

import msgspec

from talon.providers.protocol import ChatMessage, ChatRequest, Text

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Conversation(msgspec.Struct, frozen=True):
    """One request as a script sees it. "This turn" is everything after the last user message.

    `user`: the last user text. `results`: the tool results of this turn, in order. `step`: which model call of this turn it is,
    from 1 (the assistant messages of this turn, plus one). `calls`: tool calls of the whole conversation so far. `tools`: the names
    of the offered tools.
    """

    model: str
    system: str
    user: str
    results: tuple[str, ...]
    step: int
    calls: int
    tools: tuple[str, ...]
    messages: tuple[ChatMessage, ...]

    @classmethod
    def of(cls, request: ChatRequest) -> Conversation:
        """Read it from a request; a conversation without a user message counts wholly as this turn."""
        messages = request.messages
        last = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
        turn = messages[last + 1 :]
        return cls(
            model=request.model,
            system="\n".join(m.content for m in messages if m.role == "system"),
            user=_text(messages[last]) if last >= 0 else "",
            results=tuple(m.content for m in turn if m.role == "tool"),
            step=1 + sum(m.role == "assistant" for m in turn),
            calls=sum(len(m.tool_calls) for m in messages),
            tools=tuple(tool.name for tool in request.tools),
            messages=messages,
        )


def _text(message: ChatMessage) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, Text)) or message.content


def refusal(request: ChatRequest) -> str:
    """Why a vendor would answer 400 to this request, in our words; empty if it would not.

    Checked: at least one message; every tool call is followed by its result and every result follows its call; tool names.
    """
    if not request.messages:
        return "messages is empty"
    for tool in request.tools:
        if not _TOOL_NAME.fullmatch(tool.name):
            return f"the tool name {tool.name!r} is not 1 to 64 letters, digits, '_' or '-'"
    open_calls: set[str] = set()
    for position, message in enumerate(request.messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return f"messages[{position}] answers the tool call {message.tool_call_id!r}, which does not stand before it"
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            return f"messages[{position}] stands where the result of the tool call {min(open_calls)!r} is missing"
        open_calls = {call.id for call in message.tool_calls}
    return f"the result of the tool call {min(open_calls)!r} is missing" if open_calls else ""
