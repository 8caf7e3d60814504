"""Two processes under one worker name: the older one ends and says why, the newer one works on (K2, K8)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.product import Product


async def test_of_two_workers_under_one_name_the_older_one_ends_and_says_so(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "TALON_WORKER_LEASE_TTL_S": "3"}
    older = Product(tmp_path / "older", "worker", ("--name", "twin"), env)
    newer = Product(tmp_path / "newer", "worker", ("--name", "twin"), env)
    async with older, newer:
        assert older.process is not None
        assert await asyncio.wait_for(older.process.wait(), 15) == 1
        assert "another process runs as worker 'twin'" in older.log
        assert "Traceback" not in older.log
        assert newer.process is not None
        assert newer.process.returncode is None
        assert await newer.stop() == 0


async def test_workers_of_one_host_without_a_name_do_not_meet(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "TALON_WORKER_LEASE_TTL_S": "3"}
    async with Product(tmp_path / "a", "worker", env=env) as one, Product(tmp_path / "b", "worker", env=env) as two:
        assert await one.stop() == 0
        assert await two.stop() == 0
