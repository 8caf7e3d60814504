"""The journal as events: pure. A reader's place in a journal, and what the next entries make of it.

A client's cursor is the SSE `id` that it saw last, in one of three forms:

    SEQ                       every entry up to SEQ was seen
    SEQ.OFFSET                and OFFSET characters (code points) of the answer that is being streamed
    SEQ.OFFSET.REASONING      and so many of its reasoning

In an id, SEQ is the last *entry* sent before, which is nearly always the `model.started` itself; an inbox entry that comes in the
middle of an answer moves it on, so that resuming there repeats neither the entry nor the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from talon.domain.entries import (
    TURN_ENDS,
    Entry,
    InputSteered,
    MessageCompleted,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    TurnCancelled,
    TurnCancelRequested,
)
from talon.domain.errors import Invalid
from talon.gateway.times import rfc3339
from talon.store.model import Fragment

CURSOR = re.compile(r"(\d{1,15})(?:\.(\d{1,9})(?:\.(\d{1,9}))?)?", re.ASCII)
#: These end a model call without an answer: clients drop its partial text, unless it `keeps`.
_DROPS = frozenset({"model.failed", "stream.reset"})
_DELETIONS = frozenset({"turn.cancelled", "turn.cancel_requested"})
_encode = msgspec.json.encode


class Cursor(msgspec.Struct, frozen=True):
    """A parsed cursor; see the module."""

    seq: int
    text: int = 0
    reasoning: int = 0
    exact: bool = False  # it had offsets


def parse_cursor(text: str, field: str) -> Cursor:
    """Raises `Invalid("cursor_invalid")` naming `field`."""
    match = CURSOR.fullmatch(text)
    if match is None:
        raise Invalid("cursor_invalid", f"{field} {text[:60]!r} is no cursor; use an event's id: SEQ or SEQ.OFFSET")
    return Cursor(int(match[1]), int(match[2] or 0), int(match[3] or 0), match[2] is not None)


class Place(msgspec.Struct, frozen=True):
    """Where a reader stands; readers at the same place get the same bytes.

    `seq`: the last entry passed. `model`, `turn`: the open model call and its turn; 0 and "" without one. `text`, `reasoning`:
    characters of it sent. `watch`: send only this turn's events ("" for all), `message`: the seq of a steering message whose turn
    is watched, wherever it goes. `ended`: the watched turn's end was passed. `deleted`: the session is being deleted.
    """

    seq: int
    model: int = 0
    turn: str = ""
    text: int = 0
    reasoning: int = 0
    watch: str = ""
    message: int = 0
    ended: bool = False
    deleted: bool = False


class Form(Protocol):
    """How events are written; `heartbeat` is what an idle stream is told ("" for nothing). Instances are compared by identity."""

    heartbeat: bytes

    def entry(self, entry: Entry) -> bytes:
        """An entry. Its payload is JSON already."""
        ...

    def fragment(self, after: Place, kind: str, offset: int, text: str, at_ms: int) -> bytes:
        """Characters from `offset` on of the open answer (`kind` text) or its reasoning, sent up to `after` with them."""
        ...


def fits(place: Place, base: int, fragments: Sequence[Fragment]) -> bool:
    """Whether a commit goes on exactly where `place` stands; otherwise the journal must be read."""
    if base != place.seq:
        return False
    text, reasoning = place.text, place.reasoning
    for piece in fragments:
        have = text if piece.kind == "text" else reasoning
        if piece.seq != place.model or piece.offset > have:
            return False
        have = max(have, piece.offset + len(piece.text))
        text, reasoning = (have, reasoning) if piece.kind == "text" else (text, have)
    return True


def advance(
    place: Place, entries: Sequence[Entry], fragments: Sequence[Fragment], at_ms: int, form: Form | None = None
) -> tuple[bytes, Place]:
    """The events of `fragments`, then of `entries` (ascending, from `place` on), and the place after them.

    `at_ms` dates the fragments, which carry no time of their own; `form` None is `SSE`. Entries that were passed and characters
    that were sent are skipped; a fragment after a gap is left for the next read.
    """
    out: list[bytes] = []
    form = form or SSE
    for piece in fragments:
        if not place.ended and piece.seq == place.model:
            place = _stream(out, form, place, piece.kind, piece.offset, piece.text, at_ms)
    for entry in entries:
        if entry.seq > place.seq and not place.ended:
            place = _step(out, form, place, entry)
    return b"".join(out), place


def _step(out: list[bytes], form: Form, place: Place, entry: Entry) -> Place:
    """Pass one entry."""
    kind = entry.type
    if place.model and place.turn == entry.turn_id:
        place = _about_answer(out, form, place, entry)
    if not place.watch or entry.turn_id == place.watch:
        out.append(form.entry(entry))
    change: dict[str, object] = {"seq": entry.seq}
    if kind == "model.started":
        model = opens(entry)
        if model != place.model:
            change |= {"model": model, "turn": entry.turn_id, "text": 0, "reasoning": 0}
    elif kind in TURN_ENDS and entry.turn_id == place.watch:
        change["ended"] = True
    elif kind == "input.steered" and place.message:
        payload = entry.decode()
        if isinstance(payload, InputSteered) and payload.state == "requeued" and payload.message_seq == place.message:
            change["watch"] = payload.turn
    if kind in _DELETIONS:
        payload = entry.decode()
        if isinstance(payload, TurnCancelled | TurnCancelRequested) and payload.reason == "deleted":
            change["deleted"] = True
    return msgspec.structs.replace(place, **change)


def keeps(entry: Entry) -> bool:
    """Whether an entry that ends a model call leaves its text standing: the next call may go on with it."""
    payload = entry.decode() if entry.type == "model.failed" else None
    return isinstance(payload, ModelFailed) and payload.kept > 0


def opens(entry: Entry) -> int:
    """What the fragments of the call that `entry`, a `model.started`, announces are named by."""
    payload = entry.decode()
    return payload.continues or entry.seq if isinstance(payload, ModelStarted) else entry.seq


def _about_answer(out: list[bytes], form: Form, place: Place, entry: Entry) -> Place:
    """What `entry` means for the open model call: its last characters go out before it, or its partial text is void.

    A client that has seen a part gets the rest; one that has seen nothing finds the whole text in the entry itself.
    """
    if entry.type in TURN_ENDS or (entry.type in _DROPS and not keeps(entry)):
        return _closed(place)
    if entry.type not in ("model.finished", "message.completed"):
        return place
    if not (place.text or place.reasoning):
        return _closed(place)
    payload = entry.decode()
    if isinstance(payload, ModelFinished):
        if place.reasoning:
            place = _stream(out, form, place, "reasoning", 0, payload.reasoning, entry.at_ms)
        if not payload.content:
            return place  # it is the answer: `message.completed` holds it
        if place.text:
            place = _stream(out, form, place, "text", 0, payload.content, entry.at_ms)
    elif isinstance(payload, MessageCompleted) and payload.model_seq == place.model and place.text:
        place = _stream(out, form, place, "text", 0, payload.content, entry.at_ms)
    return _closed(place)


def _closed(place: Place) -> Place:
    return msgspec.structs.replace(place, model=0, turn="", text=0, reasoning=0)


def _stream(out: list[bytes], form: Form, place: Place, kind: str, offset: int, text: str, at_ms: int) -> Place:
    """Send what of `text` (characters `offset` …) lies beyond `place`."""
    have = place.text if kind == "text" else place.reasoning
    end = offset + len(text)
    if offset > have or end <= have:
        return place
    after = msgspec.structs.replace(place, text=end) if kind == "text" else msgspec.structs.replace(place, reasoning=end)
    if not place.watch or place.turn == place.watch:
        out.append(form.fragment(after, kind, have, text[have - offset :], at_ms))
    return after


class _ServerSent:
    """Server-sent events."""

    heartbeat = b": heartbeat\n\n"

    def entry(self, entry: Entry) -> bytes:
        """Its payload has no line break, so it is embedded as it is."""
        return b'id: %d\nevent: %b\ndata: {"seq":%d,"turn_id":%b,"type":"%b","at":"%b","payload":%b}\n\n' % (
            entry.seq,
            kind := entry.type.encode(),
            entry.seq,
            _encode(entry.turn_id or None),
            kind,
            rfc3339(entry.at_ms).encode(),
            entry.payload,
        )

    def fragment(self, after: Place, kind: str, offset: int, text: str, at_ms: int) -> bytes:
        """See `Form.fragment`."""
        event = FRAGMENT_TYPES[kind].encode()
        return b'id: %b\nevent: %b\ndata: {"seq":%d,"turn_id":%b,"type":"%b","at":"%b","payload":%b}\n\n' % (
            cursor_of(after).encode(),
            event,
            after.model,
            _encode(after.turn or None),
            event,
            rfc3339(at_ms).encode(),
            fragment_payload(offset, text),
        )


#: What a fragment is called in a stream.
FRAGMENT_TYPES = {"text": "text.delta", "reasoning": "reasoning.delta"}
SSE: Form = _ServerSent()


def cursor_of(place: Place) -> str:
    """The cursor that goes on inside the open answer at `place`."""
    return f"{place.seq}.{place.text}.{place.reasoning}" if place.reasoning else f"{place.seq}.{place.text}"


def fragment_payload(offset: int, text: str) -> bytes:
    """A fragment's payload as JSON."""
    return b'{"offset":%d,"text":%b}' % (offset, _encode(text))
