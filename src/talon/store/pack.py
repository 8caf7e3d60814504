"""The entries of one append as the bytes of one journal row, and back. Pure, and the same for both stores.

A row is one msgpack array: the turn and the trace that its entries share, then type and payload of each. A type is its number in
`TYPE_NUMBERS`, or its name if it has none. An entry that is not like the others has an array in its payload's place:
`[payload, blob, v, min_reader, turn, trace]`, where null means the row's own. Ids are 16 bytes, W3C traces 26.

Beside its bytes a row has a set of `bits`, one per type in it, by which reads pass over rows that hold nothing for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from talon.domain.entries import CONTEXT_TYPES, MESSAGE_TYPES, TYPE_NUMBERS, Entry, NewEntry

_TYPE_NAMES = {number: name for name, number in TYPE_NUMBERS.items()}
#: A set of types is a signed 64-bit number. Types without a bit of their own share the last one.
_OTHERS = 1
_BIT_MAX = 62
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode

#: An entry, and the digest of the blob that holds its payload (empty: it holds it itself).
Found = tuple[Entry, str]


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical 36 characters: the only form in which a store knows an id."""
    return _UUID.fullmatch(text) is not None


def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID. Raises `ValueError` for anything but the canonical form."""
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not a UUID in its canonical form")
    return bytes.fromhex(text.replace("-", ""))


def uuid_text(raw: bytes) -> str:
    """The canonical form of 16 bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def bits(types: Iterable[str]) -> int:
    """The set of `types` as a number, never 0 unless there are none: two sets share a bit if they share a type."""
    found = 0
    for name in types:
        number = TYPE_NUMBERS.get(name, 0)
        found |= 1 << number if 0 < number <= _BIT_MAX else _OTHERS
    return found


CONTEXT_BITS, MESSAGE_BITS = bits(CONTEXT_TYPES), bits(MESSAGE_TYPES)


def pack(entries: Sequence[NewEntry]) -> bytes:
    """One or more entries of one append. Raises `ValueError` for a turn's id that is no UUID."""
    last = entries[-1]
    row: list[object] = [_turn_bytes(last.turn_id), _trace_bytes(last.traceparent)]
    for new in entries:
        row.append(TYPE_NUMBERS.get(new.type) or new.type)
        same_turn, same_trace = new.turn_id == last.turn_id, new.traceparent == last.traceparent
        if same_turn and same_trace and new.v == new.min_reader == 1 and not new.blob:
            row.append(new.payload)
        else:
            turn = None if same_turn else _turn_bytes(new.turn_id)
            trace = None if same_trace else _trace_bytes(new.traceparent)
            row.append([new.payload, new.blob, new.v, new.min_reader, turn, trace])
    return _encode(row)


def unpack(last_seq: int, at_ms: int, packed: bytes) -> Iterator[Found]:
    """The entries of a row that ends at `last_seq`, ascending."""
    row: list[Any] = _decode(packed)
    turn_id, traceparent = _turn_text(row[0]), _trace_text(row[1])
    seq = last_seq - (len(row) - 2) // 2
    for at in range(2, len(row), 2):
        seq += 1
        kind, payload = row[at], row[at + 1]
        name = kind if isinstance(kind, str) else _TYPE_NAMES[kind]
        if isinstance(payload, bytes):
            yield Entry(seq, name, payload, turn_id, at_ms, traceparent), ""
            continue
        payload, blob, v, reader, turn, trace = payload
        own_turn = turn_id if turn is None else _turn_text(turn)
        own_trace = traceparent if trace is None else _trace_text(trace)
        yield Entry(seq, name, payload, own_turn, at_ms, own_trace, v, reader), blob


def select(rows: Iterable[Iterable[Any]], limit: int, wanted: Callable[[Entry], bool]) -> list[Found]:
    """The first `limit` wanted entries of `rows` (last_seq, at_ms, pack) that ascend."""
    found: list[Found] = []
    for row in rows:
        for one in unpack(*row):
            if wanted(one[0]):
                found.append(one)
                if len(found) == limit:
                    return found
    return found


def select_last(rows: Iterable[Iterable[Any]], limit: int, wanted: Callable[[Entry], bool]) -> list[Found]:
    """The last `limit` wanted entries, ascending, of `rows` that descend."""
    found: list[Found] = []
    for row in rows:
        found += reversed([one for one in unpack(*row) if wanted(one[0])])
        if len(found) >= limit:
            break
    return found[:limit][::-1]


def with_payload(found: Found, blobs: Mapping[str, bytes]) -> Entry:
    """The entry; its payload from `blobs` if it lies there, empty if that is gone."""
    entry, digest = found
    return msgspec.structs.replace(entry, payload=blobs.get(digest, b"")) if digest else entry


def _turn_bytes(turn_id: str) -> bytes:
    return uuid_bytes(turn_id) if turn_id else b""


def _turn_text(raw: bytes) -> str:
    return uuid_text(raw) if raw else ""


def _trace_bytes(trace: str) -> bytes | str:
    return bytes.fromhex(trace.replace("-", "")) if _TRACE.fullmatch(trace) else trace


def _trace_text(raw: bytes | str) -> str:
    if isinstance(raw, str):
        return raw
    text = raw.hex()
    return f"{text[:2]}-{text[2:34]}-{text[34:50]}-{text[50:]}"
