"""What is SQLite's own: one process, one file, and a disk that may be full, locked, damaged or gone."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from talon.cli.system import SystemClock, SystemIds
from talon.domain import entries as e
from talon.domain.errors import Unavailable
from talon.store.conformance import support as s
from talon.store.migrations import Dialect, migrations
from talon.store.model import Appended, Caps
from talon.store.pack import CONTEXT_BITS, MESSAGE_BITS
from talon.store.sqlite import SqliteStore, open_store, sql
from talon.store.sqlite.connection import Database

STEP = e.StepFinished(step="look", decision="go on")
CLOCK, IDS = SystemClock(), SystemIds()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talon.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    made = Database(path, CLOCK, busy_timeout_s=0.1)
    yield made
    await made.close()


@pytest.fixture
async def store(database: Database) -> SqliteStore:
    handle = SqliteStore(database)
    await handle.migrate()
    return handle


# --- one process ----------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from talon.cli.system import SystemClock, SystemIds
from talon.store.conformance import support as s
from talon.store.sqlite import open_store

async def main():
    store = await open_store(Path(sys.argv[1]), SystemClock(), SystemIds())
    await store.migrate()
    claimed = await s.running(store)
    number = 0
    while True:
        step, id = s.e.StepFinished(step="look", decision=str(number)), f"01900000-0000-7000-9000-{number:012x}"
        done = await s.commit(store, s.append(claimed, step, id=id, if_last_seq=2 + number))
        print(done.base + 1, flush=True)
        number += 1

asyncio.run(main())
"""


