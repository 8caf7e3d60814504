"""The key ring: the keys of a process, the newest first. Given to it, or in a file that is read again when it changes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from talon.domain.errors import Invalid
from talon.vault.envelope import KEY_BYTES, Key

KEYS_MAX = 100
#: How to make a key, in words that go into messages.
MAKE_ONE = "`head -c 32 /dev/urandom | base64` makes one"


@dataclass(frozen=True, slots=True)
class RingKey:
    """A key in its place. `retired_at_ms` is when a newer one was put before it, None for the newest."""

    key: Key
    retired_at_ms: int | None = None


class Ring(Protocol):
    """Where the keys are."""

    @property
    def owned(self) -> bool:
        """Whether Talon itself makes and drops keys here."""
        ...

    @property
    def where(self) -> str:
        """Its place in words, for messages: never with a key."""
        ...

    def known(self) -> tuple[RingKey, ...]:
        """The keys as they were last read; the newest first."""
        ...

    def current(self) -> tuple[RingKey, ...]:
        """The keys as they are now; none where there is no file yet. Raises `Invalid` when they cannot be read."""
        ...

    def put_first(self, key: Key, only_if_empty: bool, now_ms: int) -> tuple[RingKey, ...]:
        """Make `key` the newest, or leave the ring if there is a key and `only_if_empty`; durable when it returns. -> the keys.
        Blocks on the disk. Raises `Invalid` when it cannot be written; `TypeError` where the ring is not `owned`."""
        ...

    def drop(self, ids: frozenset[str]) -> None:
        """Take these keys out, never the newest. As `put_first` otherwise."""
        ...


class GivenRing:
    """Keys that were given to the process as they are: they stay the same until it ends. Perhaps none at all."""

    owned = False

    def __init__(self, keys: Sequence[Key], where: str) -> None:
        self._keys = tuple(RingKey(key) for key in keys)
        self.where = where

    def known(self) -> tuple[RingKey, ...]:
        """All of them."""
        return self._keys

    current = known

    def put_first(self, key: Key, only_if_empty: bool, now_ms: int) -> tuple[RingKey, ...]:
        """Never: nobody else would have the key."""
        raise TypeError("the keys are given from outside")

    def drop(self, ids: frozenset[str]) -> None:
        """Never, as above."""
        raise TypeError("the keys are given from outside")


def find(keys: Sequence[RingKey], key_id: str) -> Key | None:
    """The key of that id."""
    return next((one.key for one in keys if one.key.id == key_id), None)


def parse_key(text: str) -> Key:
    """A key from base64 (also the URL-safe form, also without its `=`). Raises `ValueError` that does not show it."""
    text = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        material = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not base64; a key is {KEY_BYTES} random bytes as base64: {MAKE_ONE}") from None
    if len(material) != KEY_BYTES:
        raise ValueError(f"has {len(material)} bytes; a key is {KEY_BYTES} random bytes as base64: {MAKE_ONE}")
    return Key(material)


def parse_keys(text: str) -> tuple[Key, ...]:
    """Keys separated by commas, the newest first. Raises `ValueError` that does not show them."""
    keys: list[Key] = []
    parts = [part for part in text.split(",") if part.strip()]
    for number, part in enumerate(parts, 1):
        try:
            keys.append(parse_key(part))
        except ValueError as error:
            raise ValueError(f"key {number} of {len(parts)} {error}") from None
    if not keys:
        raise ValueError(f"is empty; a key is {KEY_BYTES} random bytes as base64: {MAKE_ONE}")
    if len(set(keys)) != len(keys):
        raise ValueError("has the same key twice")
    return tuple(keys)


def read_lines(data: bytes, where: str) -> tuple[RingKey, ...]:
    """The key file: a key a line, the newest first, since when it is not the newest behind it (Unix ms); `#` begins a remark.

    Raises `Invalid` that names the line and shows nothing of it.
    """
    found: list[RingKey] = []
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            retired = int(words[1]) if len(words) > 1 else 0 if found else None
            if len(words) > 2:
                raise ValueError("has more than a key and a time")
            found.append(RingKey(parse_key(words[0]), retired if found else None))
        except ValueError as error:
            words_of_it = str(error) if "invalid literal" not in str(error) else "has something behind the key that is no time"
            raise Invalid("invalid", f"{where}: line {number} {words_of_it}") from None
    if len({one.key for one in found}) != len(found):
        raise Invalid("invalid", f"{where}: the same key stands there twice")
    if len(found) > KEYS_MAX:
        raise Invalid("invalid", f"{where}: {len(found)} keys; at most {KEYS_MAX}")
    return tuple(found)


HEAD = """\
# The keys that Talon's secrets are encrypted with, the newest first. Who has this file and the database can read them all;
# without it nobody can. Keep a copy of it, apart from the copies of the database.
"""


def to_lines(keys: Sequence[RingKey]) -> bytes:
    """What `read_lines` reads."""
    lines = [
        base64.b64encode(one.key.material).decode() + ("" if one.retired_at_ms is None else f" {one.retired_at_ms}") for one in keys
    ]
    return (HEAD + "\n".join(lines) + "\n").encode()
