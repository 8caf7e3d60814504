"""Idle schedules cost nothing: a look for what is due is the same work among two thousand as among ten, on both stores."""

from __future__ import annotations

from pathlib import Path

from bench.idle import PostgresCounter, SqliteCounter
from bench.schedules import IDS, NEVER, fill, prepare
from support.postgres import PostgresServer
from talon.cli.system import SystemClock
from talon.store import postgres as postgres_store
from talon.store import sqlite

FEW, MANY = 10, 2_000


async def test_a_look_on_sqlite_is_the_same_work_among_many(tmp_path: Path) -> None:
    counter = SqliteCounter()
    with counter.watching():
        store = await sqlite.open_store(tmp_path / "talon.db", SystemClock(), IDS)
    try:
        await store.migrate()
        await prepare(store)
        await fill(store, FEW, "few", at=NEVER)
        among_few = await counter.work(store)
        await fill(store, MANY, "many", at=NEVER)
        among_many = await counter.work(store)
    finally:
        await store.close()
    assert among_few["statements"] > 0
    assert among_many == among_few


async def test_a_look_on_postgres_is_the_same_work_among_many(postgres: PostgresServer, database_url: str) -> None:
    counter = PostgresCounter(postgres, database_url, IDS)
    await _fill(database_url, FEW, first=True)
    among_few = await counter.work()
    await _fill(database_url, MANY)
    among_many = await counter.work()
    assert among_few["transactions"] > 0
    # An index among many is a page deeper, at most.
    pages = among_many.pop("pages") - among_few.pop("pages")
    assert pages <= 2, (among_few, among_many, pages)
    assert among_many == among_few


async def _fill(url: str, count: int, *, first: bool = False) -> None:
    store = await postgres_store.open_store(url, IDS)
    try:
        if first:
            await prepare(store)
        await fill(store, count, f"idle-{count}", at=NEVER)
    finally:
        await store.close()
