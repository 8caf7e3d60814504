"""The form of a key: `talon_ID_SECRET`. The id is no secret and may be logged; of the secret only the SHA-256 is kept.

256 random bits need no slow hash: nobody tries them all, and a check costs a microsecond.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import NamedTuple

PREFIX = "talon"
ID_BYTES, SECRET_BYTES = 10, 32
#: Longer or shorter than what `generate` makes is allowed within bounds: a first key may be given by its operator.
FORM = re.compile(r"talon_([a-z0-9]{4,32})_([A-Za-z0-9_-]{32,128})")
EXPECTED = "talon_ID_SECRET: an id of 4 to 32 of a-z and 0-9, a secret of 32 to 128 of A-Z, a-z, 0-9, _ and -"


class Secret(NamedTuple):
    """A key in its parts. `text` is the whole of it."""

    id: str
    text: str
    digest: bytes


def generate() -> Secret:
    """A new one, from the system's source of randomness."""
    name, secret = _random(ID_BYTES), _random(SECRET_BYTES)
    return Secret(name, f"{PREFIX}_{name}_{secret}", digest_of(secret))


def parse(text: str) -> Secret | None:
    """The key that `text` is, or None."""
    match = FORM.fullmatch(text)
    return None if match is None else Secret(match[1], text, digest_of(match[2]))


def masked(text: str) -> str:
    """`text` without the secret of any key in it: who sent one to the wrong place is told so without it."""
    return FORM.sub(lambda found: f"{PREFIX}_{found[1]}_***", text) if f"{PREFIX}_" in text else text


def digest_of(secret: str) -> bytes:
    """What is kept of the secret part."""
    return hashlib.sha256(secret.encode()).digest()


def _random(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()
