"""The vault on both stores: what is stored can be read by who has the key, and the keys can be changed while everybody works."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.handclock import HandClock
from support.stores import of_param
from talon.cli.system import SystemIds
from talon.domain.errors import Conflict, TalonError
from talon.store.protocols import Store
from talon.store.resources import Changes, PutResource, SealedRow
from talon.vault.envelope import Key
from talon.vault.keyfile import FileRing
from talon.vault.ring import GivenRing
from talon.vault.vault import RETIRED_KEEP_MS, USE_EVERY_S, Vault

IDS = SystemIds()


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with of_param(request, tmp_path) as opened:
        await opened.change(Changes(puts=(PutResource("", "Namespace", "acme", IDS.uuid7(), 0, b"{}"),)))
        yield opened


@dataclass
class Place:
    """A store with the key file of its vaults; `hidden` is what they told the log to mask."""

    store: Store
    file: Path
    clock: HandClock
    hidden: list[str]

    def vault(self, *, owned: bool = True, keys: tuple[Key, ...] | None = None) -> Vault:
        ring = GivenRing(keys, "the environment") if keys is not None else FileRing(self.file, owned=owned)
        return Vault(self.store, ring, self.clock, self.hidden.append)

    async def put(self, vault: Vault, name: str, value: str) -> None:
        """Set a secret's value as a gateway does."""
        while True:
            row = await self.store.get_resource("acme", "Secret", name)
            uid, generation = (row.uid, row.generation) if row else (IDS.uuid7(), 0)
            sealed = await vault.seal("acme", name, uid, value)
            put = PutResource("acme", "Secret", name, uid, generation, b"{}", sealed=sealed.sealed, key_id=sealed.key_id)
            try:
                await self.store.change(Changes(puts=(put,)))
            except Conflict:
                continue
            return

    async def row(self, name: str) -> SealedRow:
        found = await self.store.get_sealed("acme", name)
        assert found is not None
        return found

    async def used(self, name: str) -> list[tuple[str, str]]:
        return [(use.used_by, use.purpose) for use in (await self.store.list_uses("acme", name, "", 100))[0]]


@pytest.fixture
def place(store: Store, tmp_path: Path) -> Place:
    return Place(store, tmp_path / "keys" / "secrets.key", HandClock(), [])


