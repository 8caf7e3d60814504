"""A database that is locked, full, gone or newer than the program: 503 with Retry-After, and everything goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from support.postgres import PostgresServer, database_of, running_server
from support.product import Api, Product
from support.stage import Stage, call, embedded_stage, path, say, set_stage, talon
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stage]:
    """A `talon up` on SQLite that nobody else uses."""
    async with embedded_stage(tmp_path_factory.mktemp("trouble")) as stage:
        yield stage
        assert "Traceback" not in stage.log, stage.log


async def refused(stage: Stage, where: str) -> dict[str, Any]:
    """Send a message that cannot be accepted now; -> the problem, which says when to come again."""
    body = {"content": "not now"}
    async with aiohttp.ClientSession() as http, http.post(stage.api.url + path(where, "message"), json=body) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        assert answer.status == 503, found
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Traceback" not in str(found)
        return found


async def accepted(stage: Stage, where: str) -> None:
    """Within some tries a message is accepted again, and answered."""

    async def is_accepted() -> bool:
        return (await stage.api.call("POST", path(where, "message"), {"content": "again"}))[0] == 202

    await until(is_accepted)
    assert (await stage.run(where, "and again"))["type"] == "turn.completed"


async def unready(stage: Stage) -> list[str]:
    """The reasons why it is not ready; none if it is."""
    _, found = await stage.api.call("GET", "/readyz")
    return [reason["code"] for reason in found.get("reasons", [])]


async def in_a_tool(stage: Stage, where: str, gate: str) -> str:
    """A turn that is in the middle of a tool while the database is away."""
    turn = await stage.turn(where, f"{where} note", call("note", text="x", gate=gate), say("done"))
    await stage.began(where, "note")
    return turn


async def goes_on(stage: Stage, where: str, turn: str, gate: str, back: Callable[[], object]) -> None:
    """The tool ends while the database is away; then it comes `back`, and the turn ends, its effect made once."""
    stage.open(gate)
    await until(lambda: bool(stage.effects(where, "note", "ended")))
    back()
    assert (await stage.done(where, turn))["type"] == "turn.completed"
    assert len(stage.effects(where, "note", "began")) == 1
    await accepted(stage, where)


# --- SQLite -------------------------------------------------------------------------------------------------------------------


async def test_a_locked_database_refuses_writes_in_words_and_still_answers_reads(embedded: Stage) -> None:
    stage, where = embedded, embedded.session()
    turn = await in_a_tool(stage, where, "locked")
    with contextlib.closing(sqlite3.connect(stage.directory / "talon-data" / "talon.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        problem, shown = await asyncio.gather(refused(stage, where), stage.api.get(path(where, "journal")))
        assert problem["code"] == "database_unavailable"
        assert "locked by another program" in problem["detail"]
        assert shown["items"]
        await goes_on(stage, where, turn, "locked", lambda: other.execute("ROLLBACK"))


async def test_a_database_file_that_is_gone_refuses_writes_until_it_is_back(embedded: Stage) -> None:
    stage, where = embedded, embedded.session()
    turn = await in_a_tool(stage, where, "gone")
    file = stage.directory / "talon-data" / "talon.db"
    file.rename(file.with_suffix(".away"))
    problem = await refused(stage, where)
    assert problem["code"] == "database_unavailable"
    assert "talon.db" in problem["detail"]
    assert await unready(stage) == ["database_unavailable"]
    await goes_on(stage, where, turn, "gone", lambda: file.with_suffix(".away").rename(file))
    assert await unready(stage) == []


#: A file system of its own for the process under it, 3 MiB large, a third of it taken.
SMALL_DISK = 'mount -t tmpfs -o size=3m none "$0" && head -c 1048576 /dev/zero > "$0/ballast" && exec "$@"'


async def test_a_full_disk_refuses_writes_and_is_good_again_when_there_is_room(tmp_path: Path) -> None:
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    tried = await asyncio.to_thread(
        subprocess.run,
        ("sh", "-c", f"{' '.join(unshare)} sh -c '{SMALL_DISK}' \"$@\"", "sh", str(disk), "true"),
        capture_output=True,
    )
    if tried.returncode != 0:
        pytest.skip(f"no file system of our own can be made here: {tried.stderr.decode().strip()}")
    async with set_stage(tmp_path) as stage:
        small = ("--data-dir", str(disk), "--config", str(tmp_path / "talon.yaml"))
        up = Product(tmp_path, args=small, env=stage.env, wrapper=(*unshare, "sh", "-c", SMALL_DISK, str(disk)))
        async with up, Api(up.url) as api:
            stage.apis, stage.gateways, stage.workers = [api], [up], [up]
            await stage.agent()
            where = stage.session()
            turn = await in_a_tool(stage, where, "full")
            status, problem = 202, {}
            while status == 202:  # three megabytes are full soon
                stuffed = path(stage.session(), "message?create=true")
                status, problem = await api.call("POST", stuffed, {"content": "x" * 200_000})
            assert (status, problem["code"]) == (503, "storage_full"), problem
            assert "no space is left" in problem["detail"]
            assert (await api.get(path(where)))["state"] == "running"
            await goes_on(stage, where, turn, "full", Path(f"/proc/{up.pid}/root{disk}/ballast").unlink)
        assert "Traceback" not in up.log


@pytest.mark.parametrize("role", ["up", "db"])
async def test_a_newer_database_is_not_touched(tmp_path: Path, role: str) -> None:
    migrate = ("db", "migrate", "--data-dir", str(tmp_path))
    assert (await talon(*migrate, cwd=tmp_path))[0] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "talon.db")) as database, database:
        database.execute("INSERT INTO schema_info (version, min_program, at_ms) VALUES (99, 99, 0)")
    command = ("up", "--port", "0", "--data-dir", str(tmp_path)) if role == "up" else migrate
    code, out, errors = await talon(*command, cwd=tmp_path)
    assert (code, out) == (1, ""), errors
    assert "needs a program that knows version 99" in errors
    assert "[database_newer]" in errors
    assert "Traceback" not in errors


# --- PostgreSQL ---------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(postgres: PostgresServer) -> AsyncGenerator[PostgresServer]:
    """A PostgreSQL that may be stopped: nobody else's. (`postgres` is asked for, to be skipped where there is none.)"""
    with running_server() as server:
        yield server


