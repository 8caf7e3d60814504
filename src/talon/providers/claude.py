"""What Claude wants alike of Anthropic's own API and of Bedrock's ConverseStream. Source: Anthropic's guides to thinking, and those
to moving to each newer model."""

from __future__ import annotations

import re
from typing import Any

from talon.providers.answer import Answer
from talon.providers.protocol import ChatEvent, ChatRequest

#: Tokens of thinking by level, for models that take a budget. The vendor takes no budget below the least.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24_576}
_BUDGET_MIN = 1024
_MODEL = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
#: What a name without a version is taken for.
_NEWEST: tuple[str, tuple[int, int]] = ("", (99, 0))


def _known(model: str) -> tuple[str, tuple[int, int]] | None:
    """(family, version) that a model's name says; older names have no family."""
    found = _MODEL.search(model)
    return (found[1] or "", (int(found[2]), int(found[3] or 0))) if found else None


def thinking_of(request: ChatRequest, limit: int) -> tuple[dict[str, Any] | None, str]:
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


def takes_sampling(model: str) -> bool:
    """Whether it has words for `temperature`, `top_p` and `top_k`: Claude from 4.7 on refuses them."""
    known = _known(model)
    return known is None or known[1] < (4, 7)


def takes_forced_tools(model: str) -> bool:
    """Whether it may be told to call a tool: Fable 5.1, Opus 5.5 and Sonnet 5.5 refuse to be."""
    family, version = _known(model) or _NEWEST
    least = {"fable": (5, 1), "opus": (5, 5), "sonnet": (5, 5)}.get(family)
    return least is None or version < least


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
