"""The first admin key: made where none is alive, kept where it was, never twice, never lost to a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from support.stores import in_file
from talon.access.grants import decode
from talon.access.roles import Grant
from talon.access.secret import generate, parse
from talon.cli.access import ADMIN_KEY_FILE, first_key
from talon.cli.errors import WrongUse
from talon.cli.settings import Auth
from talon.cli.system import SystemClock
from talon.store.access import CredentialRow
from talon.store.sqlite import SqliteStore

CLOCK = SystemClock()
KEYS = Auth(mode=("api_key",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with in_file(SqliteStore, tmp_path) as opened:
        yield opened


async def start(store: SqliteStore, directory: Path, auth: Auth = KEYS) -> str:
    """A gateway begins; -> what is in the file then."""
    await first_key(auth, directory, store, CLOCK)
    return await asyncio.to_thread(content, directory)


def content(directory: Path) -> str:
    file = directory / ADMIN_KEY_FILE
    return file.read_text().strip() if file.exists() else ""


async def keys(store: SqliteStore) -> list[CredentialRow]:
    return (await store.list_credentials("key", "", 100))[0]


async def test_it_is_made_once_and_is_an_admins(store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "talon")
    text = await start(store, tmp_path)
    made = parse(text)
    assert made is not None
    (row,) = await keys(store)
    assert (row.id, row.digest, decode(row.grants)) == (made.id, made.digest, (Grant("admin", "*"),))
    assert (tmp_path / ADMIN_KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert ADMIN_KEY_FILE in caplog.text
    assert text not in caplog.text
    assert await start(store, tmp_path) == text
    await asyncio.to_thread((tmp_path / ADMIN_KEY_FILE).unlink)
    assert await start(store, tmp_path) == ""
    assert await keys(store) == [row]


async def test_without_keys_in_the_modes_none_is_made(store: SqliteStore, tmp_path: Path) -> None:
    for auth in (Auth(), Auth(mode=("oidc",))):
        assert await start(store, tmp_path, auth) == ""
    assert await keys(store) == []


async def test_whoever_died_between_file_and_store_goes_on_with_the_file(store: SqliteStore, tmp_path: Path) -> None:
    lost = generate().text
    (tmp_path / ADMIN_KEY_FILE).write_text(lost)
    assert await start(store, tmp_path) == lost
    assert [row.id for row in await keys(store)] == [lost.split("_")[1]]


@pytest.mark.parametrize("left", ["", "talon_", "talon_abcd_short", "\0" * 100])
async def test_whoever_died_while_writing_the_file_leaves_no_harm(store: SqliteStore, tmp_path: Path, left: str) -> None:
    (tmp_path / ADMIN_KEY_FILE).write_text(left)
    assert parse(await start(store, tmp_path)) is not None
    assert (tmp_path / ADMIN_KEY_FILE).stat().st_mode & 0o777 == 0o600


async def test_when_every_key_has_ended_the_next_start_makes_a_new_one(store: SqliteStore, tmp_path: Path) -> None:
    old = await start(store, tmp_path)
    await store.revoke_credential(old.split("_")[1])
    new = await start(store, tmp_path)
    assert parse(new) is not None
    assert new != old
    assert [row.revoked_at_ms is None for row in await keys(store)] == [True, False]


async def test_of_two_that_begin_at_once_one_makes_it_and_the_other_leaves_no_file(store: SqliteStore, tmp_path: Path) -> None:
    directories = [tmp_path / name for name in "ab"]
    found = await asyncio.gather(*(start(store, one) for one in directories))
    assert sorted(map(bool, found)) == [False, True]
    assert len(await keys(store)) == 1


async def test_a_given_key_is_taken_up_and_stays_what_it_became(store: SqliteStore, tmp_path: Path) -> None:
    text = f"talon_oper_{'k' * 40}"
    auth = Auth(mode=("api_key",), bootstrap_key=SecretStr(text))
    for _ in range(2):
        assert await start(store, tmp_path, auth) == ""
    assert [row.id for row in await keys(store)] == ["oper"]
    other = Auth(mode=("api_key",), bootstrap_key=SecretStr(f"talon_oper_{'x' * 40}"))
    with pytest.raises(WrongUse, match="another key of the id oper") as raised:
        await start(store, tmp_path, other)
    assert "xxxx" not in str(raised.value)
    await store.revoke_credential("oper")
    await start(store, tmp_path, auth)
    (row,) = await keys(store)
    assert row.revoked_at_ms is not None


async def test_a_path_that_is_no_directory_is_named_and_no_key_is_made(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WrongUse, match=r"admin\.key"):
        await start(store, tmp_path / "file")
    assert await keys(store) == []
