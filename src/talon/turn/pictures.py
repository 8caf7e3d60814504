"""Which images of a conversation a model call has, and their bytes. The others are named in their places: none goes in silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from talon.providers.protocol import ChatMessage, Image, Part, Text
from talon.turn.context import ContextLimits

#: What stands in an image's place.
OLDER = "[an image that was sent here is left out: newer ones took its place]"
UNSEEN = "[an image that was sent here is left out: this model takes none]"
GONE = "[an image that was sent here is left out: it is not kept any more]"

#: Digests -> the bytes of those blobs that are there.
ReadBlobs = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]


def choose(messages: Sequence[ChatMessage], limits: ContextLimits, *, blind: bool) -> tuple[ChatMessage, ...]:
    """`messages` with the images that this call has: the newest ones, within `limits`, whatever turn they are of; none of them for
    a `blind` model. They are still to be read. Pure."""
    count, room = (0, 0) if blind else (limits.images_max, limits.images_bytes_max)
    out: list[ChatMessage] = []
    for message in reversed(messages):
        if message.parts:
            parts: list[Part] = []
            for part in reversed(message.parts):
                if isinstance(part, Image) and part.blob:
                    if not count or part.size > room:
                        count = 0  # what is older than one that had no room is left out too: the newest, without a gap
                        parts.append(Text(UNSEEN if blind else OLDER))
                        continue
                    count, room = count - 1, room - part.size
                parts.append(part)
            message = replace(message, parts=tuple(reversed(parts)))
        out.append(message)
    return tuple(reversed(out))


async def with_bytes(messages: Sequence[ChatMessage], read: ReadBlobs) -> tuple[ChatMessage, ...]:
    """`messages` with the bytes of their images. One read for all of them; none where there are none."""
    blobs = dict.fromkeys(part.blob for message in messages for part in message.parts if isinstance(part, Image) and part.blob)
    if not blobs:
        return tuple(messages)
    found = await read(tuple(blobs))

    def filled(part: Part) -> Part:
        if not isinstance(part, Image) or not part.blob:
            return part
        data = found.get(part.blob)
        return Text(GONE) if data is None else Image(part.mime, data)

    return tuple(replace(message, parts=tuple(map(filled, message.parts))) if message.parts else message for message in messages)
