"""One run of schemathesis over a running Talon, and what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_GRACE_S = 90


@dataclass
class Outcome:
    """What a run found: requests made, operations of the document that were reached, and failures by what failed. `shown` is what
    schemathesis wrote."""

    cases: int = 0
    operations: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    shown: str = ""

    def add(self, other: Outcome) -> None:
        """Sum up."""
        self.cases += other.cases
        self.operations = max(self.operations, other.operations)
        self.failures += other.failures
        if other.failures:
            self.shown += other.shown


async def run(
    url: str, directory: Path, *, seed: int, examples: int, seconds: float, workers: int = 1, authorization: str = ""
) -> Outcome:
    """Generate requests to the Talon at `url`, `examples` for each operation and phase, for `seconds` at most; all checks, by
    operation and stateful along the links; with the header `authorization`, if any. The report goes into `directory`.

    Raises `AssertionError` when schemathesis itself could not run.
    """
    report = directory / f"{seed}.json"
    command = [
        *(str(Path(sys.executable).parent / "st"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--checks", "all", "--seed", str(seed), "--max-examples", str(examples), "--max-time", str(round(seconds))),
        *("--continue-on-failure", "--no-shrink", "--request-timeout", "20", "--no-color", "--workers", str(workers)),
        *("--report", "json", "--report-json-path", str(report)),
        *(("--header", f"Authorization: {authorization}") if authorization else ()),
    ]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "fuzz.hooks", "PYTHONPATH": str(HERE.parent)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds + _GRACE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode(errors="replace")
    assert process.returncode in (0, 1), text
    return _outcome(json.loads(report.read_text()), text)


def _outcome(report: dict[str, Any], text: str) -> Outcome:
    titles = [str(one.get("title") or one.get("check") or one) for one in (*report["failures"], *report["errors"])]
    return Outcome(report["test_cases"]["generated"], report["operations"]["tested"], Counter(titles), text)
