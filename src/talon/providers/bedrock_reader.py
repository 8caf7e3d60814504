"""Amazon Bedrock's ConverseStream: answers. Source: Amazon Bedrock's API reference, "ConverseStreamOutput"."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.claude import Thoughts
from talon.providers.content import encode
from talon.providers.decoding import Decoding
from talon.providers.protocol import ChatEvent, StopReason

_STOPS: dict[str, StopReason] = {  # an unknown reason is a stop
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "content_filter": "content_filter",  # these two of servers that pass the model's own reason on
    "refusal": "refusal",
}
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


class _Delta(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Reasoning | None = None


class _Start(msgspec.Struct, gc=False, rename="camel"):
    tool_use: _Use | None = None


class _Block(msgspec.Struct, gc=False, rename="camel"):
    """Of the block with this index: its start, or more of it, or its end."""

    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None


class _Stop(msgspec.Struct, gc=False, rename="camel"):
    stop_reason: str | None = None


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


class _Metadata(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Fault(msgspec.Struct, gc=False, rename="camel"):
    message: str | None = None
    original_message: str | None = None


class _Error(msgspec.Struct, gc=False):
    code: str = ""
    message: str = ""


class _Event(msgspec.Struct, gc=False, rename="camel"):
    """One of these; others are read over."""

    content_block_start: _Block | None = None
    content_block_delta: _Block | None = None
    content_block_stop: _Block | None = None
    message_stop: _Stop | None = None
    metadata: _Metadata | None = None
    throttling_exception: _Fault | None = None
    validation_exception: _Fault | None = None
    internal_server_exception: _Fault | None = None
    model_stream_error_exception: _Fault | None = None
    service_unavailable_exception: _Fault | None = None
    model_timeout_exception: _Fault | None = None
    error: _Error | None = None


#: Exceptions within a stream: their HTTP status.
_STATUS = {
    "throttling_exception": 429,
    "validation_exception": 400,
    "internal_server_exception": 500,
    "model_stream_error_exception": 500,
    "service_unavailable_exception": 503,
    "model_timeout_exception": 408,
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
            if block is None:
                if self._event(e):
                    return True
            elif block.delta is not None:
                if block.delta.text:
                    text(block.delta.text)
                else:
                    self._delta(block.content_block_index, block.delta, out)
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """Nothing but a stream answers this call."""
        raise self._answer.error("malformed", "a document came where a stream was asked for")

    def _event(self, e: _Event) -> bool:
        answer = self._answer
        if e.content_block_start is not None:
            use = e.content_block_start.start.tool_use if e.content_block_start.start is not None else None
            if use is not None:
                answer.call(e.content_block_start.content_block_index, use.tool_use_id or "", use.name or "", use.input)
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
        else:
            self._faults(e)
        return False

    def _delta(self, index: int, delta: _Delta, out: list[ChatEvent]) -> None:
        if delta.tool_use is not None:
            self._answer.call(index, "", "", delta.tool_use.input)
        reasoning = delta.reasoning_content
        if reasoning is not None:
            self._thoughts.more(index, reasoning.text, reasoning.signature, out)
            if reasoning.redacted_content:
                self._answer.keep(encode({"reasoningContent": {"redactedContent": reasoning.redacted_content}}).decode())

    def _stopped(self, reason: str) -> None:
        if reason in _BROKEN:
            raise self._answer.error("malformed", f"the vendor stopped the answer as {reason}")
        self._answer.stop = _STOPS.get(reason, "stop")

    def _faults(self, event: _Event) -> None:
        for name, status in _STATUS.items():
            fault: _Fault | None = getattr(event, name)
            if fault is not None:
                self._answer.failed({"code": status, "message": fault.original_message or fault.message or name})
        if event.error is not None:
            self._answer.failed({"type": event.error.code, "message": event.error.message})
