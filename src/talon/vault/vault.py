"""The vault: seals values, reads them by name, moves them to a new key. Keeps no value: each is read when it is needed."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence

from talon.domain.errors import Conflict, Invalid, NotFound
from talon.domain.ids import Clock
from talon.store.resources import SealedRow, UseRow
from talon.vault.envelope import Key, Unreadable, owner_of, rewrap, seal, unseal, value_tag
from talon.vault.protocol import UNREADABLE_SHOWN, Rotation, Sealed, SealedValues
from talon.vault.ring import MAKE_ONE, Ring, RingKey, find

#: A use is recorded when this process first uses a value for a purpose, when the value has changed, and then once in this time.
USE_EVERY_S = 60.0
#: A key that is not the newest any more stays this long: what was sealed with it a moment before may be written a moment after.
RETIRED_KEEP_MS = 3_600_000
BATCH = 100
_PASSES_MAX = 100
_USES_MAX = 4096
log = logging.getLogger(__name__)


class Vault:
    """A `Sealer` and a `Reader` on one store and one ring. `hide` is told of each value that passes, so that no log shows it."""

    def __init__(self, store: SealedValues, ring: Ring, clock: Clock, hide: Callable[[str], None]) -> None:
        self._store, self._ring, self._clock, self._hide = store, ring, clock, hide
        self._writing = asyncio.Lock()
        self._rotating: asyncio.Task[Rotation] | None = None
        self._uses: dict[tuple[str, str, str, str], tuple[bytes, float]] = {}
        self._recording = asyncio.Lock()

    # --- values ---------------------------------------------------------------------------------------------------------------

    async def seal(self, namespace: str, name: str, uid: str, value: str) -> Sealed:
        """See `Sealer.seal`."""
        self._hide(value)
        keys = self._current() or await self._first_key()
        key = keys[0].key
        return Sealed(seal(key, owner_of(namespace, name, uid), value.encode()), key.id)

    async def same(self, namespace: str, name: str, value: str) -> bool:
        """See `Sealer.same`."""
        self._hide(value)
        row = await self._store.get_sealed(namespace, name)
        try:
            return row is not None and hmac.compare_digest(self._open(row), value.encode())
        except Conflict:
            return False

    async def read(self, namespace: str, name: str, used_by: str, purpose: str) -> str:
        """See `Reader.read`."""
        row = await self._store.get_sealed(namespace, name)
        if row is None:
            hint = f"`talon secret set {name} -n {namespace}`"
            detail = f"secret {name!r} of namespace {namespace!r} does not exist or has no value: {hint}"
            raise NotFound("secret_not_found", detail)
        value = self._open(row).decode()
        self._hide(value)
        await self._record((namespace, name, used_by, purpose), row.uid.encode() + value_tag(row.sealed))
        return value

    def _open(self, row: SealedRow) -> bytes:
        key = self._key(row.key_id)
        if key is None:
            raise _unreadable(row, f"its key {row.key_id} is not in {self._ring.where}")
        try:
            return unseal(key, owner_of(row.namespace, row.name, row.uid), row.sealed)
        except Unreadable:
            raise _unreadable(row, "what is stored was changed or moved") from None

    def _key(self, key_id: str) -> Key | None:
        """A key that is not known here may have come into the file since."""
        found = find(self._ring.known(), key_id)
        if found is not None:
            return found
        try:
            return find(self._ring.current(), key_id)
        except Invalid as error:
            log.error("%s", error.detail)
            return None

    def _current(self) -> tuple[RingKey, ...]:
        """The ring as it is on the disk now: nothing is encrypted with a key that the next start would not find."""
        try:
            return self._ring.current()
        except Invalid as error:
            raise Conflict("secret_key_missing", error.detail) from None

    async def _record(self, place: tuple[str, str, str, str], what: bytes) -> None:
        """Those that come while a use is being written down wait for it, and are counted with it."""
        if self._recorded(place, what):
            return
        async with self._recording:
            if self._recorded(place, what):
                return
            namespace, name, used_by, purpose = place
            now_s = self._clock.monotonic_s()
            await self._store.record_use(UseRow(namespace, name, used_by, purpose, 0))
            if len(self._uses) >= _USES_MAX:
                self._uses.clear()
            self._uses[place] = (what, now_s)

    def _recorded(self, place: tuple[str, str, str, str], what: bytes) -> bool:
        known, at_s = self._uses.get(place, (b"", 0.0))
        return known == what and self._clock.monotonic_s() - at_s < USE_EVERY_S

    # --- keys -----------------------------------------------------------------------------------------------------------------

    async def _first_key(self) -> tuple[RingKey, ...]:
        """Make the first key. Not where others would have another one, and not where values wait for a key that was lost."""
        ring = self._ring
        if not ring.owned:
            raise Conflict(
                "secret_key_missing",
                f"there is no key to encrypt secrets with in {ring.where}; Talon makes none where several processes need the "
                f"same: {MAKE_ONE}; give it to all of them as TALON_SECRETS_KEY or in secrets.key_file",
            )
        waiting = await self._store.list_sealed("", ("", ""), 1)
        if waiting:
            raise Conflict(
                "secret_key_missing",
                f"{ring.where} is not there, and the database has values that were encrypted with key {waiting[0].key_id} of it: "
                f"put the file back; if it is lost for good, put a new key there ({MAKE_ONE}; mode 600) and set the secrets again",
            )
        return await self._put_first(only_if_empty=True)

    async def _put_first(self, only_if_empty: bool) -> tuple[RingKey, ...]:
        async with self._writing:
            try:
                return await asyncio.to_thread(self._ring.put_first, Key.generate(), only_if_empty, self._clock.now_ms())
            except Invalid as error:
                raise Conflict("secret_key_missing", error.detail) from None

    async def rotate(self) -> Rotation:
        """See `Sealer.rotate`. Who asks while one is under way waits for that one; nobody's going away ends it."""
        if self._rotating is None or self._rotating.done():
            self._rotating = asyncio.create_task(self._rotate(), name="rotation of keys")
        return await asyncio.shield(self._rotating)

    async def _rotate(self) -> Rotation:
        keys = self._current()
        if not keys:
            return await self._move(await self._first_key(), generated=True)
        if self._ring.owned:
            keys = await self._put_first(only_if_empty=False)
        return await self._move(keys, generated=self._ring.owned)

    async def finish(self) -> None:
        """Go on with a rotation that was cut off, where the ring is our own; warn of values that cannot be opened."""
        keys = self._current()
        if self._ring.owned and keys:
            done = await self._move(keys, generated=False)
            unreadable = done.unreadable
            if done.rewrapped:
                log.info("secrets: %d values were moved to key %s", done.rewrapped, done.key_id)
        else:
            rows = await self._store.list_sealed(keys[0].key.id if keys else "", ("", ""), BATCH)
            unreadable = tuple(f"{row.namespace}/{row.name}" for row in rows if find(keys, row.key_id) is None)[:UNREADABLE_SHOWN]
        if unreadable:
            log.error("secrets that no key of %s opens: %s", self._ring.where, ", ".join(unreadable))

    async def _move(self, keys: Sequence[RingKey], generated: bool) -> Rotation:
        """Wrap every value's key with the newest, in passes: what was written with an older one meanwhile is found by the next."""
        newest = keys[0].key
        moved = 0
        for _ in range(_PASSES_MAX):
            again = False
            left: list[SealedRow] = []
            after = ("", "")
            while rows := await self._store.list_sealed(newest.id, after, BATCH):
                after = (rows[-1].namespace, rows[-1].name)
                for row in rows:
                    new = self._rewrapped(row, newest)
                    if new is None:
                        left.append(row)
                    elif await self._store.reseal(row, new):
                        moved += 1
                        again = True
                    else:
                        again = True
            if not again:
                return await self._moved(keys, generated, moved, left)
        raise Conflict("conflict", "secrets were changed all the time while their keys were rotated; rotate again")

    def _rewrapped(self, row: SealedRow, newest: Key) -> SealedRow | None:
        key = self._key(row.key_id)
        if key is None:
            return None
        owner = owner_of(row.namespace, row.name, row.uid)
        try:
            sealed = rewrap(key, newest, owner, row.sealed)
        except Unreadable:
            return None
        return SealedRow(row.namespace, row.name, row.uid, newest.id, sealed)

    async def _moved(self, keys: Sequence[RingKey], generated: bool, moved: int, left: Sequence[SealedRow]) -> Rotation:
        """The end: keys that were retired long ago and that nothing uses leave the ring."""
        used, now_ms = {row.key_id for row in left}, self._clock.now_ms()
        dropped = frozenset(
            one.key.id
            for one in keys[1:]
            if one.key.id not in used and one.retired_at_ms is not None and now_ms - one.retired_at_ms >= RETIRED_KEEP_MS
        )
        if dropped and self._ring.owned:
            async with self._writing:
                await asyncio.to_thread(self._ring.drop, dropped)
        names = tuple(f"{row.namespace}/{row.name}" for row in left[:UNREADABLE_SHOWN])
        return Rotation(keys[0].key.id, generated, moved, names, tuple(sorted(dropped)) if self._ring.owned else ())


def _unreadable(row: SealedRow, why: str) -> Conflict:
    return Conflict(
        "secret_unreadable",
        f"the value of secret {row.name!r} of namespace {row.namespace!r} cannot be decrypted: {why}; bring the key back, or set "
        f"the secret again (`talon secret set {row.name} -n {row.namespace}`)",
    )
