"""The command line against the booted product: what a user types, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.product import Api, Product, clean_environment
from support.shell import Shell, ended, free_port
from support.waiting import until

AGENT = """
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {name: a}
definition:
  systemPrompt: "Be brief."
  modelPolicy: {profiles: [{name: p, model: {provider: demo, name: m}}]}
"""
SCRIPT = """
rules:
  - when: {user: slow}
    text: 'One, two, three, four, five, six, seven, eight, nine, ten.'
    chunk_chars: 3
    chunk_delay_ms: 100
  - when: {user: hang}
    delay_ms: 60000
    text: never
  - when: {user: broken}
    fault: {kind: status, status: 401, message: no key}
default: {text: 'You said: {{ user }}'}
"""
CONFIG = "providers: {demo: {kind: scripted, script: script.yaml}}\n"


@pytest.fixture
async def product(tmp_path: Path) -> AsyncIterator[Product]:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    (tmp_path / "talon.yaml").write_text(CONFIG)
    (tmp_path / "a.yaml").write_text(AGENT)
    async with Product(tmp_path, args=("--port", str(free_port()))) as started:
        yield started


@pytest.fixture
async def shell(product: Product) -> Shell:
    made = Shell(product.url, product.directory)
    await made.ok("apply", "-f", "a.yaml")
    return made


def test_init_up_chat_without_a_key(tmp_path: Path) -> None:
    """The first five minutes, exactly as `talon init` says them."""
    env = clean_environment({})
    talon = [sys.executable, "-m", "talon"]
    subprocess.run([*talon, "init", "hello"], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=30)
    here = tmp_path / "hello"
    up = subprocess.Popen(
        [*talon, "up", "--port", "0"], cwd=here, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        ready = up.stdout.readline()
        assert ready.startswith("talon ready http://"), up.stderr and up.stderr.read()
        chat = subprocess.run(
            [*talon, "chat", "assistant"],
            cwd=here,
            env={**env, "TALON_SERVER": ready.split()[-1]},
            input="note buy milk\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (chat.returncode, chat.stdout) == (0, "Done: noted.\n"), chat.stderr
        assert [path.read_text() for path in (here / "notes").iterdir()] == ["buy milk\n"]
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0
    finally:
        if up.poll() is None:
            up.kill()
        up.communicate(timeout=10)


async def test_apply_says_what_it_does_and_would_do(shell: Shell) -> None:
    assert await shell.ok("apply", "-f", "a.yaml") == "Agent default/a unchanged\n"
    (shell.cwd / "a.yaml").write_text(AGENT.replace("brief", "polite"))
    plan = await shell.ok("apply", "-f", "a.yaml", "--dry-run")
    assert plan.splitlines()[0] == "Agent default/a changed (dry run)"
    assert '~ definition.systemPrompt: "Be brief." -> "Be polite."' in plan
    assert await shell.ok("apply", "-f", "-", stdin=AGENT.replace("brief", "polite")) == "Agent default/a changed\n"
    assert "Be polite." in await shell.ok("get", "agent", "a", "-o", "yaml", "--effective")
    assert await shell.ok("get", "agents", "-o", "yaml") == await shell.ok("get", "ag", "-A", "-o", "yaml")


async def test_what_get_shows_can_be_applied_again(shell: Shell) -> None:
    shown = await shell.ok("get", "agent", "a", "-o", "yaml")
    assert await shell.ok("apply", "-f", "-", stdin=shown) == "Agent default/a unchanged\n"


async def test_a_wrong_manifest_is_refused_with_file_line_and_exit_code_3(shell: Shell) -> None:
    (shell.cwd / "bad.yaml").write_text(AGENT + "  color: blue\n" + "---\nkind: Agnet\n")
    code, out, errors = await shell.run("apply", "-f", "a.yaml", "-f", "bad.yaml")
    assert (code, out) == (3, "")
    assert "bad.yaml line 8: definition.color: unknown field" in errors
    assert "bad.yaml line 10: kind:" in errors


async def test_send_and_wait_prints_the_answer_and_exits_by_the_turns_end(shell: Shell) -> None:
    assert await shell.ok("session", "send", "a", "s", "hello", "--create", "--wait") == "You said: hello\n"
    assert await shell.ok("session", "send", "--agent", "a", "s", "-", "--wait", stdin="from stdin") == "You said: from stdin\n"
    code, out, errors = await shell.run("session", "send", "a", "s", "broken", "--wait")
    assert (code, out) == (1, "")
    assert "the turn ended as failed" in errors
    events = [json.loads(line) for line in (await shell.ok("session", "send", "a", "s", "x", "--wait", "-o", "json")).splitlines()]
    assert events[0]["type"] == "turn.queued"
    assert events[-1]["type"] == "turn.completed"
    code, _, errors = await shell.run("session", "send", "a", "s", "hang", "--wait", "--timeout-s", "0.3")
    assert code == 1
    assert "has not ended within 0.3 s; it goes on" in errors
    assert json.loads(await shell.ok("session", "show", "a", "s", "-o", "json"))["state"] == "running"
    await shell.ok("session", "cancel", "a", "s")


async def test_the_same_key_sends_nothing_twice(shell: Shell) -> None:
    send = ("session", "send", "a", "s", "hello", "--create", "--key", "k1", "-o", "json")
    assert json.loads(await shell.ok(*send)) == json.loads(await shell.ok(*send))
    code, _, errors = await shell.run("session", "send", "a", "s", "other", "--key", "k1")
    assert code == 3
    assert "idempotency_conflict" in errors


async def test_sessions_are_created_listed_shown_and_deleted(shell: Shell) -> None:
    made = json.loads(await shell.ok("session", "create", "a", "s", "--metadata", "owner=ops", "--metadata", "n:=3", "-o", "json"))
    assert made["metadata"] == {"owner": "ops", "n": 3}
    await shell.ok("session", "send", "a", "s", "hello", "--wait")
    assert "a      s" in await shell.ok("session", "list", "a")
    assert "default" in await shell.ok("get", "sessions")
    turns = json.loads(await shell.ok("get", "turns", "a/s", "-o", "json"))
    assert [turn["state"] for turn in turns] == ["completed"]
    journal = json.loads(await shell.ok("session", "journal", "a", "s", "-o", "json"))
    assert [entry["seq"] for entry in journal] == list(range(1, len(journal) + 1))
    table = await shell.ok("session", "journal", "a", "s", "--after", str(len(journal) - 1))
    assert table.splitlines()[1].split()[3] == "turn.completed"
    await shell.ok("session", "delete", "a", "s")
    assert (await shell.run("session", "show", "a", "s"))[0] == 3


async def test_waiting_survives_the_death_of_the_server(product: Product, shell: Shell) -> None:
    process = await shell.start("session", "send", "a", "s", "slow", "--create", "--wait")
    async with Api(product.url) as api:

        async def speaking() -> bool:
            status, page = await api.call("GET", "/v1/ns/default/agents/a/sessions/s/journal?limit=100")
            return status == 200 and any(entry["type"] == "model.started" for entry in page["items"])

        await until(speaking)
    await product.kill()
    await product.start()
    code, out, errors = await ended(process)
    assert code == 0, errors
    assert out == "One, two, three, four, five, six, seven, eight, nine, ten.\n"
    assert "lost, waiting for it to come back" in errors


async def test_a_stream_is_followed_over_a_restart_without_a_gap_or_a_repetition(product: Product, shell: Shell) -> None:
    await shell.ok("session", "send", "a", "s", "one", "--create", "--wait")
    process = await shell.start("session", "stream", "a", "s", "--after", "0", "-o", "json")
    assert process.stdout is not None
    seen: list[dict[str, Any]] = []

    async def ends(count: int) -> None:
        async with asyncio.timeout(30):
            while sum(event["type"] == "turn.completed" for event in seen) < count:
                assert process.stdout is not None
                seen.append(json.loads(await process.stdout.readline()))

    await ends(1)
    await product.kill()
    await product.start()
    await shell.ok("session", "send", "a", "s", "two", "--wait")
    await ends(2)
    process.send_signal(signal.SIGINT)
    code, _, errors = await ended(process)
    assert code == 130
    assert "Traceback" not in errors
    seqs = [event["seq"] for event in seen if not event["type"].endswith(".delta")]
    assert seqs == list(range(1, len(seqs) + 1))


class Terminal:
    """`talon chat` on a terminal of its own."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.master, self.process, self.text = master, process, ""
        os.set_blocking(master, False)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def sees(self, wanted: str, times: int = 1) -> None:
        """Wait until the screen has had `wanted` so many times."""
        async with asyncio.timeout(30):
            while self.text.count(wanted) < times:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except BlockingIOError:
                    await asyncio.sleep(0.02)
                except OSError:  # the other side is closed
                    raise AssertionError(f"{wanted!r} never came:\n{self.text}") from None

    async def end(self) -> int:
        """-> the exit code; it is killed if it does not end."""
        try:
            async with asyncio.timeout(30):
                return await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            os.close(self.master)


