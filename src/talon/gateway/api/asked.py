"""What a change carries of the request that asked for it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from talon.access.roles import Principal
from talon.domain.errors import FieldError, Invalid
from talon.domain.ids import Ids
from talon.domain.inbox import Key
from talon.gateway.api.permits import key_scope

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
KEY = re.compile(r"[\x21-\x7e]{1,255}")
_sorted = msgspec.json.Encoder(order="deterministic")


class Asked(msgspec.Struct, frozen=True):
    """`who` asks, over the transport `source`, `http` or `grpc`. `key`: the idempotency key as it was given, None without one;
    `key_field` is what it is called there. `traceparent`: the trace that the change belongs to."""

    who: Principal
    source: str
    traceparent: str
    key: str | None = None
    key_field: str = "Idempotency-Key"

    def key_of(self, body: Any) -> Key | None:
        """The key with the digest of `body`, everything that the request says. Raises `Invalid` for a key that is none."""
        if self.key is None:
            return None
        self.check_key()
        return Key(key_scope(self.who), self.key, hashlib.sha256(_sorted.encode(body)).hexdigest())

    def check_key(self) -> None:
        """Raise `Invalid` for a key that is none."""
        if self.key is not None and KEY.fullmatch(self.key) is None:
            raise wrong(self.key_field, "must be 1 to 255 printable ASCII characters without spaces", self.key[:80])


def trace_of(given: str, ids: Ids) -> str:
    """The caller's `traceparent` (W3C Trace Context), if it can be read; else a new one, so that every entry belongs to a trace."""
    if TRACEPARENT.fullmatch(given):
        return given
    fresh = ids.uuid7().replace("-", "")
    return f"00-{fresh}-{fresh[16:]}-01"


def wrong(field: str, message: str, value: str | None = None) -> Invalid:
    """One field with a wrong value."""
    said = f"{field} {message}" + (f", not {value!r}" if value is not None else "")
    return Invalid("invalid", said, (FieldError(field, message, value),))
