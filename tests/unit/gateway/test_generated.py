"""What is committed of the generated code is what the contract comes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = {"talon_pb2.py", "talon_pb2.pyi", "talon_pb2_grpc.py"}


def test_the_committed_code_is_what_the_contract_generates(tmp_path: Path) -> None:
    """`make proto` was run after the last change of proto/."""
    done = subprocess.run(
        [sys.executable, "proto/generate.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    fresh, committed = tmp_path / "talon/v1", ROOT / "src/talon/v1"
    assert {path.name for path in fresh.iterdir()} == NAMES
    assert {path.name for path in committed.glob("talon_*")} == NAMES
    for name in NAMES:
        assert (committed / name).read_text() == (fresh / name).read_text(), f"{name}: run `make proto`"
