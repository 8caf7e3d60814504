"""A real browser: the system's Chromium, driven headless. Where there is none the suite says so (and fails with CI=true)."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Without them Chromium looks for servers of its own that no test needs.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update")


@pytest.fixture
async def page() -> AsyncGenerator[Page]:
    """A fresh page of a fresh browser; what it says on its console as an error fails the test."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = f"no browser on the PATH ({', '.join(NAMES)}): on Debian `apt-get install chromium`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*QUIET])
        opened = await browser.new_page()
        opened.set_default_timeout(15_000)
        opened.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        await browser.close()
    assert not complaints, complaints


def _is_complaint(message: ConsoleMessage) -> bool:
    """A lost connection is what some tests are about; everything else that the browser calls an error is one."""
    return message.type == "error" and not any(word in message.text for word in ("net::ERR_", "Failed to fetch"))
