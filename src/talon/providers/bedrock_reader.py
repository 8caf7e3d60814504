"""Amazon Bedrock's ConverseStream: answers. Source: Amazon Bedrock's API reference, "ConverseStreamOutput"."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.claude import STOPS, Thoughts
from talon.providers.content import encode
from talon.providers.decoding import Decoding
from talon.providers.protocol import ChatEvent, StopReason

_STOPS: dict[str, StopReason] = {**STOPS, "guardrail_intervened": "content_filter", "content_filtered": "content_filter"}
_BROKEN = frozenset({"malformed_model_output", "malformed_tool_use"})


class _Reasoning(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Use(msgspec.Struct, gc=False, rename="camel"):
    """The beginning of a tool call, or a piece of its arguments."""

    tool_use_id: str | None = None
    name: str | None = None
    input: str | None = None


class _Piece(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Reasoning | None = None


class _Block(msgspec.Struct, gc=False, rename="camel"):
    """Of the block with this index: its start, or more of it, or its end."""

    content_block_index: int = 0
    start: _Piece | None = None
    delta: _Piece | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    """What came from a cache or went into one is not part of the input here."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None

    def counted(self) -> Usage:
        """In Talon's words."""
        read, written = self.cache_read_input_tokens or 0, self.cache_write_input_tokens or 0
        return Usage((self.input_tokens or 0) + read + written, self.output_tokens or 0, read, cache_write_tokens=written)


class _End(msgspec.Struct, gc=False, rename="camel"):
    """Why it stopped, and in an event of its own what it took."""

    stop_reason: str | None = None
    usage: _Usage | None = None


class _Fault(msgspec.Struct, gc=False, rename="camel"):
    message: str | None = None
    original_message: str | None = None


class _Event(msgspec.Struct, gc=False, rename="camel"):
    """One of these; others are read over."""

    content_block_start: _Block | None = None
    content_block_delta: _Block | None = None
    content_block_stop: _Block | None = None
    message_stop: _End | None = None
    metadata: _End | None = None
    exception: str | None = None
    fault: _Fault | None = None


#: Exceptions within a stream: their HTTP status.
_STATUS = {
    "throttlingException": 429,
    "validationException": 400,
    "internalServerException": 500,
    "modelStreamErrorException": 500,
    "serviceUnavailableException": 503,
    "modelTimeoutException": 408,
}
_EVENT = Decoding(_Event)


class ConverseReader:
    """Reads the events of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._thoughts = Thoughts(answer)

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`; the counts come last, after the reason for stopping."""
        text = self._answer.text
        for e in _EVENT.each(events):
            block = e.content_block_delta
            if block is None or block.delta is None:
                if self._event(e, out):
                    return True
            elif block.delta.text:
                text(block.delta.text)
            else:
                self._piece(block.content_block_index, block.delta, out)
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """Nothing but a stream answers this call."""
        raise self._answer.error("malformed", "a document came where a stream was asked for")

    def _event(self, e: _Event, out: list[ChatEvent]) -> bool:
        answer, begun = self._answer, e.content_block_start
        if begun is not None:
            if begun.start is not None:
                self._piece(begun.content_block_index, begun.start, out)
        elif e.content_block_stop is not None:
            thought = self._thoughts.ended(e.content_block_stop.content_block_index)
            if thought is not None:
                kept = {"text": thought[0], "signature": thought[1]}
                answer.keep(encode({"reasoningContent": {"reasoningText": kept}}).decode())
        elif e.message_stop is not None:
            self._stopped(e.message_stop.stop_reason or "")
        elif e.metadata is not None:
            if e.metadata.usage is not None:
                answer.counted(e.metadata.usage.counted)
            return answer.stop is not None
        elif e.exception is not None:
            fault = e.fault or _Fault()
            words = fault.original_message or fault.message or e.exception
            answer.failed({"code": _STATUS.get(e.exception, e.exception), "message": words})
        return False

    def _piece(self, index: int, piece: _Piece, out: list[ChatEvent]) -> None:
        use, reasoning = piece.tool_use, piece.reasoning_content
        if use is not None:
            self._answer.call(index, use.tool_use_id or "", use.name or "", use.input)
        if reasoning is not None:
            self._thoughts.more(index, reasoning.text, reasoning.signature, out)
            if reasoning.redacted_content:
                self._answer.keep(encode({"reasoningContent": {"redactedContent": reasoning.redacted_content}}).decode())

    def _stopped(self, reason: str) -> None:
        if reason in _BROKEN:
            raise self._answer.error("malformed", f"the vendor stopped the answer as {reason}")
        self._answer.stop = _STOPS.get(reason, "stop")
