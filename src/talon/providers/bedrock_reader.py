"""Amazon Bedrock's ConverseStream: answers. Source: Amazon Bedrock's API reference, "ConverseStreamOutput"."""

from __future__ import annotations

import msgspec

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import encode
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
_decode = msgspec.json.Decoder(_Event).decode


class _Thought:
    """A block of reasoning that is being written."""

    __slots__ = ("redacted", "signature", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.signature: list[str] = []
        self.redacted: list[str] = []


class ConverseReader:
    """Reads the events of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._thoughts: dict[int, _Thought] = {}  # by the index of their block

    def take(self, event: bytes, out: list[ChatEvent]) -> bool:
        """See `Reader.take`; the counts come last, after the reason for stopping."""
        answer, e = self._answer, _decode(event)
        if e.content_block_delta is not None:
            self._delta(e.content_block_delta, out)
        elif e.content_block_start is not None:
            use = e.content_block_start.start.tool_use if e.content_block_start.start is not None else None
            if use is not None:
                answer.call(e.content_block_start.content_block_index, use.tool_use_id or "", use.name or "", use.input)
        elif e.content_block_stop is not None:
            self._ended(e.content_block_stop.content_block_index)
        elif e.message_stop is not None:
            self._stopped(e.message_stop.stop_reason or "")
        elif e.metadata is not None:
            if e.metadata.usage is not None:
                answer.counted(e.metadata.usage.counted())
            return answer.stop is not None
        else:
            self._faults(e)
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """Nothing but a stream answers this call."""
        raise self._answer.error("malformed", "a document came where a stream was asked for")

    def _delta(self, block: _Block, out: list[ChatEvent]) -> None:
        delta, answer = block.delta, self._answer
        if delta is None:
            return
        if delta.text:
            answer.text(delta.text, out)
        if delta.tool_use is not None:
            answer.call(block.content_block_index, "", "", delta.tool_use.input)
        reasoning = delta.reasoning_content
        if reasoning is not None:
            thought = self._thoughts.setdefault(block.content_block_index, _Thought())
            if reasoning.text:
                answer.reasoning(reasoning.text, out)
                thought.text.append(reasoning.text)
            if reasoning.signature:
                thought.signature.append(reasoning.signature)
            if reasoning.redacted_content:
                thought.redacted.append(reasoning.redacted_content)

    def _ended(self, index: int) -> None:
        thought = self._thoughts.pop(index, None)
        if thought is None:
            return
        for piece in thought.redacted:
            self._answer.keep(encode({"reasoningContent": {"redactedContent": piece}}).decode())
        if thought.signature:  # the vendor takes no thought back without its signature
            kept = {"text": "".join(thought.text), "signature": "".join(thought.signature)}
            self._answer.keep(encode({"reasoningContent": {"reasoningText": kept}}).decode())

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
