"""OpenRouter: OpenAI's chat completions with words of its own. Source: OpenRouter's API reference and its guides to reasoning,
caching and errors."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from talon.domain.entries import Money
from talon.providers.answer import Answer
from talon.providers.content import encode, given
from talon.providers.decoding import Decoding
from talon.providers.openai_chat import ChatReader, Choice, Counts, Delta, OpenAIChat
from talon.providers.protocol import ChatEvent, ChatRequest

#: Whose models cache what stands before a mark; the others cache by themselves.
_MARKED = ("anthropic/", "qwen/")
_EPHEMERAL = {"type": "ephemeral"}
#: No call costs more; who says so is not believed.
_COST_MAX = 1_000_000
#: Blocks of reasoning that come in pieces, and what of them grows. Encrypted ones come whole.
_GROWING = {"reasoning.text": "text", "reasoning.summary": "summary"}


class OpenRouter(OpenAIChat):
    """`base_url` ends before `/chat/completions` (`https://openrouter.ai/api/v1`).

    Reasoning goes back with its tool calls as the pieces in which it came, joined to whole blocks, as signatures need it.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset()

    def fields(self, request: ChatRequest) -> dict[str, Any]:
        """What chat completions have no word for, added."""
        body = super().fields(request)
        effort = body.pop("reasoning_effort", None)
        body |= given(top_k=request.top_k, reasoning={"effort": effort} if effort else None)
        body["usage"] = {"include": True}  # what the call cost; newer servers tell it by themselves
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


class _CostDetails(msgspec.Struct, gc=False):
    upstream_inference_cost: Decimal | None = None


class _Counts(Counts, gc=False):
    """With what the call cost, in credits, which are US dollars. With a key of one's own (`is_byok`) that is OpenRouter's fee
    alone, and the provider behind it is paid besides."""

    cost: Decimal | None = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None

    @property
    def paid(self) -> Money | None:
        """All of it; None where it is not told."""
        cost, details = self.cost, self.cost_details
        if cost is None:
            return None
        if self.is_byok and details is not None:
            cost += details.upstream_inference_cost or 0
        return Money(cost, "USD") if 0 <= cost <= _COST_MAX else None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: _Counts | None = None
    error: Any = None


class RouterReader(ChatReader):
    """Reads chunks of one answer."""

    chunks: ClassVar[Decoding[Any]] = Decoding(_Chunk)

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

    def _count(self, usage: Counts) -> None:
        super()._count(usage)
        if isinstance(usage, _Counts):
            self._answer.cost = usage.paid or self._answer.cost

    def _stopped(self, reason: str) -> None:
        details, self._details = self._details, []
        if details:  # they say what the plain reasoning says, and more
            self._thought.clear()
            self._answer.keep(encode({"reasoning_details": details}).decode())
        super()._stopped(reason)
