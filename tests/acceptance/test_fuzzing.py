"""The booted product against its own OpenAPI document, for a while: no server error, no answer that the document does not know.

It asks who one is; the requests show the token of an admin that no request can end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fuzz.roles import ASKING, admin
from fuzz.run import run
from support.product import Product

SECONDS = 45


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_generated_requests_find_nothing_that_the_document_does_not_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("TALON_TEST_SEED", time.time_ns() % 2**31))
    async with Product(tmp_path / "up", args=("--data-dir", str(tmp_path / "data")), env=ASKING) as up:
        outcome = await run(up.url, tmp_path, seed=seed, examples=2, seconds=SECONDS, authorization=f"Bearer {admin()}")
        with capsys.disabled():
            print(f"\nfuzz seed {seed}: {outcome.cases} requests to {outcome.operations} operations")
        assert not outcome.failures, outcome.shown
        assert outcome.cases > 100, outcome.shown
        assert "Traceback" not in up.log, up.log
