"""The peers' environments: one each under .bench/, made from PyPI with pinned versions when it is first needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from bench.machine import ROOT

PEERS = ROOT / "bench" / "peers"
ENVIRONMENTS = ROOT / ".bench" / "venvs"


def python_of(name: str) -> str:
    """The Python of the environment that `bench/peers/NAME.txt` describes, made or made again if that file has changed.

    Raises `subprocess.CalledProcessError` when a package cannot be had.
    """
    wanted = PEERS / f"{name}.txt"
    directory = ENVIRONMENTS / name
    python = directory / "bin" / "python"
    stamp = directory / "made-of"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(directory)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)], check=True)
        stamp.write_text(digest)
    return str(python)
