"""Tokens where nobody counted them: the stated rule is four characters to a token, rounded up, and the result is marked."""

from __future__ import annotations

import msgspec

from talon.domain.entries import Usage
from talon.providers.protocol import ChatRequest

CHARS_PER_TOKEN = 4


def estimate_usage(request: ChatRequest, output_chars: int) -> Usage:
    """What a call probably cost, `estimated=True`.

    Input: the characters of all messages, of their tool calls (name and arguments) and of the offered tools (name, description,
    JSON Schema); output: `output_chars` (text, reasoning and arguments). Images, templates and special tokens are not counted.
    """
    return Usage(_tokens(input_chars(request)), _tokens(output_chars), estimated=True)


def input_chars(request: ChatRequest) -> int:
    """The characters of a request that the rule counts."""
    total = 0
    for message in request.messages:
        total += len(message.content)
        for call in message.tool_calls:
            total += len(call.name) + len(call.arguments)
    for tool in request.tools:
        total += len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return total


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)
