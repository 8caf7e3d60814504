"""Tokens where nobody counted them: the stated rule is four characters to a token, rounded up, and 1,500 to an image; the result is
marked."""

from __future__ import annotations

import msgspec

from talon.domain.entries import Usage
from talon.providers.protocol import ChatRequest, Image, Text

CHARS_PER_TOKEN = 4
#: What an image is counted as. Vendors count from some hundred to a few thousand, by its width and height.
IMAGE_TOKENS = 1_500


def estimate_usage(request: ChatRequest, output_chars: int) -> Usage:
    """What a call probably cost, `estimated=True`.

    Input: the characters of all messages, of their tool calls (name and arguments) and of the offered tools (name, description,
    JSON Schema), and its images; output: `output_chars` (text, reasoning and arguments). Templates and special tokens are not
    counted.
    """
    return Usage(input_tokens(request), tokens_of(output_chars), estimated=True)


def input_tokens(request: ChatRequest) -> int:
    """What a request has, by the stated rule."""
    images = sum(isinstance(part, Image) for message in request.messages for part in message.parts)
    return tokens_of(input_chars(request)) + IMAGE_TOKENS * images


def input_chars(request: ChatRequest) -> int:
    """The characters of a request that the rule counts."""
    total = 0
    for message in request.messages:
        total += len(message.content) + sum(len(part.text) for part in message.parts if isinstance(part, Text))
        for call in message.tool_calls:
            total += len(call.name) + len(call.arguments)
    for tool in request.tools:
        total += len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return total


def tokens_of(chars: int) -> int:
    """Tokens of so many characters by the stated rule."""
    return -(-chars // CHARS_PER_TOKEN)
