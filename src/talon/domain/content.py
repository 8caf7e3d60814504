"""What a message says: a text, or parts: texts and images in their order.

The journal keeps of an image what it is and where it lies: the bytes are a blob of the session's namespace (kernel §4), kept once
however often they are sent, and never part of an entry.
"""

from __future__ import annotations

import msgspec


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A text; its `type` is `text`."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image, `type` is `image`: its media type, its `size` in bytes, and the digest of the `blob` that holds them."""

    media_type: str
    size: int
    blob: str


Part = TextPart | ImagePart
Content = str | tuple[Part, ...]

#: How the bytes of each kind of image begin (the PNG, GIF, JPEG and WebP specifications).
_BEGINNINGS = (
    ("image/png", b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", b"\xff\xd8\xff"),
    ("image/gif", b"GIF87a"),
    ("image/gif", b"GIF89a"),
)
#: The kinds of images that a message may have.
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")


def image_type(data: bytes) -> str:
    """The media type that the first bytes speak of; empty for none of `IMAGE_TYPES`. That the rest can be drawn is not checked."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for kind, beginning in _BEGINNINGS if data.startswith(beginning)), "")


def text_of(content: Content) -> str:
    """The texts of a message, a line for each."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content if isinstance(part, TextPart))


def images_of(content: Content) -> tuple[ImagePart, ...]:
    """The images of a message, in their order."""
    return () if isinstance(content, str) else tuple(part for part in content if isinstance(part, ImagePart))
