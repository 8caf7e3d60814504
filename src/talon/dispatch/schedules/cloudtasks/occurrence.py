"""What a task stands for: the occurrence of a schedule, its name in the queue, and the body of its call."""

from __future__ import annotations

import hashlib

import msgspec

from talon.domain.errors import Malformed

#: Bytes of a call's body that are read.
BODY_MAX = 4096


class Occurrence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An occurrence of schedule `uid`, of the timing that it was given at `since_ms`."""

    uid: str
    since_ms: int
    occurrence_ms: int


def task_id(one: Occurrence) -> str:
    """Its name: the same from whoever tells of it, so that the queue has it once.

    A name that was used cannot be used again for a while (an hour, nine days for old queues). A schedule that was paused and
    resumed may stand at the same occurrence again: `since_ms` makes another name of it. In front stands a hash, as Google advises:
    names in the order of time slow a queue down.
    """
    whole = f"{one.uid}/{one.since_ms}/{one.occurrence_ms}"
    return f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}-{one.uid}-{one.occurrence_ms}"


def encode(one: Occurrence) -> bytes:
    """The body of its call."""
    return msgspec.json.encode(one)


def decode(body: bytes) -> Occurrence:
    """The occurrence that a call is about. Raises `Malformed`."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("malformed", "the body names no occurrence: expected uid, since_ms and occurrence_ms as JSON") from None


_decoder = msgspec.json.Decoder(Occurrence)
