"""What is asked of resources over HTTP, the same of a store of any size: the same ten agents, spread evenly, and pages of four."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from talon.store.paging import cursor_after

NAMESPACE = "flat"
PAGE = 4
#: How many of a store's agents have one value of the label `app`.
ALIKE = 5
TEMPLATES = 2
TEMPLATE = """---
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata: {{name: base-{number}, namespace: flat}}
definition:
  systemPrompt: "You answer for Acme, carefully and in one paragraph. Tone: {{{{ tone }}}}."
  customSpec:
    features:
      - {{name: tone, type: enum, values: [formal, friendly], default: formal}}
  modelPolicy:
    profiles:
      - {{name: primary, model: {{provider: demo, name: scripted}}}}
"""
AGENT = """---
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata:
  name: {name}
  namespace: flat
  labels: {labels}
  annotations: {{note: "{note}"}}
spec:
  templateRef: base-{template}
  features: {{tone: {tone}}}
"""
TIMEOUT_S = 120.0


class Refused(Exception):
    """An answer that is none of 2xx."""


def name_of(number: int) -> str:
    """The agent of that number."""
    return f"a{number:06}"


def labels_of(number: int, size: int) -> dict[str, str]:
    """Its labels, in a store of `size` agents: `app` is shared by `ALIKE` of them, `tier` by all."""
    return {"app": f"x{number % (size // ALIKE)}", "tier": "all"}


def agent(number: int, size: int, note: str = "", tone: str = "formal") -> str:
    """Its manifest."""
    labels = json.dumps(labels_of(number, size))
    return AGENT.format(name=name_of(number), labels=labels, note=note, template=number % TEMPLATES, tone=tone)


class Client:
    """Asks one gateway, one request after the other on one connection. `size`: how many agents its store was filled to."""

    def __init__(self, url: str, size: int) -> None:
        self.size = size
        self._host = url.removeprefix("http://")
        self._connection = http.client.HTTPConnection(self._host, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def some(self, number: int) -> int:
        """One of the ten agents."""
        return number % 10 * (self.size // 10)

    def ask(self, method: str, path: str, body: str | None = None, kind: str = "application/json") -> Any:
        """-> the answer's JSON, None without one. Raises `Refused`."""
        self._connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text) if text else None

    def apply(self, manifests: str, query: str = "") -> list[str]:
        """-> what became of each document."""
        return [item["action"] for item in self.ask("POST", f"/v1/apply{query}", manifests, "application/yaml")["items"]]

    def watch(self, version: str, change: Callable[[], Any]) -> None:
        """Watch the agents from `version` on, `change` one of them, and return when that is told."""
        watching = http.client.HTTPConnection(self._host, timeout=TIMEOUT_S)
        try:
            watching.request("GET", f"{AGENTS}?watch=true&resource_version={version}")
            answer = watching.getresponse()
            if answer.status != 200:
                raise Refused(f"watch: {answer.status} {answer.read(500)!r}")
            change()
            while (line := answer.readline()) and line.strip() != b"event: modified":
                pass
            if not line:
                raise Refused("a watch ended before it told the change")
        finally:
            watching.close()


AGENTS, USERS = f"/v1/ns/{NAMESPACE}/agents", f"/v1/ns/{NAMESPACE}/templates/base-0/users"
Ask = Callable[[Client, int], object]


def _one(client: Client, number: int) -> str:
    return f"{AGENTS}/{name_of(client.some(number))}"


def _middle(client: Client, _: int) -> object:
    return _full(client.ask("GET", f"{AGENTS}?limit={PAGE}&cursor=1.{cursor_after(name_of(client.size * 3 // 10))}"))


def _labelled(client: Client, number: int, common: str = "") -> object:
    label = labels_of(client.some(number), client.size)["app"]
    return _full(client.ask("GET", f"{AGENTS}?limit={PAGE}&label_selector={common}app={label}"))


def _full(page: Any) -> object:
    if len(page["items"]) != PAGE:
        raise Refused(f"a page of {PAGE} has {len(page['items'])}")
    return page


def _changed(client: Client, number: int) -> str:
    return agent(client.some(number), client.size, f"change {number}", ("formal", "friendly")[number // 10 % 2])


def _expect(action: str, actions: list[str]) -> None:
    if actions != [action]:
        raise Refused(f"an apply that should have said {action} said {actions}")


def _patch(client: Client, number: int) -> object:
    return client.ask("PATCH", _one(client, number), json.dumps({"metadata": {"annotations": {"note": f"patch {number}"}}}))


def _watch(client: Client, number: int) -> None:
    version = client.ask("GET", f"{AGENTS}?limit=1")["resource_version"]
    client.watch(version, lambda: _patch(client, -number))


def _apply_ten(client: Client) -> None:
    client.apply("".join(agent(client.some(number), client.size) for number in range(10)))


def _more(number: int) -> str:
    """The manifest of one more agent."""
    return AGENT.format(name=_new(number), labels="{app: new}", note="", template=0, tone="formal")


def _new(number: int) -> str:
    return f"z{number:06}"


@dataclass(frozen=True)
class Question:
    """`ask(client, number)` is what is measured; numbers go up. `prepare` comes before a row of them."""

    name: str
    ask: Ask
    prepare: Callable[[Client], object] = lambda client: None


#: In this order: those that only look come before those that write.
QUESTIONS = (
    Question("get one", lambda client, number: client.ask("GET", _one(client, number))),
    Question("list, first page", lambda client, _: _full(client.ask("GET", f"{AGENTS}?limit={PAGE}"))),
    Question("list, a page in the middle", _middle),
    Question("list by a selective label", _labelled),
    Question("list by a common and a selective label", lambda client, number: _labelled(client, number, "tier=all,")),
    Question("users of a template", lambda client, _: _full(client.ask("GET", f"{USERS}?limit={PAGE}"))),
    Question(
        "apply one unchanged",
        lambda client, number: _expect("unchanged", client.apply(agent(client.some(number), client.size))),
        _apply_ten,
    ),
    Question(
        "dry-run of one changed",
        lambda client, number: _expect("changed", client.apply(_changed(client, number), "?dry_run=true")),
    ),
    Question("apply one changed", lambda client, number: _expect("changed", client.apply(_changed(client, number)))),
    Question("watch from the newest version, one change told", _watch),
    Question("patch one", _patch),
    Question("create one", lambda client, number: _expect("created", client.apply(_more(number)))),
    # Takes away what the question before has created: both are asked with the same numbers.
    Question("delete one", lambda client, number: client.ask("DELETE", f"{AGENTS}/{_new(number)}")),
)
