"""What Claude wants alike of Anthropic's own API and of Bedrock's ConverseStream. Source: Anthropic's guides to thinking, and those
to moving to each newer model."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from talon.providers.answer import Answer
from talon.providers.protocol import ChatEvent, ChatRequest, StopReason

#: Why it stopped; an unknown reason is a stop.
STOPS: dict[str, StopReason] = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "content_filter": "content_filter",  # of servers that pass another vendor's reason on
}

#: Tokens of thinking by level, for models that take a budget. The vendor takes no budget below the least.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24_576}
_BUDGET_MIN = 1024
_MODEL = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
#: What a name without a version is taken for.
_NEWEST: tuple[str, tuple[int, int]] = ("", (99, 0))
#: From which version on a family refuses to be told to call a tool.
_UNFORCED = {"fable": (5, 1), "opus": (5, 5), "sonnet": (5, 5)}
_NEVER = (100, 0)


@lru_cache(256)
def _known(model: str) -> tuple[str, tuple[int, int]] | None:
    """(family, version) that a model's name says; older names have no family."""
    found = _MODEL.search(model)
    return (found[1] or "", (int(found[2]), int(found[3] or 0))) if found else None


class Takes(NamedTuple):
    """What a model takes of a request: the vendor's `thinking` and effort, how to sample, whether it may be told to call a tool."""

    thinking: dict[str, Any] | None
    effort: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    forced: bool


def takes(request: ChatRequest, limit: int) -> Takes:
    """Of a call with at most `limit` tokens of output. Claude from 4.7 on refuses to be told how to sample; one that thinks takes a
    high `top_p` only, and no forced tool, which Fable 5.1, Opus 5.5 and Sonnet 5.5 refuse in any case."""
    thinking, effort = _thinking(request, limit)
    family, version = _known(request.model) or _NEWEST
    samples = version < (4, 7) or version == _NEWEST[1]
    thinks = thinking is not None and thinking["type"] != "disabled"
    plain = samples and not thinks
    return Takes(
        thinking,
        effort,
        request.temperature if plain else None,
        request.top_p if plain or (samples and (request.top_p or 0) >= 0.95) else None,
        request.top_k if plain else None,
        not thinks and version < _UNFORCED.get(family, _NEVER),
    )


def _thinking(request: ChatRequest, limit: int) -> tuple[dict[str, Any] | None, str]:
    """(the vendor's `thinking`, its effort).

    Models up to 4.5 think by a budget, later ones as much as they find right, guided by an effort. Some cannot be kept from it:
    `off` asks for the least.
    """
    level = request.thinking
    if not level:
        return None, ""
    family, version = _known(request.model) or _NEWEST
    last = next((m for m in reversed(request.messages) if m.role != "tool"), None)
    foreign = last is not None and bool(last.tool_calls) and last.opaque is None
    if family == "fable" or (family == "opus" and version >= (5, 5)):
        return {"type": "adaptive", "display": "summarized"}, level if level != "off" else "low"
    if level == "off" or foreign:
        return {"type": "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"}, ""
    if version >= (4, 6):
        return {"type": "adaptive", "display": "summarized"}, level
    budget = min(_BUDGETS[level], limit // 2)
    if budget < _BUDGET_MIN:
        return {"type": "disabled"}, ""
    return {"type": "enabled", "budget_tokens": budget}, ""


class Thoughts:
    """The blocks of thinking of one answer, by their index; text and signature come in pieces."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open: dict[int, tuple[list[str], list[str]]] = {}

    def more(self, index: int, text: str | None, signature: str | None, out: list[ChatEvent]) -> None:
        """More of a block."""
        texts, signatures = self._open.setdefault(index, ([], []))
        if text:
            self._answer.reasoning(text, out)
            texts.append(text)
        if signature:
            signatures.append(signature)

    def ended(self, index: int) -> tuple[str, str] | None:
        """(text, signature) of a block that ends; None for one without a signature, which the vendor does not take back."""
        texts, signatures = self._open.pop(index, ((), ()))
        return ("".join(texts), "".join(signatures)) if signatures else None
