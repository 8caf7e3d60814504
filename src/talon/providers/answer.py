"""An answer as it arrives: chunks in, `ChatEvent`s out, and at the end one `Finished` or the error that the answer is.

Pure: no I/O and no clock, so every oddity of a compatible server is a test on plain values.
"""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.entries import Usage
from talon.providers.estimate import estimate_usage
from talon.providers.faults import from_event, safe_text
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatRequest, Finished, ProviderError, ReasoningDelta, TextDelta, ToolCall
from talon.providers.wire import CallDelta, Chunk, Delta, WireUsage

#: The vendors' reasons for stopping, in Talon's words; an unknown one is a stop.
_STOPS = {"tool_calls": "tool_calls", "function_call": "tool_calls", "length": "length", "max_tokens": "length"}


class _Slot:
    """A tool call that is being written."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int | None, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []


class Answer:
    """Collects one answer of provider `provider` to `request`. Not to be used again after `finish` or an error."""

    def __init__(self, provider: str, request: ChatRequest, limits: CallLimits, secret: str = "") -> None:
        self._provider = provider
        self._request = request
        self._limits = limits
        self._secret = secret
        self._slots: list[_Slot] = []
        self._usage: WireUsage | None = None
        self._chars = 0  # everything that the model wrote
        self._said = False  # some of it was for the reader
        self._id = ""
        self._model = ""
        self.stop = ""  # the vendor's word for why it stopped; empty until it has

    def take(self, chunk: Chunk) -> list[ChatEvent]:
        """What is new in `chunk`, in order. Raises `ProviderError` on an error event, a content filter, or a limit."""
        if chunk.error is not None:
            raise self._with_usage(from_event(self._provider, chunk.error, self._secret))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.model:
            self._model = chunk.model
        if chunk.id:
            self._id = chunk.id
        events: list[ChatEvent] = []
        for choice in chunk.choices or ():
            if choice.index:
                continue  # only one answer was asked for
            delta = choice.delta or choice.message
            if delta is not None:
                self._delta(delta, events)
            if choice.finish_reason:
                self._stopped(choice.finish_reason)
        if self._chars > self._limits.answer_max:
            raise self.error("malformed", f"the answer is longer than answer_max ({self._limits.answer_max} characters)")
        return events

    def _delta(self, delta: Delta, events: list[ChatEvent]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            self._chars += len(reasoning)
            events.append(ReasoningDelta(reasoning))
        text = delta.content or delta.refusal
        if text:
            self._chars += len(text)
            self._said = True
            events.append(TextDelta(text))
        for call in delta.tool_calls or ():
            self._call(call)

    def _call(self, delta: CallDelta) -> None:
        name = (delta.function.name if delta.function else None) or ""
        slot = self._slot(delta.index, delta.id or "", name)
        slot.name = slot.name or name
        slot.id = slot.id or delta.id or ""
        arguments = delta.function.arguments if delta.function else None
        if arguments:
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            slot.arguments.append(text)
            self._chars += len(text)

    def _slot(self, index: int | None, call_id: str, name: str) -> _Slot:
        """The call that a piece belongs to: the latest with its index (without an index, the latest of all), unless the piece
        begins another. It does when it has a name and another id; without index and id, when it has a name. (Servers exist that
        give every call the index 0, and servers that give none.)"""
        last = next((slot for slot in reversed(self._slots) if index is None or slot.index == index), None)
        if last is not None:
            another = call_id != last.id if call_id else index is None
            if not (name and last.name and another):
                return last
        if len(self._slots) == self._limits.tool_calls_max:
            raise self.error("malformed", f"the answer has more tool calls than tool_calls_max ({self._limits.tool_calls_max})")
        self._slots.append(_Slot(index, call_id))
        return self._slots[-1]

    def _stopped(self, reason: str) -> None:
        if reason == "content_filter":
            raise self.error("content_filter", "the vendor's content filter stopped the answer")
        if reason == "error":
            raise self.error("server", "the server stopped the answer with an error")
        self.stop = reason

    def finish(self) -> Finished:
        """The end of the stream was reached in good order (the server's own end mark, or its reason for stopping).

        Raises `ProviderError("empty")` when the model said nothing and called nothing (reasoning alone is nothing, unless it was
        cut by the output limit), `("malformed")` for a tool call without a name.
        """
        stop = _STOPS.get(self.stop, "stop")
        calls = self._calls(cut=stop == "length")
        if calls and stop == "stop":
            stop = "tool_calls"  # some servers say "stop" although they call tools
        if not calls and not self._said and not (stop == "length" and self._chars):
            raise self.error("empty", f"the answer is empty (finish_reason {self.stop or 'missing'})")
        if not calls and stop == "tool_calls":
            stop = "stop"
        return Finished(stop, self.usage(), calls, self._model)

    def _calls(self, *, cut: bool) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        used: set[str] = set()
        for position, slot in enumerate(self._slots):
            text = "".join(slot.arguments)
            if cut and not _is_object(text):
                continue  # the output limit fell inside it: it is not complete
            if not slot.name:
                raise self.error("malformed", f"tool call {position} of the answer has no name")
            call_id = slot.id or f"{self._id or 'call'}-{position}"
            if call_id in used:
                call_id = f"{call_id}-{position}"
            used.add(call_id)
            calls.append(ToolCall(call_id, slot.name, text or "{}"))
        return tuple(calls)

    def usage(self) -> Usage:
        """As the server counted, else estimated from the request and from what has arrived."""
        wire = self._usage
        if wire is None or (wire.prompt_tokens is None and wire.completion_tokens is None):
            return estimate_usage(self._request, self._chars)
        details = wire.prompt_tokens_details
        cached = (details.cached_tokens if details else None) or wire.prompt_cache_hit_tokens or 0
        return Usage(wire.prompt_tokens or 0, wire.completion_tokens or 0, cached)

    def error(self, error: Any, detail: str) -> ProviderError:
        """An error of this answer, with the usage that it had cost so far."""
        return self._with_usage(ProviderError(error, safe_text(f"providers.{self._provider}: {detail}", self._secret)))

    def _with_usage(self, error: ProviderError) -> ProviderError:
        error.usage = self.usage()
        return error


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
