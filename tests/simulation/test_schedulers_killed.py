"""Schedulers killed and stopped at random: each occurrence once; the soak's short run."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path

import pytest

from soak.schedules import HOLD_S, SLACK_S, run


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_each_occurrence_is_fired_once_whatever_dies(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbits(32)
    print(f"SOAK_SEED={seed}")
    url = request.getfixturevalue("database_url") if store == "postgres" else ""
    seen = await run(tmp_path, url, seconds=20.0, schedules=10, rng=random.Random(seed))
    told = f"seed {seed}: {seen.document()}"
    assert not seen.violations, told
    assert seen.fired >= 100, told
    assert seen.kills >= 1, told
    assert max(seen.lags_ms) <= 1000 * (HOLD_S + SLACK_S), told
