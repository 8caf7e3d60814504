"""`talon graph`: what refers to what in a namespace, as a tree for people and in the forms that drawing programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from talon.cli.client import path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.output import as_json, note
from talon.cli.text import one_line, styled

Key = tuple[str, str, str]  # namespace, kind, name


@dataclass(frozen=True, slots=True)
class Graph:
    """`uses` are the edges, from the one that refers to what it refers to. `missing` are those that do not exist, `toolsets` those
    that are no resources: workers serve them."""

    namespace: str
    nodes: tuple[Key, ...]
    uses: dict[Key, tuple[Key, ...]]
    missing: frozenset[Key]
    toolsets: frozenset[Key]

    @classmethod
    def of(cls, namespace: str, body: dict[str, Any]) -> Graph:
        """From the answer of `GET …/graph`."""
        nodes = tuple(_key(node) for node in body["nodes"])
        uses: dict[Key, tuple[Key, ...]] = {}
        for edge in body["edges"]:
            uses[_key(edge["from"])] = (*uses.get(_key(edge["from"]), ()), _key(edge["to"]))
        missing, toolsets = (frozenset(_key(n) for n in body["nodes"] if n.get(mark)) for mark in ("missing", "toolset"))
        return cls(namespace, nodes, uses, missing, toolsets)

    def label(self, key: Key) -> str:
        """`Agent customer-support`, with its namespace if that is another one; `toolset crm`."""
        namespace, kind, name = key
        if key in self.toolsets:
            return f"toolset {name}"
        return f"{kind} {name if namespace in ('', self.namespace) else f'{namespace}/{name}'}"


def _key(one: dict[str, Any]) -> Key:
    return str(one.get("namespace", "")), str(one["kind"]), str(one["name"])


def tree(graph: Graph) -> str:
    """Those that nobody refers to, each with what it uses below it. What stands in several places has its own lines once only."""
    used = {to for tos in graph.uses.values() for to in tos}
    told: set[Key] = set()
    roots = [key for key in graph.nodes if key not in used]
    lines = [styled(graph.namespace, "bold")]
    for number, root in enumerate(roots):
        lines += _branch(graph, root, "", number == len(roots) - 1, told)
    return "\n".join(lines)


def _branch(graph: Graph, key: Key, indent: str, last: bool, told: set[Key]) -> Iterator[str]:
    below = graph.uses.get(key, ())
    again = key in told and bool(below)
    text = one_line(graph.label(key))
    mark = styled(" (missing)", "red") if key in graph.missing else styled(" (as above)", "dim") if again else ""
    yield f"{indent}{'└── ' if last else '├── '}{text}{mark}"
    if again:
        return
    told.add(key)
    for number, one in enumerate(below):
        yield from _branch(graph, one, indent + ("    " if last else "│   "), number == len(below) - 1, told)


def mermaid(graph: Graph) -> str:
    """A flowchart as Mermaid reads it."""
    ids = _ids(graph)
    lines = ["flowchart LR", *(f'  {ids[key]}["{graph.label(key)}"]' for key in graph.nodes)]
    lines += [f"  {ids[one]} --> {ids[other]}" for one, other in _edges(graph)]
    if graph.missing:
        lines += [
            "  classDef missing stroke-dasharray: 4",
            f"  class {','.join(sorted(ids[key] for key in graph.missing))} missing",
        ]
    return "\n".join(lines)


def dot(graph: Graph) -> str:
    """A graph as Graphviz reads it."""
    ids = _ids(graph)
    lines = ["digraph talon {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [
        f'  {ids[key]} [label="{graph.label(key)}"{", style=dashed" if key in graph.missing else ""}];' for key in graph.nodes
    ]
    return "\n".join([*lines, *(f"  {ids[one]} -> {ids[other]};" for one, other in _edges(graph)), "}"])


def _ids(graph: Graph) -> dict[Key, str]:
    return {key: f"n{number}" for number, key in enumerate(graph.nodes, 1)}


def _edges(graph: Graph) -> Sequence[tuple[Key, Key]]:
    return [(key, other) for key in graph.nodes for other in graph.uses.get(key, ())]


FORMS: dict[str, Callable[[Graph], str]] = {"tree": tree, "mermaid": mermaid, "dot": dot}


@click.command("graph")
@click.argument("name", metavar="NAMESPACE")
@click.option("-o", "--output", type=click.Choice([*FORMS, "json"]), default="tree", show_default=True, help="form of the output")
@connection_options
def command(at: At, name: str, output: str) -> None:
    """Show what refers to what in a namespace: agents to templates, schedules to agents, all to MCP servers, knowledge and secrets.

    What is referred to and does not exist is marked as missing. Namespaces that lie in it have graphs of their own.

    \b
    Examples:
      talon graph acme
      talon graph acme -o mermaid
      talon graph acme -o dot | dot -Tsvg > acme.svg
    """

    async def work() -> Any:
        async with at.client() as client:
            return await client.get(path_of("ns", name, "graph"))

    body = run(work())
    if output == "json":
        print(as_json(body, indent=2))
        return
    graph = Graph.of(name, body)
    if not graph.nodes:
        note(f"nothing is in namespace {name}")
        return
    print(FORMS[output](graph))
