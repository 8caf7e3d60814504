"""Anthropic's Messages API: answers. Source: Anthropic's API reference, "Streaming messages"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.claude import STOPS, Thoughts
from talon.providers.content import encode
from talon.providers.decoding import Decoding, text_of
from talon.providers.protocol import ChatEvent


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    """Cumulative counts; a later event repeats those that changed."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def counted(self, *, final: bool) -> Usage:
        """In Talon's words."""
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        thought = self.output_tokens_details
        return Usage(
            (self.input_tokens or 0) + read + written,
            self.output_tokens or 0,
            read,
            not final,
            written,
            (thought.thinking_tokens if thought is not None else None) or 0,
        )


class _StopDetails(msgspec.Struct, gc=False):
    category: str | None = None
    explanation: str | None = None


class _Piece(msgspec.Struct, gc=False):
    """A block, or its beginning, or more of it, by `type`; or why the message stopped. Other types are read over."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    data: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    content: list[_Piece] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Piece | None = None
    delta: _Piece | None = None
    usage: _Usage | None = None
    error: Any = None


_EVENT, _MESSAGE = Decoding(_Event), Decoding(_Message)


class MessagesReader:
    """Reads the events of one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._usage = _Usage()
        self._thoughts = Thoughts(answer)

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`; `message_stop` is the end."""
        text = self._answer.text
        for e in _EVENT.each(events):
            delta = e.delta
            if e.type != "content_block_delta" or delta is None:
                if e.type == "message_stop":
                    return True
                self._event(e, out)
            elif delta.type == "text_delta":
                text(delta.text or "")
            else:
                self._piece(e.index, delta, out)
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """A message that was not streamed."""
        message = _MESSAGE.one(body)
        if message.error is not None:
            self._answer.failed(message.error)
        self._answer.id, self._answer.model = message.id or "", message.model or ""
        for index, block in enumerate(message.content or ()):
            self._piece(index, block, out)
            self._stop(index)
        self._count(message.usage, final=True)
        self._stopped(message.stop_reason, message.stop_details)

    def _event(self, e: _Event, out: list[ChatEvent]) -> None:
        match e.type:
            case "content_block_start" if e.content_block is not None:
                self._piece(e.index, e.content_block, out)
            case "content_block_stop":
                self._stop(e.index)
            case "message_start" if e.message is not None:
                self._answer.id, self._answer.model = e.message.id or "", e.message.model or ""
                self._count(e.message.usage)
            case "message_delta":
                self._count(e.usage, final=True)
                if e.delta is not None:
                    self._stopped(e.delta.stop_reason, e.delta.stop_details)
            case _ if e.error is not None:
                self._answer.failed(e.error)
            case _:
                pass  # ping, and what may come in later versions

    def _piece(self, index: int, piece: _Piece, out: list[ChatEvent]) -> None:
        match piece.type:
            case "text":
                self._answer.text(piece.text or "")
            case "thinking" | "thinking_delta" | "signature_delta":
                self._thoughts.more(index, piece.thinking, piece.signature, out)
            case "redacted_thinking":
                self._answer.keep(encode({"type": piece.type, "data": piece.data or ""}).decode())
            case "tool_use":
                whole = text_of(piece.input)  # in a stream it begins empty
                self._answer.call(index, piece.id or "", piece.name or "", whole if whole != "{}" else "")
            case "input_json_delta":
                self._answer.call(index, "", "", piece.partial_json)
            case _:
                pass

    def _stop(self, index: int) -> None:
        thought = self._thoughts.ended(index)
        if thought is not None:
            kept = {"type": "thinking", "thinking": thought[0], "signature": thought[1]}
            self._answer.keep(encode(kept).decode())

    def _stopped(self, reason: str | None, details: _StopDetails | None) -> None:
        if reason:
            self._answer.stop = STOPS.get(reason, "stop")
            words = details and (details.explanation or details.category)
            if reason == "refusal" and words:
                self._answer.refusal(words)

    def _count(self, usage: _Usage | None, *, final: bool = False) -> None:
        """`final`: of the output all is counted. Where nobody counted, the stated estimate holds."""
        if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
            return
        known = self._usage
        for field in usage.__struct_fields__:
            value = getattr(usage, field)
            if value is not None:
                setattr(known, field, value)
        self._answer.counted(partial(known.counted, final=final))
