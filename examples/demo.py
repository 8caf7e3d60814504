"""`make demo`: an agent session that is killed in the middle of a tool call and goes on as if nothing had happened.

Everything in it is the real thing: the `talon` command, its process, its database file, its HTTP API. Only the model is a fake, a
scripted server that speaks the vendor's wire, so that no key is needed. A counter service outside counts what the tools did.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "renewals"
RUN = Path(os.environ.get("TALON_DEMO_DIR") or ROOT / ".demo")
TALON = str(Path(sys.executable).with_name("talon"))
AGENT, SESSION, NAMESPACE = "customer-support", "enterprise-renewals", "acme"
MESSAGE = "Review renewals due in 14 days."
SLOW_TOOL = "draft_follow_up"
WAIT_S = 60.0
COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def say(text: str) -> None:
    """A line of the demo's own."""
    print(f"\033[1;36m{text}\033[0m" if COLOUR else text, flush=True)


def get(url: str) -> Any:
    """GET a JSON document."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def main() -> int:
    """Run it; -> 0 if every promise was kept."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    with ExitStack() as stack:
        counter = stack.enter_context(service("counter", [sys.executable, str(EXAMPLE / "counter.py"), "--port", "0"]))
        model = stack.enter_context(
            service("model", [sys.executable, "-m", "talon.providers.scripted", str(EXAMPLE / "model.yaml"), "--port", "0"])
        )
        talon = Talon({"TALON_PROVIDERS_OPENAI_BASE_URL": model, "RENEWALS_COUNTER_URL": counter, "RENEWALS_SLOW_S": "3"})
        stack.callback(talon.stop)
        say("1. Talon starts on embedded SQLite: one process, one file.")
        talon.start()
        say("\n2. The template and the session as printed, the agent of that name, two Python toolsets.")
        talon.run("apply", "-f", str(EXAMPLE / "manifests"))
        kept = review(talon)
        kept &= effects(counter)
        say("\n6. The session's journal, one line an entry. It is the whole truth about the session.")
        talon.run("session", "journal", AGENT, SESSION)
        page = f"{talon.url}/#/{NAMESPACE}/{AGENT}/{SESSION}"
        say(f"\nThe session's page: {page}")
        say(real_model())
        if kept and sys.stdout.isatty():
            say("Talon stays up; Ctrl-C ends it.")
            talon.wait()
    say("Every promise was kept." if kept else "A PROMISE WAS BROKEN: see above.")
    return 0 if kept else 1


def review(talon: Talon) -> bool:
    """Send the message, kill the server in the middle of a tool call, start it again, see the turn's end."""
    say(f'\n3. A message: "{MESSAGE}" The client follows the turn\'s stream.')
    client = talon.spawn("session", "send", AGENT, SESSION, MESSAGE, "--wait")
    seq = wait_for_tool(talon.url, client)
    say(f"\n4. SIGKILL while {SLOW_TOOL} is under way (its intent is entry {seq}; there is no receipt).")
    talon.kill()
    say("   Talon starts again on the same file. The client has noticed nothing but a pause.\n")
    began = time.monotonic()
    talon.start()
    code = client.wait(timeout=WAIT_S)
    took_s = time.monotonic() - began
    say(f"\n   The turn's end was streamed {took_s:.1f} s after the restart began; the client's exit code is {code}.")
    return code == 0


def wait_for_tool(url: str, client: subprocess.Popen[str]) -> int:
    """The seq of the slow tool's `tool.started`, once it is in the journal."""
    path = f"{url}/v1/ns/{NAMESPACE}/agents/{AGENT}/sessions/{SESSION}/journal?limit=500"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and client.poll() is None:
        names: dict[int, str] = {}
        for entry in get(path)["items"]:
            payload = entry["payload"]
            if entry["type"] == "tool.requested":
                names[payload["call"]] = payload["name"]
            elif entry["type"] == "tool.started" and names.get(payload["call"]) == SLOW_TOOL:
                return entry["seq"]
        time.sleep(0.05)
    raise SystemExit(f"{SLOW_TOOL} was never started: see {RUN}")


