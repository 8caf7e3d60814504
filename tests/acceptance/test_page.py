"""The plain page at `/`, in a real browser, against the booted product."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from playwright.async_api import Page, expect

from support.product import Api, Product

AGENT = """
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: clerk, namespace: acme}
definition:
  systemPrompt: You tell the time.
  modelPolicy: {profiles: [{name: main, model: {provider: fake, name: fake-1}}]}
  capabilities: {allowed_tools: [current_time]}
"""
SCRIPT = """
rules:
  - {when: {user: time, step: 1}, calls: [{tool: current_time}]}
  - {when: {user: time, step: 2}, text: "Now it is <b>{{ result }}</b>.", chunk_chars: 8, chunk_delay_ms: 10}
default: {text: "You said: {{ user }}"}
"""


async def test_a_person_sends_a_message_and_watches_the_journal_grow(page: Page, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    env = {"TALON_PROVIDERS_FAKE_KIND": "scripted", "TALON_PROVIDERS_FAKE_SCRIPT": str(script)}
    async with Product(tmp_path, env=env) as product, Api(product.url) as api:
        await api.apply(AGENT)
        await api.send("acme/clerk/desk", "hello")
        await page.goto(f"{product.url}/#/acme/clerk/desk")
        await expect(page.get_by_text("You said: hello")).to_be_visible()
        await page.get_by_label("Message").fill("What time is it?")
        await page.get_by_role("button", name="Send").click()
        # Text of a model is text: its markup is shown, not obeyed.
        await expect(page.get_by_text("Now it is <b>").last).to_be_visible()
        await expect(page.get_by_text("turn.completed")).to_have_count(2)
        journal = await api.journal("acme/clerk/desk")
        assert [entry["type"] for entry in journal][-1] == "turn.completed"
        # The server goes away and comes back on the same port: the page goes on by its cursor.
        port = product.url.rpartition(":")[2]
        await product.kill()
        again = Product(tmp_path, args=("--port", port), env=env)
        async with again:
            await api.send("acme/clerk/desk", "still there?")
            await expect(page.get_by_text("You said: still there?").last).to_be_visible()
            await expect(page.get_by_text("turn.completed")).to_have_count(3)


async def test_a_person_logs_in_with_a_key_and_out_again(page: Page, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    key = f"talon_page_{'k' * 48}"
    env = {
        "TALON_PROVIDERS_FAKE_KIND": "scripted",
        "TALON_PROVIDERS_FAKE_SCRIPT": str(script),
        "TALON_GATEWAY_AUTH_MODE": "api_key",
        "TALON_GATEWAY_AUTH_BOOTSTRAP_KEY": key,
        "TALON_GATEWAY_ACCESS_LINES": "file",
    }
    async with Product(tmp_path, env=env) as product, Api(product.url, key=key) as api:
        await api.apply(AGENT)
        await api.send("acme/clerk/desk", "hello")
        await page.goto(f"{product.url}/#/acme/clerk/desk")
        await page.get_by_label("Key or token").fill(key)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_text("You said: hello")).to_be_visible()
        await expect(page.get_by_text("key:page")).to_be_visible()
        assert key not in str(await page.evaluate("[document.cookie, JSON.stringify(localStorage), document.body.innerHTML]"))
        await page.get_by_label("Message").fill("still me")
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_text("You said: still me")).to_be_visible()
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Key or token")).to_be_visible()
        await expect(page.get_by_text("You said: hello")).not_to_be_visible()
    said = await asyncio.to_thread(_lines, tmp_path)
    assert {"apply", "openBrowserSession", "sendMessage", "endBrowserSession"} <= {row["operation"] for row in said}
    # The stream that ended with the session may have tried once more.
    assert {(row["who"], row["outcome"]) for row in said} <= {("key:page", "ok"), ("", "unauthenticated")}
    assert key not in json.dumps(said)


def _lines(directory: Path) -> list[dict[str, str]]:
    """What the access log wrote to its file, which is for its owner's eyes."""
    (written,) = directory.rglob("access.jsonl")
    assert written.stat().st_mode & 0o077 == 0
    return [json.loads(line) for line in written.read_text().splitlines()]
