"""The server's side of the chat-completions wire: a request read from it, and an answer written in it."""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.entries import Usage
from talon.providers.protocol import ChatMessage, ChatRequest, ReasoningDelta, TextDelta, ToolCall, ToolDef
from talon.providers.scripted.model import Reply
from talon.providers.scripted.pieces import Piece


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _Function


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Tool(msgspec.Struct):
    function: ToolDef


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class WireRequest(msgspec.Struct):
    """The body of `POST /v1/chat/completions`, as far as a script can see it."""

    model: str
    messages: list[_Message]
    tools: list[_Tool] = []
    stream: bool = False
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    user: str = ""

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage

    def chat_request(self) -> ChatRequest:
        """The same request in Talon's types. Raises `ValueError` for a role that is not known."""
        return ChatRequest(
            model=self.model,
            messages=tuple(_message(message) for message in self.messages),
            tools=tuple(tool.function for tool in self.tools),
            temperature=self.temperature,
            max_output_tokens=self.max_completion_tokens or self.max_tokens,
            user=self.user,
        )


def _message(message: _Message) -> ChatMessage:
    if message.role not in ("system", "developer", "user", "assistant", "tool"):
        raise ValueError(f"messages: the role {message.role!r} is not known")
    content = message.content or ""
    return ChatMessage(
        role="system" if message.role == "developer" else message.role,  # type: ignore[arg-type]
        content=content if isinstance(content, str) else "".join(part.text for part in content),
        tool_calls=tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ()),
        tool_call_id=message.tool_call_id or "",
    )


class Writer:
    """Writes one answer: `chunk`s of a stream, or one `completion`. `number` makes its id."""

    def __init__(self, number: int, model: str, chunk_chars: int) -> None:
        self._id = f"chatcmpl-{number}"
        self._model = model
        self._chunk_chars = chunk_chars
        self._calls = 0

    def piece(self, piece: Piece) -> list[bytes]:
        """The events of one piece: a call is named first, then its arguments come in parts."""
        match piece:
            case ReasoningDelta():
                return [self._event({"reasoning_content": piece.text})]
            case TextDelta():
                return [self._event({"content": piece.text})]
            case ToolCall():
                index, step = self._calls, self._chunk_chars
                self._calls += 1
                head = {"index": index, "id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}}
                parts = [piece.arguments[i : i + step] for i in range(0, len(piece.arguments), step)]
                events = [self._event({"tool_calls": [head]})]
                return events + [self._event({"tool_calls": [{"index": index, "function": {"arguments": p}}]}) for p in parts]

    def opening(self) -> bytes:
        """The first event: the role, and nothing said yet."""
        return self._event({"role": "assistant", "content": ""})

    def ending(self, stop_reason: str, usage: Usage | None) -> bytes:
        """The reason for stopping, the usage if it was asked for, and the end mark."""
        last = self._event({}, stop_reason)
        if usage is not None:
            last += b"data: " + msgspec.json.encode(self._envelope("chat.completion.chunk", [], usage)) + b"\n\n"
        return last + b"data: [DONE]\n\n"

    def completion(self, reply: Reply, usage: Usage) -> bytes:
        """The whole answer as one document."""
        calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in reply.calls]
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": reply.stop_reason}
        return msgspec.json.encode(self._envelope("chat.completion", [choice], usage))

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + msgspec.json.encode(self._envelope("chat.completion.chunk", [choice], None)) + b"\n\n"

    def _envelope(self, kind: str, choices: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        envelope: dict[str, Any] = {"id": self._id, "object": kind, "created": 0, "model": self._model, "choices": choices}
        if usage is not None:
            envelope["usage"] = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            }
        return envelope
