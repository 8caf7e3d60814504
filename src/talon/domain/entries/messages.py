"""What was said, from outside and in answer, and what became of it on its way into the context."""

from __future__ import annotations

from typing import Any

import msgspec

from talon.domain.content import Content, images_of
from talon.domain.entries.payload import Payload, always


class MessageReceived(Payload, frozen=True, kw_only=True):
    """A message from outside. `role` is `user` except in imported history; `imported` ones started no turn. `content` is as it was
    sent, a text or parts; of an image the entry has the digest of its blob."""

    type = "message.received"
    content: Content
    role: str = always("user")
    strategy: str = always("enqueue")
    source: str = "http"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    imported: bool = False

    @property
    def min_reader(self) -> int:
        return 1 if isinstance(self.content, str) else 2

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(image.blob for image in images_of(self.content)))


class MessageCompleted(Payload, frozen=True, kw_only=True):
    """The answer of the turn. `model_seq` names the call that gave it; its fragments are dropped with this entry."""

    type = "message.completed"
    content: str
    role: str = always("assistant")
    model_seq: int = 0
    imported: bool = False


class InputSteered(Payload, frozen=True, kw_only=True):
    """A message for a turn that is under way.

    `state`: offered (inbox) | joined (the model will see it) | requeued (it became `turn`).
    """

    type = "input.steered"
    message_seq: int
    state: str = "offered"
    turn: str = ""


class MemoryCompressed(Payload, frozen=True, kw_only=True):
    """Older context was summarised; nothing was removed from the journal."""

    type = "memory.compressed"
    summary: str
    through_seq: int
    messages: int = 0