async def on_terminal(shell: Shell, *args: str) -> Terminal:
    master, slave = pty.openpty()
    process = await shell.start(*args, terminal=slave)
    os.close(slave)
    return Terminal(master, process)


async def chat(shell: Shell, *args: str) -> Terminal:
    return await on_terminal(shell, "chat", "a", *args)


async def test_chat_streams_cancels_on_the_first_interrupt_and_leaves_at_the_end_of_input(shell: Shell) -> None:
    terminal = await chat(shell, "--session", "s")
    await terminal.sees("> ")
    terminal.type("hello\n")
    await terminal.sees("You said: hello")
    await terminal.sees("> ", 2)
    terminal.type("slow\n")
    await terminal.sees("One, two")
    assert "ten." not in terminal.text
    terminal.process.send_signal(signal.SIGINT)
    await terminal.sees("cancelling the turn")
    await terminal.sees("> ", 3)
    terminal.type("\x04")
    assert await terminal.end() == 0
    turns = json.loads(await shell.ok("get", "turns", "a/s", "-o", "json"))
    assert [turn["state"] for turn in turns] == ["cancelled", "completed"]


async def test_the_second_interrupt_leaves_a_turn_whose_server_does_not_answer_and_it_is_cancelled_all_the_same(
    product: Product, shell: Shell
) -> None:
    terminal = await chat(shell, "--session", "s")
    await terminal.sees("> ")
    terminal.type("hang\n")
    journal = ("session", "journal", "a", "s", "-o", "json")

    async def asked() -> bool:
        return "model.started" in await shell.ok(*journal)

    await until(asked)
    os.kill(product.pid, signal.SIGSTOP)
    try:
        terminal.process.send_signal(signal.SIGINT)
        await terminal.sees("cancelling the turn")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.end() == 130
    finally:
        os.kill(product.pid, signal.SIGCONT)

    async def cancelled() -> bool:
        return "turn.cancelled" in await shell.ok(*journal)

    await until(cancelled)
    assert "Traceback" not in terminal.text


