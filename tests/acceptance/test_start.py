"""What the start of a process imports: what its configuration needs, and not the rest of the house.

Asked of the interpreter itself, from outside; no time is measured. The table is what a start was freed of: each line is a tenth of
its time, or some of it in every process that does without.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.product import READY_S, clean_environment

#: Without tokens, OpenID Connect or a provider that is called: no HTTP client, no signers' keys, no schemas of users' tools.
SPARED = ("aiohttp", "jsonschema", "jwt", "cryptography.x509", "botocore", "google.cloud", "opentelemetry.sdk")
EMBEDDED = (*SPARED, "asyncpg")
#: Nor, where nobody is served, what serves the control plane.
SERVING = ("fastapi", "grpc", "google.protobuf", "talon.v1")


def imported(directory: Path, role: str, **env: str) -> set[str]:
    """The modules of a `talon ROLE` when it has said that it is ready and ended in order."""
    command = [sys.executable, "-X", "importtime", "-m", "talon", role, "--port", "0"]
    log = directory / "imports"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=directory, env=clean_environment(env), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as one,
    ):
        assert one.stdout is not None
        try:
            ready = one.stdout.readline()
            one.terminate()
            assert one.wait(READY_S) == 0
        finally:
            one.kill()
    assert ready.startswith("talon ready http"), log.read_text()[-2000:]
    return {line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if line.startswith("import time:")}


def among(modules: set[str], names: tuple[str, ...]) -> list[str]:
    """Those of `names` that are there."""
    return [name for name in names if name in modules]


def test_an_embedded_start_imports_nothing_that_it_has_no_use_for(tmp_path: Path) -> None:
    modules = imported(tmp_path, "up")
    assert among(modules, EMBEDDED) == []
    assert {"talon.gateway.grpc.server", "fastapi", "sqlite3"} <= modules  # the list is read, and says what was imported


def test_a_worker_starts_without_what_serves(tmp_path: Path, database_url: str) -> None:
    modules = imported(tmp_path, "worker", DATABASE_URL=database_url)
    assert among(modules, (*SPARED, *SERVING)) == []
    assert {"asyncpg", "talon.gateway.http.ownport"} <= modules


def test_a_gateway_starts_without_what_runs_turns(tmp_path: Path, database_url: str) -> None:
    modules = imported(tmp_path, "gateway", DATABASE_URL=database_url)
    assert among(modules, (*SPARED, "talon.store.sqlite")) == []
    assert {"asyncpg", "fastapi"} <= modules
