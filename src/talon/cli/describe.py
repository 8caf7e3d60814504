"""`talon describe`: all that a person wants to know about one thing, on one page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import click

from talon.cli.client import Client, path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.kinds import Item, Kind, kind_of, resource_of, state
from talon.cli.objects import label, writable
from talon.cli.output import as_yaml, table
from talon.cli.text import one_line, styled
from talon.domain.errors import NotFound, TooLarge

#: So many of what there may be many of; `talon get` shows all.
SHOWN = 10
Section = tuple[str, str]


@click.command("describe", context_settings={"max_content_width": 110})
@click.argument("kind")
@click.argument("name", required=False)
@connection_options
def command(at: At, kind: str, name: str | None) -> None:
    """Show all about one resource or session: its conditions, what it uses and whether that is there, who uses it, its revisions
    or turns.

    \b
    Examples:
      talon describe agent customer-support
      talon describe session customer-support/renewals
      talon describe namespace acme
    """
    describe(at, kind, name)


def describe(at: At, kind: str, name: str | None) -> None:
    """Print the page about one thing."""
    found, names = resource_of(kind, name, "described")

    async def work() -> list[Section]:
        async with at.client() as client:
            item = await client.get(found.path(at, names))
            return await (_resource if found.is_resource else _session)(client, at, found, names, item)

    print("\n\n".join(_text(title, body) for title, body in run(work()) if body))


def _text(title: str, body: str) -> str:
    return styled(title, "bold") + "\n" + "\n".join(f"  {line}".rstrip() for line in body.splitlines())


def _fields(fields: Sequence[tuple[str, Any]]) -> str:
    shown = [(name, value) for name, value in fields if value not in (None, "", {}, [])]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name + ':':<{width + 1}}  {one_line(str(value))}" for name, value in shown)


def _pairs(pairs: dict[str, Any] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (pairs or {}).items())


async def _resource(client: Client, at: At, kind: Kind, names: Sequence[str], item: Item) -> list[Section]:
    """Everything about a resource."""
    metadata, status = item["metadata"], item.get("status", {})
    about = _fields(
        [
            ("Labels", _pairs(metadata.get("labels"))),
            ("Annotations", _pairs(metadata.get("annotations"))),
            ("Template", status.get("template")),
            ("Revision", status.get("revision")),
            ("Generation", f"{metadata['generation']} (version {metadata['resourceVersion']})"),
            ("Status", state(item)),
            ("Created", metadata["createdAt"]),
            ("Updated", metadata["updatedAt"]),
            ("Uid", metadata["uid"]),
        ]
    )
    written = {key: value for key, value in writable(item).items() if key not in ("apiVersion", "kind", "metadata") and value}
    return [
        (label(item), about),
        ("Manifest", as_yaml(written) if written else ""),
        ("Conditions", _conditions(status.get("conditions", []))),
        *(await _around(client, at, kind, names, item)),
    ]


async def _around(client: Client, at: At, kind: Kind, names: Sequence[str], item: Item) -> list[Section]:
    """What a resource has to do with others."""
    if kind.manifest == "Namespace":
        return [("Holds", await _held(client, names[0])), ("Namespaces in it", await _below(client, kind, at, names[0]))]
    return [
        ("Uses", await _uses(client, at, item)),
        ("Used by", _users(await client.items(kind.path(at, names) + "/users"))),
        *(await _of_agent(client, at, names[0]) if kind.manifest == "Agent" else []),
        *(await _of_schedule(client, at, names[0]) if kind.manifest == "Schedule" else []),
    ]


async def _held(client: Client, namespace: str) -> str:
    try:
        nodes = (await client.get(path_of("ns", namespace, "graph")))["nodes"]
    except TooLarge as error:
        return error.detail
    counts = Counter(node["kind"] for node in nodes if node["namespace"] == namespace)
    return table(("KIND", "COUNT"), sorted(counts.items()))


async def _below(client: Client, kind: Kind, at: At, namespace: str) -> str:
    names = [one["metadata"]["name"] for one in await client.items(kind.path(at))]
    return "\n".join(name for name in names if name.startswith(f"{namespace}:"))


def _conditions(conditions: Sequence[dict[str, Any]]) -> str:
    heads = ("TYPE", "STATUS", "REASON", "MESSAGE")
    return table(heads, [(c["type"], c["status"], c.get("reason"), c.get("message")) for c in conditions])


async def _uses(client: Client, at: At, item: Item) -> str:
    """What it refers to, and where that is found: in its own namespace, in the nearest ancestor's, or with the workers."""
    from pydantic import ValidationError

    from talon.domain.resources import candidates
    from talon.manifest.kinds import DOCS
    from talon.manifest.references import refs

    namespace = item["metadata"].get("namespace", "")
    rows: list[tuple[str, str, str]] = []
    try:
        model = DOCS[item["kind"]].model_validate(item)
    except ValidationError:
        return f"the server is of another version than this command; see: talon graph {namespace}"
    for ref in refs(model):
        found = ""
        for place, kind, name in candidates(namespace, ref):
            with suppress(NotFound):
                await client.get(kind_of(kind).path(At(at.server, place), [name]))
                found = f"in {place}"
                break
        rows.append((ref.kind, ref.name, found or _elsewhere(item, ref.kind, ref.name)))
    return table(("KIND", "NAME", "FOUND"), rows)