async def test_interrupting_twice_at_the_prompt_leaves(shell: Shell) -> None:
    terminal = await chat(shell)
    await terminal.sees("> ")
    terminal.process.send_signal(signal.SIGINT)
    await terminal.sees("Ctrl-C again")
    await terminal.sees("> ", 2)
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.text


async def test_on_a_terminal_a_cascade_shows_the_users_and_asks_first(shell: Shell) -> None:
    await shell.ok("session", "create", "a", "s")
    terminal = await on_terminal(shell, "delete", "agent", "a", "--cascade")
    await terminal.sees("[y/N]")
    assert "Session/a/s: is a session of it" in terminal.text
    terminal.type("n\n")
    assert await terminal.end() == 130
    assert (await shell.data("session", "show", "a", "s"))["id"] == "s"
    terminal = await on_terminal(shell, "delete", "agent", "a", "--cascade")
    await terminal.sees("[y/N]")
    terminal.type("y\n")
    await terminal.sees("Agent default/a deleted")
    assert await terminal.end() == 0
    assert await shell.ok("get", "agents", "-o", "name") == ""


async def test_the_databases_state_is_an_exit_code(tmp_path: Path) -> None:
    shell = Shell("http://127.0.0.1:9", tmp_path)
    code, _, errors = await shell.run("db", "status")
    assert code == 1
    assert "not made yet" in errors
    await shell.ok("db", "migrate", "--data-dir", "d")
    state = json.loads(await shell.ok("db", "status", "--data-dir", "d", "-o", "json"))
    assert state["state"] == "current"
    assert state["version"] == state["program"] >= 1
    _, _, errors = await shell.run("db", "migrate", "--data-dir", "d")
    assert "nothing to do" in errors
    (tmp_path / "file").touch()
    for wrong in ("file/d", "file"):
        code, _, errors = await shell.run("db", "migrate", "--data-dir", wrong)
        assert code == 2
        assert f"{tmp_path / wrong} cannot be made" in errors
        assert "choose another --data-dir" in errors


async def test_a_server_whose_own_files_are_wrong_does_not_start_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    shell = Shell("http://127.0.0.1:9", tmp_path)
    code, out, errors = await shell.run("up", "--port", "0", "--tools-modules", "broken")
    assert (code, out) == (2, "")
    assert "nowhere_to_be_found" in errors
    assert f"{tmp_path / 'broken.py'}, line 1" in errors
    assert "Traceback" not in errors
