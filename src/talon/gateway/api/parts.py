"""A message's parts as they are sent: what is wrong with one is found before any byte of it is kept."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from talon.domain.content import IMAGE_TYPES, Content, ImagePart, Part, TextPart, image_type
from talon.domain.errors import FieldError, TooLarge
from talon.gateway.api.asked import wrong
from talon.gateway.deps import GatewaySettings
from talon.store.paging import blob_digest

#: The most parts of one message.
PARTS_MAX = 64


class SentImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """An image: its media type and its bytes. An address is not taken: what lies there may change, or be anybody's, and not every
    vendor of models fetches it."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""


class SentText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """A text."""

    text: str


SentPart = SentText | SentImage
SentContent = str | tuple[SentPart, ...]


def check(content: SentContent, settings: GatewaySettings) -> None:
    """Raise `Invalid` or `TooLarge` for a message that is none, or too much of one."""
    if isinstance(content, str):
        _check_text("content", content)
        _check_size([content], settings.message_max)
        return
    if not content:
        raise wrong("content", "is empty: a message needs a part")
    if len(content) > PARTS_MAX:
        raise _too_large("content", f"has {len(content)} parts, a message may have {PARTS_MAX}")
    images = [part for part in content if isinstance(part, SentImage)]
    if len(images) > settings.images_max:
        most = f"{settings.images_max} (gateway.message_images_max)"
        raise _too_large("content", f"has {len(images)} images, a message may have {most}")
    for number, part in enumerate(content):
        place = f"content[{number}]"
        if isinstance(part, SentText):
            _check_text(f"{place}.text", part.text)
        else:
            _check_image(place, part, settings.image_max)
    _check_size([part.text for part in content if isinstance(part, SentText)], settings.message_max)


def kept(content: SentContent, namespace: str) -> tuple[Content, dict[str, bytes]]:
    """-> (the content as the journal has it, its images by the digests of their blobs in `namespace`)."""
    if isinstance(content, str):
        return content, {}
    blobs: dict[str, bytes] = {}
    parts: list[Part] = []
    for part in content:
        if isinstance(part, SentText):
            parts.append(TextPart(part.text))
            continue
        digest = blob_digest(namespace, part.data)
        blobs[digest] = part.data
        parts.append(ImagePart(part.media_type, len(part.data), digest))
    return tuple(parts), blobs


def _check_text(field: str, text: str) -> None:
    if not text or text.isspace():
        raise wrong(field, "is empty: a message needs text")
    if "\0" in text:
        raise wrong(field, f"has a NUL character at position {text.index(chr(0))}; text has none")


def _check_size(texts: Sequence[str], most: int) -> None:
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    if size > most:
        raise _too_large("content", f"has {size} bytes of text, a message may have {most} (gateway.message_max_bytes)")


def _check_image(place: str, image: SentImage, most: int) -> None:
    if image.url:
        raise wrong(f"{place}.url", "is not taken: send the image itself, its bytes as base64 in `data`")
    if image.media_type not in IMAGE_TYPES:
        raise wrong(f"{place}.media_type", f"must be one of {', '.join(IMAGE_TYPES)}", image.media_type[:80])
    if not image.data:
        raise wrong(f"{place}.data", "is empty: an image needs its bytes, as base64")
    if len(image.data) > most:
        raise _too_large(f"{place}.data", f"has {len(image.data)} bytes, an image may have {most} (gateway.image_max_bytes)")
    found = image_type(image.data)
    if found != image.media_type:
        what = f"begins as {found} does" if found else f"does not begin as {image.media_type} does"
        raise wrong(f"{place}.data", f"{what}, and media_type says {image.media_type}" if found else what)


def _too_large(field: str, message: str) -> TooLarge:
    return TooLarge("too_large", f"{field} {message}", (FieldError(field, message),))