def _elsewhere(item: Item, kind: str, name: str) -> str:
    """What is no resource may be a toolset of the workers: the server's condition knows."""
    if kind != "McpServer":
        return "missing"
    said = [c for c in item.get("status", {}).get("conditions", []) if c["type"] == "ReferencesResolved"]
    if any(c["status"] == "Unknown" for c in said):
        return "unknown: no worker is running"
    named = any(re.search(rf"(?<![a-z0-9-]){name}(?![a-z0-9-])", c.get("message", "")) for c in said)
    return "missing" if named else "a toolset of the workers"


def _users(users: Sequence[dict[str, Any]]) -> str:
    more = [f"and {len(users) - SHOWN} more"] if len(users) > SHOWN else []
    rows = [(user["kind"], user["namespace"], user["name"]) for user in islice(users, SHOWN)]
    return "\n".join([table(("KIND", "NAMESPACE", "NAME"), rows), *more])


async def _of_agent(client: Client, at: At, name: str) -> list[Section]:
    """An agent's newest revisions, and its sessions."""
    revisions = await client.items(at.path("agents", name, "revisions"), limit=SHOWN)
    sessions = await client.items(at.path("agents", name, "sessions"), limit=SHOWN)
    return [
        ("Revisions, newest first", kind_of("revisions").table(revisions)),
        (
            "Sessions, newest first",
            table(("SESSION", "STATE", "UPDATED"), [(s["id"], s["state"], s["updated_at"]) for s in sessions]),
        ),
    ]


async def _of_schedule(client: Client, at: At, name: str) -> list[Section]:
    """When a schedule fires next, and what became of its newest occurrences."""
    from talon.cli.schedule import occurrences_table, times_table

    times = (await client.get(at.path("schedules", name, "next")))["items"]
    past = await client.items(at.path("schedules", name, "history"), limit=SHOWN)
    return [
        ("Next", times_table(times) if times else ""),
        ("Occurrences, newest first", occurrences_table(past) if past else ""),
    ]


async def _session(client: Client, at: At, kind: Kind, names: Sequence[str], item: Item) -> list[Section]:
    """Everything about a session."""
    turns = await client.items(kind_of("turns").path(at, names), limit=SHOWN)
    about = _fields(
        [
            ("Agent", item["agent"]),
            ("State", item["state"]),
            ("Turn", item["turn_id"]),
            ("Queued", item["queued"]),
            ("Journal", f"{item['last_seq']} entries"),
            ("Profile", item["profile"]),
            ("Created", item["created_at"]),
            ("Updated", item["updated_at"]),
            ("Uid", item["uid"]),
        ]
    )
    return [
        (f"Session {item['namespace']}/{'/'.join(names)}", about),
        ("Metadata", as_yaml(item["metadata"]) if item["metadata"] else ""),
        ("Features", as_yaml(item["features"]) if item["features"] else ""),
        ("Turns, newest first", kind_of("turns").table(turns) if turns else ""),
    ]
