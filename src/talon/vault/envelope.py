"""How a value is kept: encrypted under a data key of its own, which is wrapped with a key of the ring. Both by AES-256-GCM (NIST
SP 800-38D), both bound to the resource that they belong to.

    sealed = version(1) ‖ nonce(12) ‖ wrapped data key(32 + 16) ‖ nonce(12) ‖ value(n + 16)

A data key encrypts one value, once. To change the key of the ring only the data key is wrapped anew; the value's bytes stay. What
does not open says only that: which byte is wrong nobody learns.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_VERSION = 1
_NONCE = 12
_TAG = 16
_WRAPPED_END = 1 + _NONCE + KEY_BYTES + _TAG
_VALUE_BEGIN = _WRAPPED_END + _NONCE
SEALED_MIN_BYTES = _VALUE_BEGIN + _TAG


class Unreadable(Exception):
    """These bytes do not open: they were changed or moved, or the key is another one. Carries nothing of them."""


class Key:
    """A key of the ring. `id` is made from it by a hash and may be shown; the key itself is in no `repr`."""

    __slots__ = ("_cipher", "id", "material")

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(material)}")
        self.material = material
        self.id = hashlib.sha256(b"talon vault key id\0" + material).hexdigest()[:16]
        self._cipher = AESGCM(material)

    @classmethod
    def generate(cls) -> Key:
        """A new one, from the system's randomness: the only source of keys and nonces, on purpose not one that is handed in."""
        return cls(os.urandom(KEY_BYTES))

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def wrap(self, data_key: bytes, owner: bytes) -> bytes:
        """nonce ‖ encrypted `data_key`."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data_key, b"key\0" + owner)

    def unwrap(self, wrapped: bytes, owner: bytes) -> bytes:
        """The data key. Raises `Unreadable`."""
        try:
            return self._cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], b"key\0" + owner)
        except InvalidTag:
            raise Unreadable from None


def owner_of(namespace: str, name: str, uid: str) -> bytes:
    """The resource as associated data. Names hold no NUL, so two resources never give the same."""
    return "\0".join(("talon secret", namespace, name, uid)).encode()


def seal(key: Key, owner: bytes, value: bytes) -> bytes:
    """Encrypt `value` for `owner` under `key`. Twice the same value gives two different results; its length can be seen."""
    data_key, nonce = os.urandom(KEY_BYTES), os.urandom(_NONCE)
    body = nonce + AESGCM(data_key).encrypt(nonce, value, b"value\0" + owner)
    return bytes((_VERSION,)) + key.wrap(data_key, owner) + body


def unseal(key: Key, owner: bytes, sealed: bytes) -> bytes:
    """The value. Raises `Unreadable` for a wrong key, another owner, and any change of any byte."""
    data_key = key.unwrap(_wrapped(sealed), owner)
    try:
        return AESGCM(data_key).decrypt(sealed[_WRAPPED_END:_VALUE_BEGIN], sealed[_VALUE_BEGIN:], b"value\0" + owner)
    except InvalidTag:
        raise Unreadable from None


def rewrap(old: Key, new: Key, owner: bytes, sealed: bytes) -> bytes:
    """The same value under `new`. Raises `Unreadable` as `unseal`: what does not open is not given a good key."""
    unseal(old, owner, sealed)
    data_key = old.unwrap(_wrapped(sealed), owner)
    return sealed[:1] + new.wrap(data_key, owner) + sealed[_WRAPPED_END:]


def value_tag(sealed: bytes) -> bytes:
    """What is the same for as long as the value is not set again, whatever key it is under."""
    return sealed[-_TAG:]


def _wrapped(sealed: bytes) -> bytes:
    if len(sealed) < SEALED_MIN_BYTES or sealed[0] != _VERSION:
        raise Unreadable
    return sealed[1:_WRAPPED_END]
