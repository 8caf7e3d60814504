"""Images as programs make them: small files of each kind that a message may have."""

from __future__ import annotations

import base64
import struct
import zlib
from random import Random
from typing import Any


def png(seed: int = 1, side: int = 4) -> bytes:
    """A picture of `side` × `side` pixels of noise; another `seed` is another picture. Noise cannot be compressed: it has a little
    more than three bytes a pixel."""
    rows = b"".join(b"\0" + Random(f"{seed}/{row}").randbytes(3 * side) for row in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


#: The beginnings of the other kinds, as their specifications have them; more of them nobody here looks at.
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(20)
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(20)
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L" + bytes(20)


def image(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    """A part of a message, as it is posted."""
    return {"type": "image", "media_type": media_type, "data": base64.b64encode(data).decode()}


def text(words: str) -> dict[str, Any]:
    """A part of a message, as it is posted."""
    return {"type": "text", "text": words}
