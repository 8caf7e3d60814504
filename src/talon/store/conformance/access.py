"""Credentials, their end, and the log of who did what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from talon.store.access import (
    CREDENTIAL_KEEP_MS,
    LOG_CANDIDATES_MAX,
    LOG_KEEP_MS,
    CredentialRow,
    LogFilter,
    LogRow,
    NewCredential,
)
from talon.store.conformance import support as s
from talon.store.conformance.sessions import pages
from talon.store.protocols import Store

HOUR_MS = 3_600_000


def new(credential: str = "one", kind: Any = "key", **more: Any) -> NewCredential:
    return NewCredential(credential, kind, b"\x00digest", b'[{"role":"viewer","namespace":"acme"}]', "key:maker", **more)


async def add(store: Store, credential: str = "one", kind: Any = "key", **more: Any) -> CredentialRow:
    row = await store.add_credential(new(credential, kind, **more))
    assert row is not None
    return row


def logged(number: int, **more: Any) -> LogRow:
    fields: dict[str, Any] = {
        "at_ms": number,
        "who": "key:a",
        "verb": "sessions.read",
        "operation": "get_session",
        "namespace": "acme",
        "object": f"helper/s{number}",
        "outcome": "ok",
        "request_id": f"r{number}",
        "address": "127.0.0.1",
        "via": "http",
    }
    return LogRow(**(fields | more))


class CredentialSuite:
    """What recognises somebody, and when it ends."""

    async def test_a_credential_is_kept_as_it_was_made(self, store: Store, second: Store) -> None:
        row = await add(store, "n", name="the first", agent="helper", session="s1", ttl_ms=HOUR_MS)
        expected = CredentialRow(
            id="n",
            kind="key",
            digest=b"\x00digest",
            name="the first",
            grants=b'[{"role":"viewer","namespace":"acme"}]',
            agent="helper",
            session="s1",
            parent="",
            created_by="key:maker",
            created_at_ms=row.created_at_ms,
            expires_at_ms=row.created_at_ms + HOUR_MS,
            revoked_at_ms=None,
            used_at_ms=None,
        )
        assert row == expected
        assert await second.get_credential("n") == row
        assert await second.get_credential("m") is None
        assert (await add(store, "forever")).expires_at_ms is None

    async def test_an_id_is_taken_once(self, store: Store, second: Store) -> None:
        row = await add(store)
        assert await second.add_credential(new(name="another")) is None
        assert await store.get_credential("one") == row

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_lists_are_of_one_kind_newest_first(self, store: Store, limit: int) -> None:
        for number in range(5):
            await add(store, f"key{number}")
            await add(store, f"token{number}", "token")
        found = await pages(lambda cursor, n: store.list_credentials("key", cursor, n), limit)
        assert [row.id for row in found] == [f"key{number}" for number in (4, 3, 2, 1, 0)]

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_lists_of_those_within_some_namespaces_are_full_and_tell_of_no_others(self, store: Store, limit: int) -> None:
        places = {
            "own": ("acme",),
            "below": ("acme:eu", "acme:us:ny"),
            "both": ("acme", "beta"),
            "beside": ("acme-two",),
            "foreign": ("beta",),
            "everywhere": ("*",),
            "and everywhere": ("*", "acme"),
            "nowhere": (),
            "deep": ("acme:eu:de",),
        }
        for number in range(3):
            for name, some in places.items():
                await add(store, f"{name}{number}", places=some)
                await add(store, f"t{name}{number}", "token", places=some)

        async def found(*within: str) -> list[str]:
            rows: list[str] = []
            cursor = ""
            while True:
                page, cursor = await store.list_credentials("key", cursor, limit, within)
                rows += [row.id for row in page]
                if not cursor:
                    return rows
                assert len(page) == limit

        def newest_first(*names: str) -> list[str]:
            return [f"{name}{number}" for number in (2, 1, 0) for name in reversed(list(places)) if name in names]

        assert await found("acme") == newest_first("own", "below", "deep")
        assert await found("acme", "beta") == newest_first("own", "below", "both", "foreign", "deep")
        assert await found("acme:eu") == newest_first("deep")
        assert await found("acme:eu", "acme:us") == newest_first("below", "deep")
        assert await found("gone") == await found() == []

    async def test_a_revocation_ends_it_and_what_was_minted_with_it_and_nothing_else(self, store: Store, second: Store) -> None:
        await add(store)
        for name in ("t1", "t2"):
            await add(store, name, "token", parent="one")
        await add(store, "b", "browser", parent="one")
        await add(store, "t4", "token", parent="b")
        await add(store, "other")
        await add(store, "t3", "token", parent="other")
        before = await store.access_version()
        ended = await store.revoke_credential("one")
        assert ended is not None
        assert ended.revoked_at_ms is not None
        gone, version = await second.revoked_after(before)
        assert sorted(gone) == ["b", "one", "t1", "t2", "t4"]
        assert version > before
        assert await second.revoked_after(version) == ([], version)
        assert await second.access_version() == version
        for name in ("other", "t3"):
            row = await store.get_credential(name)
            assert row is not None
            assert row.revoked_at_ms is None
        assert await store.revoke_credential("one") == ended
        assert await store.access_version() == version
        assert await store.revoke_credential("nobody") is None

    async def test_nothing_is_minted_with_what_has_ended(self, store: Store, execute: s.Execute) -> None:
        await add(store)
        await add(store, "short", ttl_ms=HOUR_MS)
        await store.revoke_credential("one")
        await execute("UPDATE credentials SET expires_at_ms = created_at_ms - 1 WHERE id = 'short'")
        for parent in ("one", "short", "nobody"):
            assert await store.add_credential(new("t", "token", parent=parent)) is None
        assert await store.get_credential("t") is None

    @pytest.mark.parametrize(("ttl_ms", "parent_ms"), [(None, HOUR_MS), (2 * HOUR_MS, HOUR_MS), (HOUR_MS, 2 * HOUR_MS)])
    async def test_a_token_ends_no_later_than_its_parent(self, store: Store, ttl_ms: int | None, parent_ms: int) -> None:
        parent = await add(store, ttl_ms=parent_ms)
        token = await add(store, "t", "token", parent="one", ttl_ms=ttl_ms)
        assert parent.expires_at_ms is not None
        assert token.expires_at_ms is not None
        ends = token.created_at_ms + HOUR_MS if ttl_ms == HOUR_MS else parent.expires_at_ms
        assert token.expires_at_ms == ends

    async def test_of_a_mint_and_a_revocation_at_once_no_token_is_left_alive(self, store: Store, second: Store) -> None:
        for number in range(8):
            key = f"key{number}"
            await add(store, key)
            made, _ = await asyncio.wait_for(
                asyncio.gather(second.add_credential(new(f"t{number}", "token", parent=key)), store.revoke_credential(key)), 20
            )
            row = await store.get_credential(f"t{number}")
            assert (made is None) == (row is None)
            assert row is None or row.revoked_at_ms is not None

    async def test_only_one_first_key_is_made(self, store: Store, second: Store, execute: s.Execute) -> None:
        await add(store, "token", "token")
        jobs = [(store, second)[n % 2].add_credential(new(f"first{n}", if_first=True)) for n in range(8)]
        made = [row for row in await asyncio.wait_for(asyncio.gather(*jobs), 20) if row is not None]
        assert len(made) == 1
        assert await store.add_credential(new("late", if_first=True)) is None
        await store.revoke_credential(made[0].id)
        again = await store.add_credential(new("again", if_first=True, ttl_ms=HOUR_MS))
        assert again is not None
        await execute("UPDATE credentials SET expires_at_ms = created_at_ms - 1 WHERE id = 'again'")
        assert await store.add_credential(new("third", if_first=True)) is not None

    async def test_use_is_noted(self, store: Store, second: Store) -> None:
        for name in ("a", "b", "c"):
            await add(store, name)
        await store.touch_credentials(["a", "c", "nobody"])
        used = {name: row.used_at_ms for name in ("a", "b", "c") if (row := await second.get_credential(name)) is not None}
        assert used["b"] is None
        assert min(used["a"] or 0, used["c"] or 0) > 0

    async def test_what_ended_is_forgotten_after_its_time(self, store: Store, execute: s.Execute) -> None:
        for name in ("alive", "expired", "revoked", "lately"):
            await add(store, name, ttl_ms=HOUR_MS)
        await add(store, "forever")
        for name in ("revoked", "lately"):
            await store.revoke_credential(name)
        version = await store.access_version()
        old = CREDENTIAL_KEEP_MS + 2 * HOUR_MS
        await execute(f"UPDATE credentials SET expires_at_ms = expires_at_ms - {old} WHERE id = 'expired'")
        await execute(f"UPDATE credentials SET revoked_at_ms = revoked_at_ms - {old} WHERE id = 'revoked'")
        assert await store.forget_access() == 2
        assert [row.id for row in (await store.list_credentials("key", "", 10))[0]] == ["forever", "lately", "alive"]
        assert await store.access_version() == version


class AccessLogSuite:
    """Who did what."""

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_rows_are_listed_newest_first_by_what_they_have(self, store: Store, second: Store, limit: int) -> None:
        rows = [
            logged(1),
            logged(2, who="key:b", outcome="forbidden"),
            logged(3, namespace="acme:eu", verb="sessions.write"),
            logged(4, who="", outcome="unauthenticated", namespace="", verb=""),
            logged(5, verb="sessions.write", outcome="agent_not_found"),
            logged(6, via="grpc"),
        ]
        await store.append_log(rows[:4])
        await store.append_log(rows[4:])

        async def found(**which: str) -> list[int]:
            listed = await pages(lambda cursor, n: second.list_log(LogFilter(**which), cursor, n), limit)
            assert [row for row in rows[::-1] if row in listed] == listed
            return [row.at_ms for row in listed]

        assert await found() == [6, 5, 4, 3, 2, 1]
        assert await found(who="key:a") == [6, 5, 3, 1]
        assert await found(namespace="acme") == [6, 5, 2, 1]
        assert await found(verb="sessions.write") == [5, 3]
        assert await found(outcome="!ok") == [5, 4, 2]
        assert await found(outcome="ok") == [6, 3, 1]
        assert await found(outcome="forbidden") == [2]
        assert await found(who="key:a", verb="sessions.write", namespace="acme") == [5]
        assert await found(who="key:a", namespace="acme", outcome="!ok") == [5]
        assert await found(who="nobody") == []

    async def test_a_page_reads_so_much_and_the_list_goes_on(self, store: Store) -> None:
        many = LOG_CANDIDATES_MAX + 10
        await store.append_log([logged(1, verb="keys.manage")])
        await store.append_log([logged(number) for number in range(2, many)])
        rows, cursor = await store.list_log(LogFilter(verb="keys.manage"), "", 5)
        assert rows == []
        rows, cursor = await store.list_log(LogFilter(verb="keys.manage"), cursor, 5)
        assert [row.at_ms for row in rows] == [1]
        assert cursor == ""

    async def test_old_rows_are_forgotten(self, store: Store) -> None:
        row = await add(store)  # made now, by the store's clock
        old = row.created_at_ms - LOG_KEEP_MS - HOUR_MS
        await store.append_log([logged(old), logged(old + 1), logged(row.created_at_ms)])
        assert await store.forget_access() == 2
        assert [one.at_ms for one in (await store.list_log(LogFilter(), "", 10))[0]] == [row.created_at_ms]
