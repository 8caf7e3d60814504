"""Where a broken answer goes on: what the next model is given of it, and how its text is joined to what clients have seen. Pure.

Vendors refuse an answer to go on with that ends in blanks, so the model gets it without them, and usually begins with the same
blanks again. What was seen stays as it was.
"""

from __future__ import annotations

from msgspec.structs import replace

from talon.domain.entries import Opaque
from talon.providers.estimate import tokens_of
from talon.providers.protocol import ChatMessage, ChatRequest

#: A call that fails so may have been in the middle of a good answer.
BROKEN = frozenset({"connection", "timeout", "server", "overloaded"})


def beginning(text: str) -> str:
    """The text that a model is to go on with; empty where there is none."""
    return text.rstrip()


def going_on(request: ChatRequest, begun: str) -> ChatRequest:
    """`request` for the rest of an answer that begins with `begun`: the model is given that as its own, and its output limit is
    less by as much."""
    text = beginning(begun)
    if not text:
        return request
    most = request.max_output_tokens
    return replace(
        request,
        messages=(*request.messages, ChatMessage(role="assistant", content=text)),
        max_output_tokens=None if most is None else max(1, most - tokens_of(len(text))),
    )


def placed_behind(begun: int, opaque: Opaque | None) -> Opaque | None:
    """The places of a vendor's pieces in the whole answer, of which `begun` characters came from earlier calls."""
    return opaque if opaque is None or not begun else replace(opaque, items=(f"text {begun}", *opaque.items))


class Seam:
    """Joins one continuation to `text`, which ends as it was seen."""

    def __init__(self, text: str) -> None:
        self._seen = text[len(beginning(text)) :]

    def join(self, piece: str) -> str:
        """What of the next `piece` is new: the blanks that were seen already are left out, once, as far as they are the same."""
        at = 0
        while at < len(piece) and at < len(self._seen) and piece[at] == self._seen[at]:
            at += 1
        # Whatever differs ends the seam; a piece that is wholly part of it leaves the rest of it for the next one.
        self._seen = self._seen[at:] if at == len(piece) else ""
        return piece[at:]
