"""Schedulers killed and stopped at random, and clocks that jump: each occurrence once; the soaks' short runs."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path

import pytest

from soak import jumps, schedules
from soak.machine import jumping_clock


def seeded() -> random.Random:
    seed = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbits(32)
    print(f"SOAK_SEED={seed}")
    return random.Random(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_each_occurrence_is_fired_once_whatever_dies(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("database_url") if store == "postgres" else ""
    seen = await schedules.run(tmp_path, url, seconds=12.0, schedules=12, rng=seeded(), workers=1)
    told = str(seen.document())
    assert not seen.violations, told
    assert seen.fired >= 60, told
    assert seen.kills + seen.stops >= 1, told


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_clock_that_jumps_doubles_nothing_and_loses_nothing(tmp_path: Path) -> None:
    clock = jumping_clock(tmp_path)
    if clock is None:
        pytest.skip("jumps of the clock are skipped: libfaketime is not installed")
    seen = await jumps.run(tmp_path, "", clock, rng=seeded(), offsets=(jumps.DAY, -jumps.HOUR))
    told = str(seen.document())
    assert not seen.violations, told
    assert seen.fired >= 200, told
