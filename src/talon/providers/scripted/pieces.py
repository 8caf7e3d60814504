"""A reply cut into the pieces in which it is streamed; the same for the provider in process and for the server."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from talon.domain.entries import Usage
from talon.providers.estimate import estimate_usage
from talon.providers.faults import from_status
from talon.providers.protocol import ChatRequest, ProviderError, ReasoningDelta, TextDelta, ToolCall
from talon.providers.scripted.model import Fault, Reply

Piece = ReasoningDelta | TextDelta | ToolCall


def pieces(reply: Reply) -> Iterator[Piece]:
    """Reasoning, then text, in pieces of `chunk_chars` characters, then each tool call whole."""
    step = reply.chunk_chars
    for start in range(0, len(reply.reasoning), step):
        yield ReasoningDelta(reply.reasoning[start : start + step])
    for start in range(0, len(reply.text), step):
        yield TextDelta(reply.text[start : start + step])
    yield from reply.calls


def usage_of(reply: Reply, request: ChatRequest) -> Usage:
    """The script's own numbers, else four characters to a token; counted, not estimated: this model counts so."""
    if reply.usage is not None:
        return reply.usage
    written = len(reply.text) + len(reply.reasoning) + sum(len(call.arguments) for call in reply.calls)
    guess = estimate_usage(request, written)
    return Usage(guess.input_tokens, guess.output_tokens)


def error_body(message: str, status: int) -> bytes:
    """An error as the vendors write it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "code": None, "param": None}})


def headers_of(fault: Fault) -> dict[str, str]:
    """The headers that go with a status fault."""
    return {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}


def status_error(provider: str, fault: Fault) -> ProviderError:
    """What a client makes of a status fault."""
    return from_status(provider, fault.status, error_body(fault.message, fault.status), headers_of(fault))
