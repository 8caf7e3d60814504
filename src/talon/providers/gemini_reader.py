"""Google's Gemini API: answers. Source: Google's reference of `GenerateContentResponse`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from talon.domain.entries import Usage
from talon.providers.answer import Answer
from talon.providers.content import encode
from talon.providers.decoding import Decoding, text_of
from talon.providers.protocol import ChatEvent, ErrorClass, StopReason

_FILTERED = (
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
)
#: An unknown reason is a stop.
_STOPS: dict[str, StopReason] = {"MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}
#: Reasons that are no end of an answer but a failure.
_MALFORMED = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE")
_FAILURES: dict[str, ErrorClass] = {
    **dict.fromkeys(_MALFORMED, "malformed"),
    **{"MISSING_THOUGHT_SIGNATURE": "bad_request", "OTHER": "server"},
}


class _Call(msgspec.Struct, gc=False):
    """A tool call, always whole."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")


class _Part(msgspec.Struct, gc=False, rename="camel"):
    """Text, a thought, or a call; others are read over. Any of them may be signed."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = 0


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    """Of a prompt that was blocked."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    """Cumulative counts. Thoughts stand beside the output here, the cached part within the prompt."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None

    def counted(self, *, final: bool = False) -> Usage:
        """In Talon's words; `final`: of the output all is counted."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            (self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            (self.candidates_token_count or 0) + thoughts,
            self.cached_content_token_count or 0,
            not final,
            reasoning_tokens=thoughts,
        )


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    error: Any = None


class _Head(msgspec.Struct, gc=False, rename={"id": "responseId", "model": "modelVersion"}):
    id: str | None = None
    model: str | None = None


_CHUNK, _HEAD = Decoding(_Chunk), Decoding(_Head)


class GenerateReader:
    """Reads the pieces of one answer. The wire has no end mark: the body ends after the reason for stopping."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def take(self, events: Sequence[bytes], out: list[ChatEvent]) -> bool:
        """See `Reader.take`."""
        answer, text = self._answer, self._answer.text
        answer.head(events, _HEAD)
        for chunk in _CHUNK.each(events):
            if chunk.usage_metadata is not None:
                answer.counted(chunk.usage_metadata.counted)
            if chunk.error is not None or chunk.prompt_feedback is not None:
                self._failed(chunk)
            for candidate in chunk.candidates or ():
                if candidate.index:
                    continue  # only one answer was asked for
                for part in (candidate.content.parts or ()) if candidate.content is not None else ():
                    if part.thought or part.thought_signature or part.function_call is not None:
                        self._part(part, out)
                    elif part.text:
                        text(part.text)
                if candidate.finish_reason:
                    if chunk.usage_metadata is not None:
                        answer.counted(partial(chunk.usage_metadata.counted, final=True))
                    self._stopped(candidate.finish_reason, candidate.finish_message or "")
        return False

    def whole(self, body: bytes, out: list[ChatEvent]) -> None:
        """An answer that was not streamed has the shape of a piece."""
        self.take((body,), out)

    def _failed(self, chunk: _Chunk) -> None:
        if chunk.error is not None:
            self._answer.failed(chunk.error)
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason:
            words = feedback.block_reason_message or feedback.block_reason
            raise self._answer.error("content_filter", f"the vendor's filter blocked the prompt: {words}")

    def _part(self, part: _Part, out: list[ChatEvent]) -> None:
        answer, signature = self._answer, part.thought_signature
        call = part.function_call
        if call is not None:
            signed = encode(signature).decode() if signature else ""
            answer.call(None, call.id or "", call.name or "", text_of(call.args), signed)
            return
        if part.text:
            if part.thought:
                answer.reasoning(part.text, out)
            else:
                answer.text(part.text)
        if signature:  # it stands for all before it: the text goes back by itself
            mark = {"thought": True} if part.thought else {}
            answer.keep(encode({"text": "", **mark, "thoughtSignature": signature}).decode())

    def _stopped(self, reason: str, words: str) -> None:
        failure = _FAILURES.get(reason)
        if failure is not None:
            raise self._answer.error(failure, f"the vendor stopped the answer as {reason}{': ' + words if words else ''}")
        self._answer.stop = _STOPS.get(reason, "stop")