def effects(counter: str) -> bool:
    """What the counter service outside has seen."""
    say("\n5. Asked from outside: how often did each effect happen?")
    rows = get(f"{counter}/effects")["effects"]
    print(f"   {'TOOL':22} {'EFFECT':12} {'HAPPENED':>8} {'DELIVERED':>9}  KEY")
    kept = bool(rows)
    for row in rows:
        print(f"   {row['tool']:22} {row['effect']:12} {row['happened']:>8} {row['delivered']:>9}  {row['key'][:14]}…")
        kept &= row["happened"] == 1
    print("   Each effect happened exactly once." if kept else "   NOT exactly once!")
    return kept


def real_model() -> str:
    """How to use a real model instead of the scripted one."""
    if os.environ.get("OPENAI_API_KEY"):
        return "OPENAI_API_KEY is set: `talon up --config examples/renewals/talon.yaml` uses the real model."
    try:
        get("http://127.0.0.1:11434/api/version")
    except (OSError, ValueError):
        return "With OPENAI_API_KEY set, `talon up --config examples/renewals/talon.yaml` uses the real model."
    return (
        "Ollama answers here: `talon up --config examples/renewals/talon.yaml "
        "--set providers.openai.base_url=http://127.0.0.1:11434/v1`, and name one of its models in manifests/template.yaml."
    )


class Talon:
    """The `talon up` of the demo, and the `talon` command as its client."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith(("TALON_", "DATABASE_URL", "OPENAI_"))}, **env}
        self.url = ""
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; the second time on the same port, so that clients find it again."""
        command = ["up", "--config", str(EXAMPLE / "talon.yaml"), "--data-dir", str(RUN / "data"), "--port", self._port]
        print(f"   $ talon up --data-dir .demo/data --port {self._port}", flush=True)
        with (RUN / "talon.log").open("a") as log:
            self._process = subprocess.Popen(
                [TALON, *command], env=self.env, cwd=RUN, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self.url = ready(self._process, "talon ready ", RUN / "talon.log")
        self._port = self.url.rpartition(":")[2]
        print(f"   talon ready {self.url}", flush=True)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=WAIT_S)

    def wait(self) -> None:
        """Until Ctrl-C, or until it ends."""
        try:
            if self._process is not None:
                self._process.wait()
        except KeyboardInterrupt:
            print()

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        """A `talon` client command in the background, its output on ours."""
        print(f"   $ talon {' '.join(f'{word!r}' if ' ' in word else word for word in words)}", flush=True)
        env = {**self.env, "TALON_SERVER": self.url, "TALON_NAMESPACE": NAMESPACE}
        return subprocess.Popen([TALON, *words], env=env, text=True)

    def run(self, *words: str) -> None:
        """A `talon` client command that must succeed."""
        short = [word.replace(f"{ROOT}/", "") for word in words]
        print(f"   $ talon {' '.join(short)}", flush=True)
        env = {**self.env, "TALON_SERVER": self.url, "TALON_NAMESPACE": NAMESPACE}
        subprocess.run([TALON, *words], env=env, check=True, timeout=WAIT_S)


@contextmanager
def service(name: str, command: list[str]) -> Iterator[str]:
    """A helper process whose first line ends with its address; -> the address."""
    with (RUN / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=RUN, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
    try:
        yield ready(process, "", RUN / f"{name}.log").split()[-1]
    finally:
        process.terminate()
        process.wait(timeout=WAIT_S)


def ready(process: subprocess.Popen[str], prefix: str, log: Path) -> str:
    """The rest of the first line that a process prints."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.startswith(prefix) or not line:
        process.kill()
        raise SystemExit(f"{process.args!r} did not start:\n{log.read_text()}")
    return line.removeprefix(prefix)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
