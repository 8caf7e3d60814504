"""`talon get`: what there is, as a table for people and as YAML or JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from talon.cli.approval import approvals_table
from talon.cli.connection import At, connection_options, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.output import emit, output_option, table
from talon.cli.session import sessions_table
from talon.cli.text import nearest

Item = dict[str, Any]
Columns = tuple[tuple[str, Callable[[Item], Any]], ...]


def _meta(key: str) -> Callable[[Item], Any]:
    return lambda item: item["metadata"].get(key)


def _conditions(item: Item) -> str:
    """`Resolved=False (MissingToolsets)`: what is not as it should be; `ok` otherwise."""
    wrong = [c for c in item.get("status", {}).get("conditions", []) if str(c.get("status")) != "True"]
    return ", ".join(f"{c['type']}={c['status']} ({c.get('reason', '')})" for c in wrong) or "ok"


def _status(key: str) -> Callable[[Item], Any]:
    return lambda item: item.get("status", {}).get(key)


def _field(key: str) -> Callable[[Item], Any]:
    return lambda item: item.get(key)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that can be shown. `owner` are the names above it, written `AGENT` or `AGENT/SESSION` in NAME."""

    plural: str
    aliases: tuple[str, ...]
    columns: Columns
    owner: tuple[str, ...] = ()
    own_table: Callable[[list[Item]], str] | None = None

    def table(self, items: Sequence[Item]) -> str:
        """The items, one a row."""
        if self.own_table is not None:
            return self.own_table(list(items))
        rows = [[value(item) for _, value in self.columns] for item in items]
        return table([head for head, _ in self.columns], rows, empty=f"no {self.plural}")


_NAMED: Columns = (("NAMESPACE", _meta("namespace")), ("NAME", _meta("name")))
_CHANGED: Columns = (("GENERATION", _meta("generation")), ("UPDATED", _meta("updatedAt")))
KINDS = (
    Kind("namespaces", ("namespace", "ns"), (("NAME", _meta("name")), ("CREATED", _meta("createdAt")))),
    Kind("templates", ("template", "agenttemplate", "agenttemplates"), (*_NAMED, *_CHANGED)),
    Kind(
        "agents",
        ("agent", "ag"),
        (*_NAMED, ("TEMPLATE", _status("template")), ("REVISION", _status("revision")), ("STATUS", _conditions), *_CHANGED[1:]),
    ),
    Kind("sessions", ("session", "se"), (), ("AGENT",), sessions_table),
    Kind(
        "revisions",
        ("revision", "rev"),
        (
            ("REVISION", _field("revision")),
            ("DIGEST", lambda item: str(item.get("digest", ""))[:12]),
            ("CAUSE", _field("cause")),
            ("CREATED", _field("created_at")),
        ),
        ("AGENT",),
    ),
    Kind(
        "turns",
        ("turn",),
        (
            ("TURN", _field("turn_id")),
            ("STATE", _field("state")),
            ("REASON", _field("reason")),
            ("STRATEGY", _field("strategy")),
            ("SEQ", _field("seq")),
            ("CREATED", _field("created_at")),
            ("ENDED", _field("ended_at")),
        ),
        ("AGENT", "SESSION"),
    ),
    Kind("approvals", ("approval", "ap"), (), (), approvals_table),
)
BY_NAME = {name: kind for kind in KINDS for name in (kind.plural, *kind.aliases)}


def _kind(name: str) -> Kind:
    kind = BY_NAME.get(name.lower())
    if kind is None:
        known = ", ".join(kind.plural for kind in KINDS)
        raise WrongUse(f"no such kind {name!r}{nearest(name.lower(), BY_NAME)} (there are: {known})")
    return kind


@click.command("get", context_settings={"max_content_width": 110})
@click.argument("kind")
@click.argument("name", required=False)
@click.option("--effective", is_flag=True, help="an agent as turns run it, after its template and all defaults")
@click.option("-A", "--all-namespaces", is_flag=True, help="of all namespaces")
@output_option
@connection_options
def command(at: At, kind: str, name: str | None, effective: bool, all_namespaces: bool, output: str) -> None:
    """Show things: namespaces, templates, agents, sessions, revisions, turns, approvals.

    KIND may be singular or short (ns, ag, se, rev, ap). What belongs to an agent or a session is named with it:

    \b
    Examples:
      talon get agents -A
      talon get agent customer-support -o yaml --effective
      talon get sessions                              # of all agents
      talon get session customer-support/renewals -o json
      talon get revisions customer-support
      talon get revision customer-support/3 -o yaml
      talon get turns customer-support/renewals
    """
    chosen = _kind(kind)
    if effective and (chosen.plural != "agents" or not name):
        raise WrongUse("--effective goes with one agent: talon get agent NAME --effective")
    if all_namespaces and (name or chosen.plural == "namespaces"):
        raise WrongUse("--all-namespaces lists a kind of all namespaces; it goes with no NAME")
    names = name.split("/") if name else []
    single = len(names) == len(chosen.owner) + 1
    if names and not single and len(names) != len(chosen.owner):
        raise WrongUse(f"{name!r}: expected {'/'.join((*chosen.owner, '[NAME]'))}")
    if not names and chosen.owner and chosen.plural != "sessions":
        raise WrongUse(f"expected talon get {chosen.plural} {'/'.join(chosen.owner)}")

    async def work() -> Any:
        async with at.client() as client:
            if single and chosen.plural == "revisions":
                return _one([r for r in await client.items(_path(at, chosen, names[:1])) if str(r["revision"]) == names[1]], name)
            if single:
                return await client.get(_path(at, chosen, names), {"effective": "true"} if effective else {})
            found: list[Item] = []
            for place in await _namespaces(at, client) if all_namespaces else [at]:
                for owner in [names] if names or not chosen.owner else await _agents(place, client):
                    found += await client.items(_path(place, chosen, owner))
            return found

    emit(run(work()), output, lambda data: chosen.table([data] if single else data))


def _one(found: list[Item], name: str | None) -> Item:
    """The only one of `found`: revisions have no route of their own."""
    if not found:
        raise Failed(f"no revision {name}")
    return found[0]


async def _namespaces(at: At, client: Any) -> list[At]:
    from talon.cli.client import path_of

    return [At(at.server, item["metadata"]["name"]) for item in await client.items(path_of("namespaces"))]


async def _agents(at: At, client: Any) -> list[list[str]]:
    return [[item["metadata"]["name"]] for item in await client.items(at.path("agents"))]


def _path(at: At, kind: Kind, names: Sequence[str]) -> str:
    """The route of a kind's list, or of the one that `names` names."""
    from talon.cli.client import path_of

    if kind.plural == "namespaces":
        return path_of("namespaces", *names)
    above = [part for pair in zip(("agents", "sessions"), names, strict=False) for part in pair][: 2 * len(kind.owner)]
    return at.path(*above, kind.plural, *names[len(kind.owner) :])
