"""What others ask of the vault. A gateway seals values and never reads them; who uses a value reads it by name, and is recorded."""

from __future__ import annotations

from typing import Protocol

import msgspec

from talon.store.resources import SealedRow, UseRow

#: So many unreadable values are named in a `Rotation`.
UNREADABLE_SHOWN = 20


class Sealed(msgspec.Struct, frozen=True):
    """A value as a store keeps it (`PutResource.sealed`, `.key_id`). It opens only for the resource that it was made for."""

    sealed: bytes
    key_id: str


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation did. `key_id` is the newest key, `generated` whether it was made now; `rewrapped` values moved to it.
    `unreadable` are `namespace/name` of those that no key of the ring opens (at most `UNREADABLE_SHOWN`): they are as they were.
    `dropped` are the ids of keys that nothing needs any more and that left the ring."""

    key_id: str
    generated: bool
    rewrapped: int
    unreadable: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class Sealer(Protocol):
    """The gateway's side: values go in, none comes out."""

    async def seal(self, namespace: str, name: str, uid: str, value: str) -> Sealed:
        """Encrypt `value` for this resource under the newest key. Raises `Conflict("secret_key_missing")` when there is no key to
        encrypt with, and none may be made here."""
        ...

    async def same(self, namespace: str, name: str, value: str) -> bool:
        """Whether the stored value is `value`. False also where there is none, or none that can be opened. No use of it."""
        ...

    async def rotate(self) -> Rotation:
        """Put a new key first into the ring where the ring is this process's own, and wrap every value's key with the newest. May
        run at any time, in several processes, and again after it was killed. Raises `Conflict("secret_key_missing")`."""
        ...


class Reader(Protocol):
    """The side of those who use values."""

    async def read(self, namespace: str, name: str, used_by: str, purpose: str) -> str:
        """The value as it is now; the use is recorded before it is handed out.

        Raises `NotFound("secret_not_found")` when there is no such secret or it has no value, `Conflict("secret_unreadable")` when
        no key opens it, `Unavailable` when the store cannot be asked or cannot record the use.
        """
        ...


class SealedValues(Protocol):
    """What the vault needs of a store."""

    async def get_sealed(self, namespace: str, name: str) -> SealedRow | None:
        """See `talon.store.resources.Resources`, as for all of these."""
        ...

    async def list_sealed(self, not_key_id: str, after: tuple[str, str], limit: int) -> list[SealedRow]: ...

    async def reseal(self, old: SealedRow, new: SealedRow) -> bool: ...

    async def record_use(self, use: UseRow) -> None: ...