@pytest.fixture
def child(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the data directory, and tells each seq that it was answered."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(60, process.kill)
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def told(process: subprocess.Popen[str], at_least: int) -> int:
    """The last seq that the child was answered, once it has told `at_least`."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= at_least:
            return int(line)
    pytest.fail("the child ended")


async def test_a_second_process_is_refused_and_told_who_has_the_directory(path: Path, child: subprocess.Popen[str]) -> None:
    told(child, 3)
    with pytest.raises(Unavailable) as raised:
        await open_store(path, CLOCK, IDS)
    assert raised.value.code == "database_unavailable"
    assert f"process {child.pid} " in raised.value.detail
    assert "PostgreSQL" in raised.value.detail


async def test_a_killed_process_leaves_what_was_answered_and_its_sessions_to_the_next(
    path: Path, child: subprocess.Popen[str]
) -> None:
    last = told(child, 60)
    child.send_signal(signal.SIGKILL)
    assert child.stdout is not None
    last = max([last, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line)])
    child.wait()
    store = await open_store(path, CLOCK, IDS)
    try:
        assert await store.migrate() == []
        session = await store.get_session((s.NAMESPACE, s.AGENT, "s1"))
        assert session is not None
        entries = await s.journal(store, session)
        # One more may have been written whose answer nobody heard.
        assert last <= len(entries) <= last + 1
        assert [entry.decode() for entry in entries[2:]] == [
            e.StepFinished(step="look", decision=str(number)) for number in range(len(entries) - 2)
        ]
        # Another name than the dead one's: nobody else can own the directory, so nothing has to expire.
        (claimed,) = await store.claim(await s.register(store, "other"), 1, Caps())
        assert (claimed.was, claimed.session.fence) == ("running", 2)
        # A commit whose answer the dead process never got is recognised.
        again = await s.commit(store, s.append(claimed, STEP, id=f"01900000-0000-7000-9000-{0:012x}", fence=1, if_last_seq=2))
        assert again == Appended(session.sid, 2, entries[2].at_ms)
    finally:
        await store.close()


async def test_a_closed_store_gives_its_directory_up(path: Path) -> None:
    for _ in range(2):
        store = await open_store(path, CLOCK, IDS)
        await store.migrate()
        await store.close()
        with pytest.raises(Unavailable):
            await store.get_session(("a", "b", "c"))


async def test_opening_gives_back_what_a_dead_process_owned_but_not_a_newer_programs(path: Path) -> None:
    store = await open_store(path, CLOCK, IDS)
    await store.migrate()
    claimed = await s.running(store)
    await store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO schema_info (version, min_program, at_ms) VALUES (99, 99, 0)")
    newer = await open_store(path, CLOCK, IDS)
    assert (await s.again(newer, claimed.session)).owner == s.WORKER
    with pytest.raises(Unavailable, match="database_newer"):
        await newer.migrate()
    await newer.close()
    with connection:
        connection.execute("DELETE FROM schema_info WHERE version = 99")
    connection.close()
    again = await open_store(path, CLOCK, IDS)
    row = await s.again(again, claimed.session)
    assert (row.state, row.owner) == ("running", None)
    assert await again.next_wake_ms() == 0
    assert await again.workers() == []
    await again.close()


# --- the disk ---------------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_so_and_what_was_written_stays(store: SqliteStore, database: Database) -> None:
    claimed = await s.running(store)

    await database.write(lambda connection, _: connection.execute("PRAGMA max_page_count = 80").fetchone())
    written = 0

    async def fill() -> None:
        nonlocal written
        while written < 1_000:
            await s.commit(store, s.append(claimed, entries=(e.NewEntry("tool.output", b"x" * 8_192),)))
            written += 1

    with pytest.raises(Unavailable) as raised:
        await fill()
    assert raised.value.code == "storage_full"
    assert written > 0
    assert len(await s.journal(store, claimed)) == 2 + written
    assert (await s.again(store, claimed.session)).last_seq == 2 + written
    with pytest.raises(Unavailable, match="storage_full"):
        await store.put_blob("acme", b"x" * 100_000)
    await database.write(lambda connection, _: connection.execute("PRAGMA max_page_count = 100000").fetchone())
    await s.commit(store, s.append(claimed, STEP))
    assert len(await s.journal(store, claimed)) == 3 + written


async def test_a_database_that_another_program_locks_is_unavailable_until_it_lets_go(store: SqliteStore, path: Path) -> None:
    session = await s.create(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for refused in (store.deliver([s.message(session)]), store.ping()):
        with pytest.raises(Unavailable) as raised:
            await refused
        assert raised.value.code == "database_unavailable"
        assert "locked" in raised.value.detail
        assert raised.value.retry_after_s
    assert await store.get_session(s.where(session)) == session
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    await s.send(store, session)


@pytest.mark.parametrize("content", [b"this is not a database, not at all" * 100, b"SQLite format 3\x00" + b"\xff" * 8_000])
async def test_a_file_that_is_no_database_is_said_so(path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)
    with pytest.raises(Unavailable) as raised:
        await open_store(path, CLOCK, IDS)
    assert raised.value.code == "database_unavailable"
    assert str(path) in raised.value.detail
    assert await asyncio.to_thread(path.read_bytes) == content
    await asyncio.to_thread(path.unlink)
    await (await open_store(path, CLOCK, IDS)).close()


async def test_a_directory_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        await open_store(tmp_path / "none" / "talon.db", CLOCK, IDS)


async def test_a_database_that_is_a_directory_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "talon.db").mkdir()
    with pytest.raises(Unavailable, match="database_unavailable"):
        await open_store(tmp_path / "talon.db", CLOCK, IDS)


async def test_an_empty_database_is_not_ready(database: Database) -> None:
    empty = SqliteStore(database)
    assert await empty.schema_version() == (0, 2)
    with pytest.raises(Unavailable, match="talon db migrate"):
        await empty.ping()


async def test_the_files_are_for_their_owner_only(path: Path) -> None:
    store = await open_store(path, CLOCK, IDS)
    await store.migrate()
    assert {file.name: file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == dict.fromkeys(
        ("talon.db", "talon.db-shm", "talon.db-wal", "talon.lock"), 0
    )
    await store.close()


async def test_reads_do_not_wait_for_the_writer(store: SqliteStore, database: Database) -> None:
    session = await s.create(store)
    inside, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection, _: int) -> None:
        inside.set()
        assert go.wait(30)

    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(inside.wait, 30)
    assert await asyncio.wait_for(store.get_session(s.where(session)), 10) == session
    assert not writing.done()
    go.set()
    await writing


async def test_a_durable_commit_is_synced_before_it_is_answered(database: Database) -> None:
    pragmas = await database.write(
        lambda connection, _: [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2]


# --- what a statement costs (K11) -------------------------------------------------------------------------------------------

#: Tables whose rows are few, whatever the load.
SMALL = {"workers", "held", "schema_info", "sqlite_master", "awake"}
STATEMENTS = {name: text for name, text in vars(sql).items() if name[0].isupper() and isinstance(text, str)}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_statement_reads_a_whole_table(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(migrations("sqlite")[0].sql)
    statement = STATEMENTS[name].replace("%s", "?")
    numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    count = max(numbered) if numbered else statement.count("?")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * count)]
    connection.close()
    scanned = {match[1] for step in plan if (match := re.match(r"SCAN (\w+)", step))}
    assert scanned <= SMALL, plan


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_the_partial_indexes_hold_the_types_that_they_are_for(dialect: Dialect) -> None:
    script = migrations(dialect)[0].sql
    for index, wanted in (("journal_context", CONTEXT_BITS), ("journal_messages", MESSAGE_BITS)):
        assert re.findall(rf"CREATE INDEX {index} .*? & (\d+)\)", script) == [str(wanted)]


async def test_the_hundredth_turn_writes_and_reads_what_the_second_did(store: SqliteStore, path: Path) -> None:
    worker, session = await s.register(store), await s.create(store)
    wal = path.with_name("talon.db-wal")

    async def turn() -> int:
        before = wal.stat().st_size
        await s.send(store, session, "x" * 500)
        claimed = await s.claim_one(store, worker)
        await s.commit(
            store, s.append(claimed, e.TurnStarted(agent="a", revision=1), e.ModelStarted(iteration=1, provider="p", model="m"))
        )
        await s.finish(store, claimed)
        return wal.stat().st_size - before

    sizes = [await turn() for _ in range(100)]
    early, late = sum(sizes[1:21]) / 20, sum(sizes[80:]) / 20
    assert late <= 1.2 * early, (early, late)
