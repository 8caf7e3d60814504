"""Whom the bench measures: Talon as a user starts it, and its peers behind one and the same front."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.database import Database
from bench.node import Node
from bench.venvs import PEERS, python_of

#: What is asked of the model in each mode, as `bench.model` reads it.
MODES = {
    "plain": "look_up/0/0",
    "slow": "look_up/300/0",
    "tokens": "look_up/0/200",
    "chat": "none/0/10",
    "long": "look_long/0/0",
}
MESSAGE = "Which accounts renew within the next two weeks, and is anything overdue?"
CONFIG = """
tools: {{modules: [bench.toolbox], path: [{root}]}}
providers: {{model: {{kind: openai, base_url: "{model}/v1"}}}}
"""
AGENT = """---
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {{name: {name}, namespace: default}}
definition:
  systemPrompt: You are a careful assistant. Use the tools; answer in one paragraph.
  modelPolicy: {{profiles: [{{name: main, model: {{provider: model, name: {model}}}}}]}}
  mcpServerRefs: [toolbox]
"""
#: Changes a command before it is started.
Wrap = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Subject:
    """One of those that are measured. `store`: postgres, sqlite or none. `program`: of a peer, with its environment's name."""

    name: str
    store: str
    program: str = ""
    environment: str = ""

    @property
    def is_talon(self) -> bool:
        return not self.program


TALON, TALON_SQLITE = Subject("talon", "postgres"), Subject("talon-sqlite", "sqlite")
BARE = Subject("bare", "none", "bare.py", "steps")
PEER_SUBJECTS = {
    "steps": (Subject("steps", "postgres", "steps.py", "steps"), Subject("steps-sqlite", "sqlite", "steps.py", "steps")),
    "langgraph": (
        Subject("langgraph", "postgres", "langgraph_peer.py", "langgraph"),
        Subject("langgraph-sqlite", "sqlite", "langgraph_peer.py", "langgraph"),
    ),
    "dbos": (Subject("dbos", "postgres", "dbos_peer.py", "dbos"),),
}


@dataclass
class Running:
    """A subject that is up. `database` is a URL, a file's path, or empty."""

    subject: Subject
    node: Node
    database: str
    args: tuple[list[str], Path, dict[str, str]] = field(repr=False)
    wrap: Wrap = field(repr=False)

    @property
    def talon(self) -> bool:
        return self.subject.is_talon

    def restart(self) -> None:
        """Start it again on the same data, after its process was ended."""
        command, directory, env = self.args
        self.node = Node(self.subject.name, self.wrap(command), directory, env)

    def path(self, mode: str) -> str:
        """Where a turn is posted."""
        return f"/v1/ns/default/agents/{mode}/sessions/{{session}}/message?create=true" if self.talon else "/turn"

    def body(self, mode: str) -> str:
        """What is posted."""
        if self.talon:
            return json.dumps({"content": MESSAGE})
        return json.dumps({"session": "{session}", "content": MESSAGE, "model": MODES[mode]})


@contextmanager
def running(
    subject: Subject, postgres: Database, model_url: str, directory: Path, wrap: Wrap = lambda command: command
) -> Generator[Running]:
    """The subject started on a database of its own, which is gone after the block."""
    directory.mkdir(parents=True)
    database = {"postgres": postgres.create, "sqlite": lambda: str(directory / "data" / "peer.db"), "none": str}[subject.store]()
    (directory / "data").mkdir()
    if subject.is_talon:
        (directory / "talon.yaml").write_text(CONFIG.format(root=machine.ROOT, model=model_url))
        command = [sys.executable, "-m", "talon", "up", "--config", "talon.yaml", "--port", "0", "--data-dir", "data"]
        env = {"DATABASE_URL": database} if subject.store == "postgres" else {}
    else:
        program = str(PEERS / subject.program)
        command = [python_of(subject.environment), program, "--model-url", model_url, "--database", database]
        env = {}
    up = Running(subject, Node(subject.name, wrap(command), directory, env), database, (command, directory, env), wrap)
    try:
        if subject.is_talon:
            _apply(up.node.url)
        yield up
    finally:
        up.node.stop()
        if subject.store == "postgres":
            postgres.drop(database)


def _apply(url: str) -> None:
    """One agent for each mode."""
    manifests = "".join(AGENT.format(name=name, model=model) for name, model in MODES.items())
    headers = {"Content-Type": "application/yaml"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/apply", manifests.encode(), headers), timeout=30) as answer:
        answer.read()
