"""OpenRouter: OpenAI's chat completions with words of its own. Source: OpenRouter's API reference and its guides to reasoning,
caching and errors."""

from __future__ import annotations

from typing import Any, ClassVar

from talon.providers.answer import Answer
from talon.providers.content import encode, given
from talon.providers.openai_chat import ChatReader, Delta, OpenAIChat
from talon.providers.protocol import ChatEvent, ChatRequest

#: Whose models cache what stands before a mark; the others cache by themselves.
_MARKED = ("anthropic/", "qwen/")
_EPHEMERAL = {"type": "ephemeral"}
#: Blocks of reasoning that come in pieces, and what of them grows. Encrypted ones come whole.
_GROWING = {"reasoning.text": "text", "reasoning.summary": "summary"}


class OpenRouter(OpenAIChat):
    """`base_url` ends before `/chat/completions` (`https://openrouter.ai/api/v1`).

    Reasoning goes back with its tool calls as the pieces in which it came, joined to whole blocks, as signatures need it.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return f"OpenRouter({str(self._url)!r})"

    def fields(self, request: ChatRequest) -> dict[str, Any]:
        """What chat completions have no word for, added."""
        body = super().fields(request)
        effort = body.pop("reasoning_effort", None)
        body |= given(top_k=request.top_k, reasoning={"effort": effort} if effort else None)
        if request.prompt_cache and request.model.startswith(_MARKED):
            _mark(body["messages"])
        return body

    def reader(self, answer: Answer) -> RouterReader:
        """See `Dialect.reader`."""
        return RouterReader(answer)


def _mark(messages: list[dict[str, Any]]) -> None:
    """Ask for a cache of all up to the system prompt, and of all up to the user's newest message."""
    for role in ("system", "user"):
        message = next((m for m in reversed(messages) if m["role"] == role and m["content"]), None)
        if message is None:
            continue
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else [*content]
        message["content"] = [*parts[:-1], parts[-1] | {"cache_control": _EPHEMERAL}]


class RouterReader(ChatReader):
    """Reads chunks of one answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._details: list[dict[str, Any]] = []

    def _delta(self, delta: Delta, out: list[ChatEvent]) -> None:
        super()._delta(delta, out)
        for piece in delta.reasoning_details or ():
            last = self._details[-1] if self._details else {}
            begun = piece.get("type") in _GROWING and "index" in piece
            if not begun or (last.get("type"), last.get("index")) != (piece["type"], piece["index"]):
                self._details.append(piece)
                continue
            for name, value in piece.items():
                if name == _GROWING[piece["type"]]:
                    last[name] = f"{last.get(name) or ''}{value or ''}"
                elif value is not None:
                    last[name] = value

    def _stopped(self) -> None:
        details, self._details = self._details, []
        if details:  # they say what the plain reasoning says, and more
            self._thought.clear()
            self._answer.keep(encode({"reasoning_details": details}).decode())
        super()._stopped()
