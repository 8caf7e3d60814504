"""The `talon` command as a process: help, wrong use, and a server that is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from talon.cli.main import COMMANDS

TALON = [sys.executable, "-m", "talon"]
HEAVY = ("pydantic", "fastapi", "aiohttp", "asyncpg", "uvicorn", "yaml", "msgspec", "rich", "asyncio")
#: A port on which nobody listens: the discard service's, which needs privileges to be opened.
NOBODY = "http://127.0.0.1:9"


def talon(*args: str, cwd: Path | None = None, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. Only these variables of ours are set."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TALON_", "OPENAI_")) and k != "DATABASE_URL"}
    return subprocess.run(
        [*TALON, *args], cwd=cwd, env={**clean, **env}, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


def test_help_imports_nothing_heavy_and_names_every_command() -> None:
    code = (
        "import sys; from talon.cli.main import run; status = run(['--help']);"
        f"print(status, [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.strip() == "0 []"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"up", "gateway", "worker"}))
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    done = talon(name, "--help")
    assert done.returncode == 0
    assert f"talon {name}" in done.stdout
    assert "Example" in done.stdout or name == "db"
    assert not [line for line in done.stdout.splitlines() if line.startswith("  ") and line.endswith("...")], "no line breaks off"


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ((), "Usage: talon"),
        (("verson",), "did you mean 'version'"),
        (("--nope",), "--nope"),
        (("session",), "Usage: talon session"),
        (("session", "send", "only-one"), "expected AGENT SESSION TEXT"),
        (("session", "show", "a", "b", "c"), "expected AGENT SESSION"),
        (("session", "send", "a", "b", "x", "--strategy", "shout"), "shout"),
        (("session", "create", "a", "s", "--metadata", "novalue"), "expected KEY=TEXT"),
        (("session", "create", "a", "s", "--feature", "n:=[1"), "is no JSON"),
        (("get",), "KIND is one of: namespaces, templates, agents"),
        (("get", "agnets"), "did you mean 'agents'"),
        (("get", "turns"), "AGENT/SESSION"),
        (("get", "agents", "--effective"), "--effective goes with one agent"),
        (("get", "agent", "x", "-A"), "goes with no NAME"),
        (("get", "revisions", "a/b/c"), "expected AGENT/[NAME]"),
        (("get", "turns", "a/s", "-l", "x=y"), "turns have no labels"),
        (("get", "agent", "a", "--limit", "1"), "are for lists"),
        (("get", "sessions", "-w"), "talon session stream"),
        (("get", "approvals", "-w"), "are not watched"),
        (("get", "agents", "-w", "--limit", "3"), "--watch goes with neither"),
        (("describe", "revision", "a/1"), "revisions cannot be described"),
        (("describe", "agent"), "expected agent NAME"),
        (("delete",), "talon delete -f FILE"),
        (("delete", "agent", "a", "-f", "x.yaml"), "talon delete -f FILE"),
        (("delete", "session", "a"), "expected AGENT/NAME"),
        (("delete", "agentt", "a"), "did you mean 'agent'"),
        (("edit", "session", "a/s"), "talon patch session"),
        (("patch", "agent", "a"), "one of --patch and --file"),
        (("patch", "agent", "a", "-p", "[1]"), "expected one object"),
        (("patch", "agent", "a", "-p", "{a: 1, a: 2}"), "given twice"),
        (("label", "agent", "a"), "expected KEY=VALUE"),
        (("label", "agent", "a", "x"), "expected KEY=VALUE"),
        (("apply", "-f", "x", "--prune"), "go together"),
        (("diff", "-f", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("explain", "agent.spec.templatRef"), "did you mean 'templateRef'"),
        (("explain", "turn"), "are not declared"),
        (
            ("schema", "agnet"),
            "did you mean 'agent'? (there are: namespace, template, agent, session, schedule, knowledge, mcp-server, ",
        ),
        (("schema", "agent", "-o", "x"), "goes with no KIND"),
        (("rollout", "undo", "a", "--to-revision", "0"), "0 is not in the range"),
        (("apply",), "--file"),
        (("apply", "-f", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("approval", "resolve", "x"), "--outcome"),
        (("approval", "resolve", "x", "--outcome", "retry", "--result", "y"), "does not go with"),
        (("approval", "resolve", "x", "--outcome", "done"), "needs --result"),
        (("chat", "a", "--server", "nonsense"), "expected a URL like"),
        (("db", "status", "--config", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("db", "status", "--set", "gateway.host=0.0.0.0"), "gateway.auth.mode"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_wrong(args: tuple[str, ...], part: str, tmp_path: Path) -> None:
    done = talon(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("get", "agents"),
        ("session", "send", "a", "s", "hello", "--wait"),
        ("session", "stream", "a", "s"),
        ("chat", "a"),
        ("approval", "list"),
        ("get", "agents", "--watch"),
        ("delete", "agent", "a"),
        ("export", "acme"),
    ],
)
def test_without_a_server_it_is_exit_code_1_and_how_to_start_one(args: tuple[str, ...]) -> None:
    done = talon(*args, "--server", NOBODY)
    assert done.returncode == 1
    assert NOBODY in done.stderr
    assert "talon up" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_server_and_namespace_come_from_the_environment_too() -> None:
    done = talon("get", "agents", TALON_SERVER="http://127.0.0.1:9/", TALON_NAMESPACE="acme")
    assert done.returncode == 1
    assert "no Talon answers at http://127.0.0.1:9 " in done.stderr


def test_version_as_data() -> None:
    done = talon("version", "-o", "json")
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) == {"version", "python", "platform"}
    assert talon("version").stdout.startswith("talon ")


def test_kinds_are_explained_and_their_schemas_written_without_a_server(tmp_path: Path) -> None:
    done = talon("explain", "sched.spec.target")
    assert done.returncode == 0
    assert done.stdout.startswith("Schedule.spec.target  Target  required\n")
    assert "  sessionMode  named | new\n" in done.stdout
    assert "required" in talon("explain", "agenttemplate.definition.modelPolicy.profiles").stdout
    assert talon("explain", "kn.spec.documents[0].content").stdout.startswith("Knowledge.spec.documents.content  text\n")
    assert "\nmcp-binding  " in talon("explain").stdout
    assert json.loads(talon("schema", "mcp").stdout)["title"] == "McpServer"
    written = talon("schema", "-o", "all", cwd=tmp_path).stdout.split()
    assert "all/manifest.schema.json" in written
    assert all(json.loads((tmp_path / path).read_text())["$schema"].endswith("2020-12/schema") for path in written)


def test_a_reader_that_goes_away_makes_no_noise(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m talon init --force . | true",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr.count("Traceback") == done.stderr.count("Exception") == 0


def test_interrupting_is_exit_code_130_and_leaves_no_traceback() -> None:
    """A server that takes the connection and never answers; Ctrl-C ends the wait."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen([*TALON, "get", "agents", "--server", url], stderr=subprocess.PIPE, text=True)
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(65536)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_a_mistake_of_ours_has_a_traceback_only_for_those_who_ask(tmp_path: Path) -> None:
    code = (
        "import click, sys; from talon.cli import main\n"
        "@click.command()\n"
        "def broken(): raise KeyError('x')\n"
        "main.app.get_command = lambda ctx, name: broken\n"
        "sys.exit(main.run(['version']))"
    )
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert quiet.returncode == 1
    assert "a mistake in Talon: KeyError" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    loud = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "TALON_DEBUG": "1"},
    )
    assert "Traceback" in loud.stderr