async def refused(work: object, code: str) -> TalonError:
    with pytest.raises(TalonError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.code == code, caught.value
    return caught.value


async def test_a_value_is_read_by_name_as_it_is_now(place: Place) -> None:
    vault = place.vault()
    assert not place.file.exists(), "no key before there is a value"
    assert not await vault.same("acme", "openai", "sk-1")
    await refused(vault.read("acme", "openai", "w", "p"), "secret_not_found")
    await place.put(vault, "openai", "sk-1 \N{SNOWMAN}")
    assert await vault.read("acme", "openai", "w", "p") == "sk-1 \N{SNOWMAN}"
    assert await vault.same("acme", "openai", "sk-1 \N{SNOWMAN}")
    assert not await vault.same("acme", "openai", "sk-1")
    await place.put(vault, "openai", "sk-2")
    assert await vault.read("acme", "openai", "w", "p") == "sk-2"
    assert await place.vault().read("acme", "openai", "w", "p") == "sk-2", "the next process has the key too"
    assert set(place.hidden) == {"sk-1 \N{SNOWMAN}", "sk-1", "sk-2"}


async def test_a_use_is_recorded_at_first_when_the_value_changes_and_then_once_a_minute(place: Place) -> None:
    vault = place.vault()
    await place.put(vault, "openai", "sk-1")
    await asyncio.gather(*(vault.read("acme", "openai", "worker/a", "chat") for _ in range(50)))
    assert await place.used("openai") == [("worker/a", "chat")]
    await vault.rotate()
    place.clock.later(USE_EVERY_S - 1)
    await vault.read("acme", "openai", "worker/a", "chat")
    assert len(await place.used("openai")) == 1, "another key is not another value"
    place.clock.later(1)
    await vault.read("acme", "openai", "worker/a", "chat")
    assert len(await place.used("openai")) == 2
    await place.put(vault, "openai", "sk-2")
    await vault.read("acme", "openai", "worker/a", "chat")
    await vault.read("acme", "openai", "worker/a", "embed")
    await place.vault().read("acme", "openai", "worker/b", "chat")
    assert [who for who, _ in await place.used("openai")] == ["worker/b", "worker/a", "worker/a", "worker/a", "worker/a"]


async def test_without_a_key_of_its_own_a_process_makes_none(place: Place) -> None:
    for vault in (place.vault(keys=()), place.vault(owned=False)):
        for work in (vault.seal("acme", "openai", "u", "sk-1"), vault.rotate()):
            error = await refused(work, "secret_key_missing")
            assert "TALON_SECRETS_KEY" in error.detail
    assert not place.file.exists()


async def test_a_lost_key_is_not_covered_up_by_a_new_one(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    await place.put(place.vault(), "openai", "sk-1")
    key_id = (await place.row("openai")).key_id
    lost = place.file.rename(place.file.with_name("lost"))
    vault = place.vault()
    with caplog.at_level(logging.ERROR):
        await vault.finish()
    assert "acme/openai" in caplog.text
    assert key_id in (await refused(vault.read("acme", "openai", "w", "p"), "secret_unreadable")).detail
    for work in (vault.seal("acme", "other", "u", "sk-2"), vault.rotate()):
        assert key_id in (await refused(work, "secret_key_missing")).detail
    assert not place.file.exists()
    lost.rename(place.file)
    assert await vault.read("acme", "openai", "w", "p") == "sk-1", "it is found again without a restart"


async def test_a_value_that_no_key_opens_is_left_as_it_is_named_and_replaced_by_setting_it(place: Place) -> None:
    stranger = place.vault(keys=(Key.generate(),))
    for number in range(3):
        await place.put(stranger, f"lost-{number}", "sk-lost")
    vault = place.vault(keys=(Key.generate(),))
    await place.put(vault, "mine", "sk-mine")
    assert not await vault.same("acme", "lost-0", "sk-lost")
    before = await place.row("lost-0")
    done = await vault.rotate()
    assert (done.unreadable, done.rewrapped) == (("acme/lost-0", "acme/lost-1", "acme/lost-2"), 0)
    assert await place.row("lost-0") == before
    await place.put(vault, "lost-0", "sk-new")
    assert await vault.read("acme", "lost-0", "w", "p") == "sk-new"


async def test_a_row_that_was_changed_or_moved_says_only_that(place: Place) -> None:
    vault = place.vault()
    await place.put(vault, "one", "sk-one")
    await place.put(vault, "two", "sk-two")
    one, two = await place.row("one"), await place.row("two")
    assert await place.store.reseal(one, SealedRow(one.namespace, one.name, one.uid, two.key_id, two.sealed))
    error = await refused(vault.read("acme", "one", "w", "p"), "secret_unreadable")
    assert "sk-" not in str(error)
    assert await place.used("one") == []


async def test_a_rotation_moves_every_value_and_drops_a_key_when_nothing_can_need_it(place: Place) -> None:
    vault, neighbour = place.vault(), place.vault(owned=False)
    for number in range(7):
        await place.put(vault, f"s{number}", f"sk-{number}")
    await neighbour.read("acme", "s0", "w", "p")
    first = (await place.row("s0")).key_id
    done = await vault.rotate()
    assert (done.generated, done.rewrapped, done.dropped, done.unreadable) == (True, 7, (), ())
    assert {(await place.row(f"s{n}")).key_id for n in range(7)} == {done.key_id}
    assert await neighbour.read("acme", "s1", "w", "p") == "sk-1", "who meets a key that is new to it reads the file again"
    assert (await vault.rotate()).dropped == (), "what was sealed a moment ago may be written a moment later"
    place.clock.later(RETIRED_KEEP_MS / 1000)
    third = await vault.rotate()
    assert first in third.dropped
    assert next(one.key.id for one in FileRing(place.file, owned=True).current()) == third.key_id
    assert len(FileRing(place.file, owned=True).current()) == 2
    assert [await vault.read("acme", f"s{n}", "w", "p") for n in range(7)] == [f"sk-{n}" for n in range(7)]


async def test_who_asks_for_a_rotation_while_one_is_under_way_gets_that_one(place: Place) -> None:
    vault = place.vault()
    await place.put(vault, "openai", "sk-1")
    gone = asyncio.create_task(vault.rotate())
    await asyncio.sleep(0)
    gone.cancel()
    done = await asyncio.gather(*(vault.rotate() for _ in range(5)))
    assert len(set(done)) == 1
    assert done[0].rewrapped == 1
    assert len(FileRing(place.file, owned=True).current()) == 2


async def test_a_key_that_a_value_still_needs_stays(place: Place) -> None:
    vault = place.vault()
    await place.put(vault, "late", "sk-late")
    row = await place.row("late")
    await vault.rotate()
    new = await place.row("late")
    place.clock.later(2 * RETIRED_KEEP_MS / 1000)
    broken = SealedRow(row.namespace, row.name, row.uid, row.key_id, row.sealed[:-1])
    assert await place.store.reseal(new, broken)
    done = await vault.rotate()
    assert (done.dropped, done.unreadable) == ((), ("acme/late",))
    assert await place.store.reseal(broken, row)
    assert await vault.read("acme", "late", "w", "p") == "sk-late"


async def test_with_given_keys_a_rotation_moves_what_is_there_to_the_first_of_them(place: Place) -> None:
    old, new = Key.generate(), Key.generate()
    await place.put(place.vault(keys=(old,)), "openai", "sk-1")
    done = await place.vault(keys=(new, old)).rotate()
    assert (done.generated, done.rewrapped, done.key_id) == (False, 1, new.id)
    assert await place.vault(keys=(new,)).read("acme", "openai", "w", "p") == "sk-1"
    again = await place.vault(keys=(new, old)).rotate()
    assert (again.rewrapped, again.dropped) == (0, ())


async def test_a_rotation_that_was_cut_off_goes_on_at_the_next_start(place: Place) -> None:
    vault = place.vault()
    for number in range(5):
        await place.put(vault, f"s{number}", f"sk-{number}")
    real, allowed = place.store.reseal, 2

    async def reseal(old: SealedRow, new: SealedRow) -> bool:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise asyncio.CancelledError
        return await real(old, new)

    place.store.reseal = reseal  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await vault.rotate()
    place.store.reseal = real  # type: ignore[method-assign]
    assert len({(await place.row(f"s{n}")).key_id for n in range(5)}) == 2
    fresh = place.vault()
    assert [await fresh.read("acme", f"s{n}", "w", "p") for n in range(5)] == [f"sk-{n}" for n in range(5)]
    await fresh.finish()
    newest = FileRing(place.file, owned=True).current()[0].key.id
    assert {(await place.row(f"s{n}")).key_id for n in range(5)} == {newest}


async def test_values_are_read_and_set_while_their_keys_are_rotated(place: Place) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = [f"s{n}" for n in range(8)]
    vaults = [place.vault(), place.vault()]
    written = dict.fromkeys(names, 0)
    for name in names:
        await place.put(vaults[0], name, "0")
    stop = asyncio.Event()
    reads = 0

    async def read() -> None:
        nonlocal reads
        while not stop.is_set():
            name = chance.choice(names)
            low = written[name]
            value = int(await chance.choice(vaults).read("acme", name, "w", "p"))
            assert low <= value <= written[name] + 1, name
            reads += 1

    async def write(mine: list[str]) -> None:
        while not stop.is_set():
            name = chance.choice(mine)
            await place.put(chance.choice(vaults), name, str(written[name] + 1))
            written[name] += 1

    async def rotate() -> int:
        moved = 0
        for number in range(12):
            moved += (await vaults[number % 2].rotate()).rewrapped
        stop.set()
        return moved

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        rotating = group.create_task(rotate())
        for mine in (names[:4], names[4:]):
            group.create_task(write(mine))
        for _ in range(3):
            group.create_task(read())
    assert rotating.result() > 0
    assert reads > 0
    assert sum(written.values()) > 0
    await vaults[0].finish()
    assert {name: int(await place.vault().read("acme", name, "w", "p")) for name in names} == written
    newest = FileRing(place.file, owned=True).current()[0].key.id
    assert {(await place.row(name)).key_id for name in names} == {newest}
