"""Opaque cursors of lists, digests of blobs, and how long things are kept: what both stores must do alike."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from talon.domain.errors import FieldError, Invalid

#: Idempotency keys are remembered at least this long (K9), and forgotten by `collect_blobs` afterwards.
KEY_KEEP_MS = 7 * 24 * 3600 * 1000
#: A blob that no entry refers to is kept this long after it was last put.
BLOB_KEEP_MS = 24 * 3600 * 1000
#: Payloads above this many bytes go to the blob table.
BLOB_MIN_BYTES = 64 * 1024

_INT64_MAX = 2**63 - 1


def cursor_after(*position: int | str) -> str:
    """The cursor of the page that follows the row at `position` (the values of the list's order)."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def position_of(cursor: str, *kinds: type[int] | type[str]) -> tuple[int | str, ...] | None:
    """The position in `cursor`, whose values are of `kinds`; None for "", the first page.

    Raises `Invalid("cursor_invalid")` for anything that `cursor_after` did not make for such a list.
    """
    if not cursor:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(raw, type=list[int | str])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise _invalid(cursor) from None
    if len(values) != len(kinds) or not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
        raise _invalid(cursor)
    if any(isinstance(value, int) and not 0 <= value <= _INT64_MAX for value in values) or "\0" in "".join(map(str, values)):
        raise _invalid(cursor)
    return tuple(values)


def blob_digest(namespace: str, payload: bytes) -> str:
    """The name of a blob: hashed with its namespace, so that nobody learns from it what another tenant holds (kernel §8)."""
    return hashlib.sha256(namespace.encode() + b"\0" + payload).hexdigest()


def _invalid(cursor: str) -> Invalid:
    shown = cursor if len(cursor) <= 80 else cursor[:77] + "..."
    return Invalid(
        "cursor_invalid",
        f"the cursor {shown!r} is not one that this list gave; start without a cursor",
        (FieldError("cursor", "not a cursor of this list", shown),),
    )
