"""Images from files, as parts of a message."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talon.cli.errors import WrongUse
from talon.domain.content import image_type

#: What is larger is not even read; how much a gateway takes it says itself.
FILE_MAX = 67_108_864


def content_of(text: str, files: Sequence[str | Path]) -> str | list[dict[str, Any]]:
    """A message of a text and images: only a text without files; only images without a text. Raises `WrongUse` for a file that
    cannot be read or is no image that a message may have."""
    if not files:
        return text
    images = [_part(Path(file)) for file in files]
    return [{"type": "text", "text": text}, *images] if text else images


def _part(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > FILE_MAX:
            raise WrongUse(f"{file} has {file.stat().st_size} bytes; an image has at most {FILE_MAX}")
        data = file.read_bytes()
    except OSError as error:
        raise WrongUse(f"{file}: cannot be read: {error.strerror}") from None
    kind = image_type(data)
    if not kind:
        raise WrongUse(f"{file} is no image of a kind that messages may have: PNG, JPEG, WebP or GIF, told by its first bytes")
    return {"type": "image", "media_type": kind, "data": base64.b64encode(data).decode()}
