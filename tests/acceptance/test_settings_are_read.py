"""A setting that nothing reads is a lie: every active one is read by the booted program, every other one is said to be inactive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.idp import Signer

SCRIPT = """
import json, os, signal, sys, threading, urllib.request
from pathlib import Path
from talon.cli import leaves, serve
from talon.cli.load import load
from talon.cli.settings import Group

read, paths = set(), {}
plain = Group.__getattribute__


def watched(self, name):
    if (path := paths.get(id(self))) is not None and name in type(self).model_fields:
        read.add(f"{path}.{name}".lstrip("."))
    return plain(self, name)


def name_all(group, path):
    paths[id(group)] = path
    for name in type(group).model_fields:
        value = plain(group, name)
        if isinstance(value, Group):
            name_all(value, f"{path}.{name}")
        elif isinstance(value, dict):
            for entry in value.values():
                name_all(entry, f"{path}.{name}.*")


settings = load(sets=tuple(sys.argv[1:]), environ=os.environ).settings
name_all(settings, "")
Group.__getattribute__ = watched
real = serve._until


async def until_ready(stop, runtime):
    os.kill(os.getpid(), signal.SIGTERM)
    return await real(stop, runtime)


serve._until = until_ready
assert serve.serve("up", settings) == 0
known = {p for p, leaf in leaves.leaves().items() if not leaf.extra.get("inactive")}
print(json.dumps({"unread": sorted(known - {p.lstrip(".") for p in read})}))
"""


def unread(cwd: Path, env: dict[str, str], *sets: str) -> set[str]:
    """The active settings that one life of `talon up` does not look at."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("TALON_", "OPENAI_", "DATABASE_URL"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "gateway.port=0", "gateway.grpc_port=0", *sets],
        cwd=cwd,
        env={**environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])["unread"])


def test_every_active_setting_is_read_by_the_booted_program(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("default: {text: hello}\n")
    providers = (
        "providers.near.kind=scripted",
        "providers.near.script=script.yaml",
        "providers.far.kind=openai",
        "providers.far.api_key=none",
    )
    (tmp_path / "signer.pem").write_bytes(Signer("ES256", "k1").pem)
    access = (
        "gateway.auth.mode=api_key,jwt,oidc",
        "gateway.auth.jwt.algorithm=ES256",
        "gateway.auth.jwt.key_file=signer.pem",
        "gateway.auth.jwt.issuer=i",
        "gateway.auth.jwt.audience=a",
        "gateway.auth.oidc.issuer=https://idp.example",
        "gateway.auth.oidc.client_id=talon",
    )
    tasks = "control_plane.scheduler.cloud_tasks"
    clock = (
        "control_plane.scheduler.backend=cloud_tasks",
        *(f"{tasks}.{name}=x" for name in ("project", "location", "queue")),
        f"{tasks}.callback_url=http://127.0.0.1:19790",
        f"{tasks}.service_account=x@x.example",
        f"{tasks}.port=0",
    )
    embedded = unread(tmp_path, {}, *providers, *access, *clock)
    shared = unread(tmp_path, {"DATABASE_URL": database_url}, *providers)
    # The lease is only a row on PostgreSQL; on SQLite it is the lock on the data directory.
    assert embedded & shared == set()
    assert embedded <= {"worker.lease_ttl_s"}
