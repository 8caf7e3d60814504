"""`make demo` as a stranger runs it: the kill in the middle of a tool call, and what is shown afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_survives_its_kill_and_proves_each_effect_from_outside(tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("TALON_", "OPENAI_", "DATABASE_URL"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env={**environ, "TALON_DEMO_DIR": str(tmp_path / "demo")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("SIGKILL while draft_follow_up", "turn.resumed", "Each effect happened exactly once.", "turn.completed"):
        assert told in done.stdout
    drafted = next(line for line in done.stdout.splitlines() if line.strip().startswith("draft_follow_up"))
    assert drafted.split()[1:4] == ["idempotent", "1", "2"], "delivered before and after the kill, one effect (K5)"
