"""Images of messages, as they were sent."""

from __future__ import annotations

from typing import NamedTuple

from talon.domain.content import ImagePart
from talon.domain.entries import MessageReceived
from talon.domain.errors import NotFound
from talon.gateway.api.lookup import require_session
from talon.gateway.deps import GatewayDeps
from talon.store.protocols import Where

#: The largest `seq` that a store knows.
SEQ_MAX = 2**63 - 1


class Image(NamedTuple):
    """An image's bytes, and what they are."""

    media_type: str
    data: bytes


async def image_of(deps: GatewayDeps, where: Where, seq: int, number: int) -> Image:
    """The image that is part `number`, counted from 0, of the message at `seq`. Raises `NotFound`.

    Only what a message of this very session speaks of is given, whoever knows what digest.
    """
    session = await require_session(deps.store, where)
    found = await deps.store.read_entries(session.sid, seq - 1, 1) if session.first_seq <= seq <= session.last_seq else []
    payload = found[0].decode() if found else None
    if isinstance(payload, MessageReceived) and not isinstance(payload.content, str) and 0 <= number < len(payload.content):
        part = payload.content[number]
        if isinstance(part, ImagePart):
            data = (await deps.store.read_blobs(session.sid, [part.blob])).get(part.blob)
            if data is not None:
                return Image(part.media_type, data)
    raise NotFound("image_not_found", f"entry {seq} of session {session.id!r} is no message with an image as its part {number}")
