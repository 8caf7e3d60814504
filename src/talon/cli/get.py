"""`talon get`: what there is, as a table for people and as YAML or JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import WrongUse
from talon.cli.kinds import Item, Kind, kind_and_name
from talon.cli.output import emit

if TYPE_CHECKING:
    from talon.cli.client import Client

FORMS = ("table", "wide", "yaml", "json", "name")


@click.command("get", context_settings={"max_content_width": 110})
@click.argument("kind")
@click.argument("name", required=False)
@click.option(
    "-l", "--selector", default="", metavar="SELECTOR", help="only those with these labels: app=x,tier!=y,env in (a,b),!old"
)
@click.option("-w", "--watch", "watching", is_flag=True, help="then show every change as it comes, until Ctrl-C")
@click.option("--effective", is_flag=True, help="an agent as turns run it, after its template and all defaults")
@click.option("-A", "--all-namespaces", is_flag=True, help="of all namespaces")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="at most so many [all]")
@click.option("-o", "--output", type=click.Choice(FORMS), default="table", show_default=True, help="form of the output")
@connection_options
def command(
    at: At,
    kind: str,
    name: str | None,
    selector: str,
    watching: bool,
    effective: bool,
    all_namespaces: bool,
    limit: int | None,
    output: str,
) -> None:
    """Show things: namespaces, templates, agents, sessions, schedules, knowledge, mcp-servers, mcp-bindings, secrets, revisions,
    turns, approvals.

    KIND may be singular or short (ns, tpl, ag, se, kn, mcp, rev, ap). What belongs to an agent or a session is named with it.
    With --watch and -o json, each line is one change: {"type": "added" | "modified" | "deleted", "object": …}; what is there at
    the beginning comes as added. A watch goes on when the server was restarted, without repeating or losing a change.

    \b
    Examples:
      talon get agents -A
      talon get agents -l app=support,tier!=test --watch
      talon get agent customer-support -o yaml --effective
      talon get sessions                              # of all agents
      talon get session customer-support/renewals -o json
      talon get revision customer-support/3 -o yaml
      talon get turns customer-support/renewals
    """
    chosen, name = kind_and_name(kind, name)
    names = _names(chosen, name)
    single = len(names) == len(chosen.owner) + 1
    _check(chosen, names, single, effective, all_namespaces, selector, limit)
    params = {"label_selector": selector} if selector else {}
    if watching:
        _check_watch(chosen, effective, limit)
        from talon.cli.watch import show_changes

        run(show_changes(at, chosen, names[0] if names else "", params, output, all_namespaces=all_namespaces))
        return

    async def work() -> Any:
        async with at.client() as client:
            if single:
                return await client.get(chosen.path(at, names), {"effective": "true"} if effective else {})
            return await listing(client, at, chosen, names, params, all_namespaces=all_namespaces, limit=limit)

    found = run(work())
    items: list[Item] = [found] if single else found
    if output == "name":
        print(*map(chosen.name_of, items), sep="\n", end="\n" if items else "")
    else:
        emit(found, output, lambda _: chosen.table(items, output == "wide"))


def _names(kind: Kind, name: str | None) -> list[str]:
    names = name.split("/") if name else []
    if names and len(names) not in (len(kind.owner), len(kind.owner) + 1):
        raise WrongUse(f"{name!r}: expected {'/'.join((*kind.owner, '[NAME]'))}")
    if not names and kind.owner and kind.plural != "sessions":
        raise WrongUse(f"expected talon get {kind.plural} {'/'.join(kind.owner)}")
    return names


def _check(
    kind: Kind, names: Sequence[str], single: bool, effective: bool, all_namespaces: bool, selector: str, limit: int | None
) -> None:
    """Raise `WrongUse` for options that do not go together."""
    if effective and (kind.plural != "agents" or not single):
        raise WrongUse("--effective goes with one agent: talon get agent NAME --effective")
    if all_namespaces and (names or kind.plural == "namespaces"):
        raise WrongUse("--all-namespaces lists a kind of all namespaces; it goes with no NAME")
    if selector and not kind.is_resource:
        raise WrongUse(f"--selector: {kind.plural} have no labels")
    if single and (selector or limit):
        raise WrongUse("--selector and --limit are for lists; they go with no NAME")


def _check_watch(kind: Kind, effective: bool, limit: int | None) -> None:
    if kind.plural in ("sessions", "turns"):
        raise WrongUse("--watch: a session has its own stream: talon session stream AGENT SESSION")
    if not kind.is_resource:
        raise WrongUse(f"--watch: {kind.plural} are not watched")
    if effective or limit:
        raise WrongUse("--watch goes with neither --effective nor --limit")


async def listing(
    client: Client, at: At, kind: Kind, owner: Sequence[str], params: dict[str, str], *, all_namespaces: bool, limit: int | None
) -> list[Item]:
    """All pages of one list, or of all lists of this kind; at most `limit` items."""
    found: list[Item] = []
    for place in await _namespaces(at, client) if all_namespaces else [at]:
        for names in [owner] if owner or not kind.owner else await _agents(place, client):
            found += await client.items(kind.path(place, names), params, limit and limit - len(found))
            if limit and len(found) >= limit:
                return found
    return found


async def _namespaces(at: At, client: Client) -> list[At]:
    from talon.cli.client import path_of

    return [At(at.server, item["metadata"]["name"]) for item in await client.items(path_of("namespaces"))]


async def _agents(at: At, client: Client) -> list[list[str]]:
    return [[item["metadata"]["name"]] for item in await client.items(at.path("agents"))]
