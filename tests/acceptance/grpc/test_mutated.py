"""Messages that nobody thought of, a few: no answer is UNKNOWN or INTERNAL, and the server goes on (many: `make fuzz-rpc`)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fuzz.rpc import fuzzed, targets
from support.product import Product

MESSAGES = 2_000


async def test_mutated_messages_find_no_mistake_of_ours_and_leave_the_server_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("TALON_TEST_SEED", time.time_ns() % 2**31))
    async with Product(tmp_path / "up", args=("--data-dir", str(tmp_path / "data"))) as up:
        outcome = await fuzzed(up, MESSAGES, seed)
        with capsys.disabled():
            print(f"\nmutated messages, seed {seed}: {dict(outcome.statuses)}")
        assert len(targets()) >= 34
        assert (outcome.cases, dict(outcome.wrong)) == (MESSAGES, {}), up.log
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= set(outcome.statuses)
        assert "Traceback" not in up.log, up.log