async def test_postgresql_that_is_stopped_refuses_requests_until_it_is_back(server: PostgresServer, tmp_path: Path) -> None:
    """It is away for less than a lease, and for longer than a request waits for it."""
    database, worker = server.create_database(migrated=False), {"lease_ttl_s": 60, "sweep_s": 0.25}
    async with set_stage(tmp_path, database, worker=worker) as stage, stage.product() as up, Api(up.url) as api:
        stage.apis, stage.gateways, stage.workers = [api], [up], [up]
        await stage.agent()
        where = stage.session()
        turn = await in_a_tool(stage, where, "stopped")
        server.stop()
        problem = await refused(stage, where)
        assert problem["code"] == "database_unavailable"
        assert await unready(stage) == ["database_unavailable"]
        assert (await api.call("GET", path(where)))[0] == 503
        assert (await api.call("GET", "/healthz"))[0] == 200
        await goes_on(stage, where, turn, "stopped", server.start)
        assert await unready(stage) == []
        assert "Traceback" not in up.log
        assert await up.stop() == 0


async def test_a_newer_or_absent_postgresql_ends_the_start_in_one_sentence(server: PostgresServer, tmp_path: Path) -> None:
    url = server.create_database()
    server.sql("INSERT INTO schema_info (version, min_program, at_ms) VALUES (99, 99, 0)", database_of(url))
    roles = ("up", "gateway", "worker")
    for code, out, errors in await asyncio.gather(
        *(talon(role, "--port", "0", cwd=tmp_path, env={"DATABASE_URL": url}) for role in roles)
    ):
        assert (code, out) == (1, ""), errors
        assert "[database_newer]" in errors
        assert "Traceback" not in errors
    nowhere = "postgresql://talon:hidden@/talon?host=" + str(tmp_path)
    code, out, errors = await talon("gateway", "--port", "0", cwd=tmp_path, env={"DATABASE_URL": nowhere})
    assert (code, out) == (1, "")
    assert "[database_unavailable]" in errors
    assert "hidden" not in errors
    assert "Traceback" not in errors
