"""A provider that is killed, hangs, or throttles, under many running turns, on both stores, with workers killed at random: every
turn ends, on the next candidate, with what happened in its journal. This is the short run of `make outage`."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path

import pytest

from soak.outage import run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_every_turn_ends_on_the_next_candidate_with_what_happened_in_its_journal(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbits(32)
    print(f"SOAK_SEED={seed}")
    url = request.getfixturevalue("database_url") if store == "postgres" else ""
    seen = await run(tmp_path, url, turns=30, kills=2, rng=random.Random(seed))
    told = f"seed {seed}: {seen.document()}"
    assert not seen.violations, told
    assert seen.running == 30, told
    assert all(counted.total() for counted in seen.errors.values()), told
