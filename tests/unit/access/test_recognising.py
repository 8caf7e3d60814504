"""Keys and tokens: recognised, remembered, and nobody from the moment that they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.handclock import HandClock
from support.stores import in_file
from support.waiting import until
from talon.access.authenticator import LOOKUPS_MAX, REMEMBER_MS
from talon.access.oidc import Client
from talon.access.protocol import HEADER_MAX, KeyRequest, Minted, TokenRequest
from talon.access.recognised import TOUCH_EVERY_S, Recognised
from talon.access.roles import LOCAL, Grant, Principal
from talon.access.room import Room, asking_room, open_room
from talon.access.secret import generate, parse
from talon.access.upkeep import TRUSTED_S
from talon.domain.errors import Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from talon.store.access import CredentialRow, LogFilter, LogRow
from talon.store.sqlite import SqliteStore

ADMIN = LOCAL


class Counting(SqliteStore):
    """The real store, counting what it is asked."""

    looked = held = rounds = 0
    away = False
    hold: asyncio.Event | None = None

    async def get_credential(self, credential: str) -> CredentialRow | None:
        self.looked += 1
        self._reach()
        row = await super().get_credential(credential)
        if self.hold is not None:
            self.held += 1
            await self.hold.wait()
        return row

    async def revoked_after(self, version: int) -> tuple[list[str], int]:
        self._reach()
        found = await super().revoked_after(version)
        self.rounds += 1
        return found

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("database_unavailable", "away")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Counting]:
    async with in_file(Counting, tmp_path, clock) as opened:
        yield opened


@pytest.fixture
async def room(store: Counting, clock: HandClock) -> Room:
    made = asking_room(store, clock, Recognised(clock), keys=True)
    await made.upkeep.turn()
    return made


async def key(room: Room, *grants: Grant, by: Principal = ADMIN, **more: Any) -> Minted:
    return await room.access.keys.create(by, KeyRequest("for tests", grants or (Grant("admin", "acme"),), **more))


async def who(room: Room, minted: Minted | str) -> Principal:
    text = minted if isinstance(minted, str) else minted.secret
    return await room.access.authenticator.principal(f"Bearer {text}", "")


async def nobody(room: Room, minted: Minted | str) -> bool:
    try:
        await who(room, minted)
    except Unauthenticated:
        return True
    return False


class TestKeys:
    async def test_a_key_recognises_its_principal_until_it_is_revoked(self, room: Room) -> None:
        made = await key(room, Grant("developer", "acme"), Grant("viewer", "*"))
        assert await who(room, made) == Principal(
            f"key:{made.row.id}", (Grant("developer", "acme"), Grant("viewer", "*")), via=made.row.id
        )
        await room.access.keys.revoke(ADMIN, made.row.id)
        assert await nobody(room, made)

    async def test_what_is_stored_does_not_give_the_key_away(self, room: Room, tmp_path: Path) -> None:
        made = await key(room)
        secret = made.secret.rpartition("_")[2].encode()
        await who(room, made)
        files = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir()))
        assert made.row.id.encode() in files
        assert secret not in files

    async def test_a_wrong_secret_under_a_known_id_is_nobody_and_so_is_every_other_text(self, room: Room) -> None:
        made = await key(room)
        assert not await nobody(room, made)
        other = generate().text.rpartition("_")[2]
        wrong = [
            f"talon_{made.row.id}_{other}",
            made.secret[:-1],
            made.secret + "a",
            made.secret.upper(),
            generate().text,
            "talon_",
            "",
            "x" * HEADER_MAX,
            "talon_ab\0cd_" + other,
            "talon_\udcff_" + other,
        ]
        for text in wrong:
            assert await nobody(room, text), text
        for header in (made.secret, f"Basic {made.secret}", f"Bearer{made.secret}", "Bearer"):
            with pytest.raises(Unauthenticated):
                await room.access.authenticator.principal(header, "")
        assert (await room.access.authenticator.principal(f"bearer  {made.secret} ", "")).via == made.row.id

    async def test_a_key_in_a_cookie_and_a_cookie_as_a_key_are_nobody(self, store: Counting, clock: HandClock) -> None:
        room = asking_room(
            store, clock, Recognised(clock), keys=True, oidc=Client("https://idp.example", "talon", "", "RS256", (), "g", 60)
        )
        made = await key(room)
        for name in ("talon", "__Host-talon"):
            with pytest.raises(Unauthenticated):
                await room.access.authenticator.principal("", f"{name}={made.secret}")

    async def test_a_key_expires(self, room: Room, clock: HandClock) -> None:
        made = await key(room, ttl_s=60)
        assert (await who(room, made)).expires_at_ms == clock.ms + 60_000
        clock.ms += 59_999
        await room.upkeep.turn()
        assert not await nobody(room, made)
        clock.ms += 1
        assert await nobody(room, made)

    async def test_with_keys_off_only_tokens_count(self, store: Counting, clock: HandClock) -> None:
        room = asking_room(store, clock, Recognised(clock), keys=False)
        assert await nobody(room, await key(room))
        token = await room.access.keys.mint(ADMIN, TokenRequest("acme", "helper"))
        assert not await nobody(room, token)


class TestGiving:
    @pytest.mark.parametrize(
        ("has", "gives", "refused"),
        [
            (Grant("admin", "*"), Grant("admin", "*"), None),
            (Grant("admin", "acme"), Grant("developer", "acme:eu"), None),
            (Grant("admin", "acme"), Grant("viewer", "*"), Forbidden),
            (Grant("admin", "acme"), Grant("viewer", "other"), NotFound),
            (Grant("admin", "acme"), Grant("viewer", "acmex"), NotFound),
            (Grant("admin", "acme:eu"), Grant("viewer", "acme"), NotFound),
            (Grant("developer", "acme"), Grant("viewer", "acme"), Forbidden),
            (Grant("operator", "acme"), Grant("operator", "acme"), Forbidden),
        ],
    )
    async def test_nobody_gives_a_key_that_he_does_not_have(self, room: Room, has: Grant, gives: Grant, refused: Any) -> None:
        giver = await who(room, await key(room, has))
        if refused is None:
            assert (await who(room, await key(room, gives, by=giver))).grants == (gives,)
            return
        with pytest.raises(refused):
            await key(room, gives, by=giver)

    @pytest.mark.parametrize(
        ("has", "asked", "refused"),
        [
            (Grant("operator", "acme"), TokenRequest("acme", "helper", "s1"), None),
            (Grant("operator", "acme"), TokenRequest("acme:eu", "helper"), None),
            (Grant("operator", "acme"), TokenRequest("acme", "helper", role="viewer"), None),
            (Grant("operator", "acme"), TokenRequest("acme", "helper", role="developer"), Forbidden),
            (Grant("operator", "acme"), TokenRequest("other", "helper"), NotFound),
            (Grant("operator", "acme"), TokenRequest("*", "helper"), Invalid),
            (Grant("operator", "acme"), TokenRequest("acme", ""), Invalid),
            (Grant("operator", "acme"), TokenRequest("acme", "helper", ttl_s=0), Invalid),
            (Grant("operator", "acme"), TokenRequest("acme", "helper", ttl_s=86_401), Invalid),
            (Grant("operator", "acme"), TokenRequest("acme", "helper", role="god"), Invalid),  # type: ignore[arg-type]
            (Grant("viewer", "acme"), TokenRequest("acme", "helper"), Forbidden),
            (Grant("approver", "acme"), TokenRequest("acme", "helper", role="viewer"), Forbidden),
        ],
    )
    async def test_a_token_is_never_wider_than_its_minter(self, room: Room, has: Grant, asked: TokenRequest, refused: Any) -> None:
        minter = await who(room, await key(room, has))
        if refused is None:
            client = await who(room, await room.access.keys.mint(minter, asked))
            assert (client.agent, client.session, client.grants) == (
                asked.agent,
                asked.session,
                (Grant(asked.role, asked.namespace),),
            )
            return
        with pytest.raises(refused):
            await room.access.keys.mint(minter, asked)

    async def test_a_client_gives_nothing(self, room: Room) -> None:
        client = await who(room, await room.access.keys.mint(ADMIN, TokenRequest("acme", "helper")))
        for giving in (
            room.access.keys.mint(client, TokenRequest("acme", "helper")),
            room.access.keys.create(client, KeyRequest("k", (Grant("viewer", "acme"),))),
        ):
            with pytest.raises(Forbidden):
                await giving

    async def test_a_token_dies_with_its_minter_and_ends_no_later(self, room: Room, clock: HandClock) -> None:
        made = await key(room, ttl_s=600)
        minter = await who(room, made)
        token = await room.access.keys.mint(minter, TokenRequest("acme", "helper"))
        assert token.row.expires_at_ms == clock.ms + 600_000
        assert not await nobody(room, token)
        await room.access.keys.revoke(ADMIN, made.row.id)
        await room.upkeep.turn()
        assert await nobody(room, token)
        with pytest.raises(Unauthenticated):
            await room.access.keys.mint(minter, TokenRequest("acme", "helper"))

    async def test_one_sees_and_ends_only_what_he_may_manage_and_his_own(self, room: Room) -> None:
        keys = room.access.keys
        wide, eu, us = [await key(room, Grant("operator", place)) for place in ("*", "acme:eu", "acme:us")]
        admin = await who(room, await key(room, Grant("admin", "acme:eu")))
        assert {row.id for row in (await keys.list(admin, "key", "", 100))[0]} == {eu.row.id, admin.via}
        for other in (wide, us):
            with pytest.raises(NotFound) as there:
                await keys.revoke(admin, other.row.id)
            with pytest.raises(NotFound) as absent:
                await keys.revoke(admin, "zzzz")
            assert there.value.detail.replace(other.row.id, "") == absent.value.detail.replace("zzzz", "")
        await keys.revoke(admin, eu.row.id)
        operator = await who(room, us)
        token = await keys.mint(operator, TokenRequest("acme:us", "helper"))
        await keys.revoke(operator, token.row.id)
        await keys.revoke(operator, us.row.id)
        assert await nobody(room, us)

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            (KeyRequest("", (Grant("viewer", "acme"),)), "name"),
            (KeyRequest("a\nb", (Grant("viewer", "acme"),)), "name"),
            (KeyRequest("x" * 201, (Grant("viewer", "acme"),)), "name"),
            (KeyRequest("k", ()), "grants"),
            (KeyRequest("k", tuple(Grant("viewer", f"n{n}") for n in range(65))), "grants"),
            (KeyRequest("k", (Grant("viewer", "acme"), Grant("viewer", "A b"))), "grants[1]"),
            (KeyRequest("k", (Grant("viewer", "acme"),), 0), "ttl_s"),
            (KeyRequest("k", (Grant("viewer", "acme"),), 10**12), "ttl_s"),
        ],
    )
    async def test_a_bad_request_names_its_field_and_writes_nothing(
        self, room: Room, store: Counting, asked: KeyRequest, field: str
    ) -> None:
        with pytest.raises(Invalid) as raised:
            await room.access.keys.create(ADMIN, asked)
        assert [one.field for one in raised.value.errors] == [field]
        assert await store.list_credentials("key", "", 10) == ([], "")


class TestMemory:
    async def test_a_key_is_looked_up_once(self, room: Room, store: Counting) -> None:
        made = await key(room)
        for _ in range(100):
            await who(room, made)
        assert store.looked == 1

    async def test_many_at_once_look_up_once_and_garbage_takes_few_places(self, room: Room, store: Counting) -> None:
        made = await key(room)
        store.hold = asyncio.Event()
        asked = [asyncio.create_task(who(room, made)) for _ in range(50)]
        await until(lambda: store.held)
        garbage = [asyncio.create_task(nobody(room, generate().text)) for _ in range(50)]
        await until(lambda: store.held == LOOKUPS_MAX)
        assert store.looked == LOOKUPS_MAX
        store.hold.set()
        assert {one.via for one in await asyncio.gather(*asked)} == {made.row.id}
        assert all(await asyncio.gather(*garbage))

    async def test_a_key_that_another_process_revoked_is_nobody_after_the_next_round(self, room: Room, store: Counting) -> None:
        made = await key(room)
        await who(room, made)
        await store.revoke_credential(made.row.id)
        assert not await nobody(room, made)
        await room.upkeep.turn()
        assert await nobody(room, made)

    async def test_an_answer_from_before_the_revocation_is_not_believed(self, room: Room, store: Counting) -> None:
        made = await key(room)
        store.hold = asyncio.Event()
        slow = asyncio.create_task(nobody(room, made))
        await until(lambda: store.held)
        await store.revoke_credential(made.row.id)
        await room.upkeep.turn()
        store.hold.set()
        assert await slow
        assert await nobody(room, made)

    async def test_nothing_is_believed_that_could_not_be_asked_after(self, room: Room, store: Counting, clock: HandClock) -> None:
        made = await key(room)
        await who(room, made)
        store.away = True
        clock.ms += round(TRUSTED_S * 1000)
        assert not await nobody(room, made)
        clock.ms += 1
        with pytest.raises(Unavailable):
            await who(room, made)
        store.away = False
        await store.revoke_credential(made.row.id)
        await room.upkeep.turn()
        assert await nobody(room, made)

    async def test_what_does_not_expire_is_looked_up_again_now_and_then(
        self, room: Room, store: Counting, clock: HandClock
    ) -> None:
        made = await key(room)
        await who(room, made)
        clock.ms += REMEMBER_MS
        await room.upkeep.turn()
        await who(room, made)
        assert store.looked == 2

    async def test_use_is_written_once_a_minute(self, room: Room, store: Counting, clock: HandClock) -> None:
        made = await key(room)

        async def used() -> int | None:
            await who(room, made)
            await room.upkeep.turn()
            row = await store.get_credential(made.row.id)
            assert row is not None
            return row.used_at_ms

        first = await used()
        assert first == clock.ms
        clock.ms += 30_000
        assert await used() == first
        clock.ms += round(TOUCH_EVERY_S * 1000)
        assert await used() == clock.ms

    def test_what_is_remembered_is_bounded(self, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("talon.access.recognised.REMEMBERED_MAX", 10)
        monkeypatch.setattr("talon.access.recognised.GONE_MAX", 10)
        recognised = Recognised(clock)
        for number in range(100):
            recognised.remember(f"{number}".encode(), Principal("p", (), via=f"v{number}"), clock.ms + 1)
        assert [number for number in range(100) if recognised.find(f"{number}".encode())] == list(range(90, 100))
        recognised.revoked(f"v{number}" for number in range(100))
        assert not [number for number in range(100) if recognised.find(f"{number}".encode())]


class TestWatching:
    async def test_whoever_watches_is_told_once_of_a_revocation_and_of_the_end_of_time(self, room: Room, clock: HandClock) -> None:
        told: list[str] = []
        keys = [await key(room), await key(room), await key(room, ttl_s=60)]
        people = [await who(room, one) for one in keys]
        for name, one in zip("abc", people, strict=True):
            room.access.authenticator.watch(one, lambda name=name: told.append(name))
        room.access.authenticator.watch(people[0], lambda: told.append("never"))()
        await room.access.keys.revoke(ADMIN, keys[0].row.id)
        await asyncio.sleep(0)
        assert told == ["a"]
        await room.access.keys.revoke(ADMIN, keys[0].row.id)
        clock.ms += 60_000
        running = asyncio.create_task(room.upkeep.run())
        await until(lambda: "c" in told)
        running.cancel()
        await asyncio.wait({running})
        assert told == ["a", "c"]

    async def test_whoever_comes_too_late_is_told_soon(self, room: Room) -> None:
        made = await key(room)
        somebody = await who(room, made)
        await room.access.keys.revoke(ADMIN, made.row.id)
        told = asyncio.Event()
        room.access.authenticator.watch(somebody, told.set)
        await asyncio.wait_for(told.wait(), 5)

    async def test_one_that_fails_keeps_no_other_from_being_told(self, room: Room) -> None:
        made = await key(room)
        somebody = await who(room, made)
        loop, told, failed = asyncio.get_running_loop(), asyncio.Event(), list[Any]()
        loop.set_exception_handler(lambda _, context: failed.append(context))
        room.access.authenticator.watch(somebody, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        room.access.authenticator.watch(somebody, told.set)
        await room.access.keys.revoke(ADMIN, made.row.id)
        await asyncio.wait_for(told.wait(), 5)
        assert len(failed) == 1


class TestOpenAndLog:
    async def test_where_nobody_is_asked_everybody_is_the_local_admin(self, store: Counting, clock: HandClock) -> None:
        room = open_room(store, clock)
        assert not room.access.authenticator.asks
        assert await room.access.authenticator.principal("Bearer nonsense", "") is LOCAL

    async def test_log_rows_are_stored_in_the_next_round_and_at_the_end(self, room: Room, clock: HandClock) -> None:
        def row(number: int) -> LogRow:
            return LogRow(clock.ms, "key:a", "sessions.read", "op", "acme", f"o{number}", "ok", f"r{number}", "127.0.0.1", "http")

        for number in range(2500):
            room.access.log.write(row(number))
        await room.upkeep.turn()
        room.access.log.write(row(2500))
        await room.upkeep.close()
        found, cursor = await room.access.log.query(LogFilter(), "", 5000)
        assert [one.object for one in found] == [f"o{number}" for number in range(2500, -1, -1)]
        assert cursor == ""


def test_a_key_has_one_form() -> None:
    made = generate()
    assert parse(made.text) == made
    assert made.text.startswith(f"talon_{made.id}_")
    assert len({generate().text for _ in range(100)}) == 100


async def test_of_what_was_minted_with_a_revoked_key_the_streams_end_at_once_too(room: Room, store: Counting) -> None:
    made = await key(room)
    minted = await room.access.keys.mint(await who(room, made), TokenRequest("acme", "helper"))
    told = asyncio.Event()
    room.access.authenticator.watch(await who(room, minted), told.set)
    rounds = store.rounds
    running = asyncio.create_task(room.upkeep.run())
    await until(lambda: store.rounds > rounds)  # now it waits
    await room.access.keys.revoke(ADMIN, made.row.id)
    await asyncio.wait_for(told.wait(), 0.3)
    assert await nobody(room, minted)
    running.cancel()
    await asyncio.wait({running})
