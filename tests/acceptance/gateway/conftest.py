"""One gateway for a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.bootedgateway import Booted, booted


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Booted]:
    async with booted(tmp_path) as running:
        yield running
