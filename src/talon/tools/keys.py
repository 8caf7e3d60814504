"""The idempotency key of a tool call (K5)."""

from __future__ import annotations

import base64
import hashlib

_PREFIX = "tk_"


def idempotency_key(session_uid: str, seq: int) -> str:
    """The key of the call whose `tool.requested` entry is `seq` of the session incarnation `session_uid`.

    A pure function, so every attempt of a call, on any worker and after any crash, uses the same key, and no two calls share one:
    a `seq` names one entry of one incarnation for ever. 46 characters of `[A-Za-z0-9_-]`, fit for a header or a URL.
    Opaque: nothing can be read from it. It is a name, not a secret; who knows the uid and the seq can derive it.
    """
    digest = hashlib.sha256(f"talon tool call\0{session_uid}\0{seq}".encode()).digest()
    return _PREFIX + base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
