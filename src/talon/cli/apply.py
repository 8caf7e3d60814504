"""`talon apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from talon.cli.client import Client, path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.documents import Source, collect, placed, placed_in, warn
from talon.cli.errors import WrongUse
from talon.cli.output import as_json, emit, note, output_option
from talon.cli.parts import in_parts, of_all
from talon.cli.text import one_line, styled
from talon.domain.errors import FieldError, Refused, TalonError

SIGNS = {"created": "green", "changed": "yellow", "unchanged": "dim", "deleted": "red"}
F = TypeVar("F", bound=Callable[..., Any])


def prune_options(function: F) -> F:
    """`--prune` and `--selector`."""
    function = click.option("-l", "--selector", default="", metavar="SELECTOR", help="with --prune: app=x,tier!=y")(function)
    return click.option("--prune", is_flag=True, help="also delete what has the labels of --selector and is in no manifest")(
        function
    )


@click.command("apply")
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="DIR|FILE|-", help="manifests; may be given again")
@click.option("--dry-run", is_flag=True, help="show what would change, change nothing")
@prune_options
@output_option
@connection_options
def command(at: At, files: tuple[str, ...], dry_run: bool, prune: bool, selector: str, output: str) -> None:
    """Create or change what manifests describe: all of it, or nothing.

    A directory is read with everything below it: *.yaml, *.yml, *.json (talon.yaml is left out). With --prune, what has the labels
    of --selector and stands in no manifest is deleted in the same step: the manifests are then all there is of it.

    More than 500 manifests, or 4 MiB, go in several requests, what others refer to first. Each of them is all or nothing; an apply
    that was refused on the way is repeated when it is corrected.

    \b
    Examples:
      talon apply -f agents/
      talon apply -f agents/ --dry-run
      talon apply -f agents/ --prune -l managed-by=git
      cat agent.yaml | talon apply -f -
    """
    params = apply_params(dry_run=dry_run, prune=prune, selector=selector)
    sources = collect(files)

    async def work() -> dict[str, Any]:
        async with at.client() as client:
            return await apply(client, sources, at.namespace, params)

    answer = run(work())
    warn(sources, answer.get("warnings", []))
    emit(answer, output, lambda a: "\n".join(_lines(a, dry_run)))


def apply_params(*, dry_run: bool, prune: bool, selector: str) -> dict[str, str]:
    """The query of an apply. Raises `WrongUse` for a prune without a selector: that would delete everything else."""
    if prune != bool(selector):
        raise WrongUse("--prune and --selector go together: what is deleted is what has these labels and stands in no manifest")
    params = {"dry_run": "true"} if dry_run else {}
    return {**params, "prune": "true", "label_selector": selector} if prune else params


async def apply(
    client: Client, sources: Sequence[Source], namespace: str, params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Apply the documents, in one request where they fit into one; -> the server's answer. Documents without a namespace go to
    `namespace`.

    Raises `Refused` with every wrong field at its file and line, `WrongUse` for a prune that does not fit into one request.
    """
    bodies = [placed_in(namespace, source.document.data) for source in sources]
    parts = in_parts(bodies)
    params = params or {}
    if len(parts) > 1 and "prune" in params:
        raise WrongUse(f"{len(bodies)} manifests are too many for one request, and --prune needs all of them in one: prune fewer")
    whole: dict[str, Any] = {"items": [], "warnings": []}
    for number, part in enumerate(parts):
        try:
            answer = await client.call("POST", path_of("apply"), body=[bodies[place] for place in part], params=params)
        except Refused as error:
            here = [sources[place] for place in part]
            fields = tuple(FieldError("", placed(here, {"field": f.field, "message": f.message})) for f in error.errors)
            before = sum(len(one) for one in parts[:number])
            tried = _tried(before, len(bodies), dry_run="dry_run" in params)
            raise type(error)(error.code, f"{tried}; what is wrong:" if fields else f"{tried}: {error.detail}", fields) from None
        told = of_all(part, answer)
        whole = {**told, "items": whole["items"] + told["items"], "warnings": whole["warnings"] + told["warnings"]}
    return whole


def _tried(before: int, count: int, *, dry_run: bool) -> str:
    """What became of an apply of `count` manifests when what follows `before` of them was refused."""
    if dry_run:
        return (
            f"it would be refused after {before} of {count} manifests, which are not there yet" if before else "it would be refused"
        )
    return f"{before} of {count} manifests were applied, and nothing after them" if before else "nothing was applied"


async def apply_at_start(socket: Path, authorization: str, paths: Sequence[Path]) -> None:
    """What `talon up` does with the setting `apply`: apply the files and directories to the server that it has just started, over
    a socket of its own.

    What is wrong with them is said on stderr and changes nothing; the server goes on with what it has.
    """
    try:
        async with Client("http://localhost", socket=socket, authorization=authorization) as client:
            sources = collect([str(path) for path in paths])
            answer = await apply(client, sources, "default")
    except WrongUse as error:
        note("\n".join(("error: the manifests of the setting `apply` were not applied:", *error.lines)))
    except TalonError as error:
        fields = "".join(f"\n  {f.message}" for f in error.errors)
        note(f"error: the manifests of the setting `apply` were not applied: {error.detail} [{error.code}]{fields}")
    else:
        warn(sources, answer.get("warnings", []))
        for item in answer["items"]:
            if item["action"] != "unchanged":
                note(f"{name_of(item)} {item['action']}")


def _lines(answer: dict[str, Any], dry_run: bool) -> list[str]:
    lines: list[str] = []
    for item in answer["items"]:
        action = styled(item["action"], SIGNS.get(item["action"], "bold"))
        cause = f" ({item['cause']})" if item.get("cause") else ""
        lines.append(f"{name_of(item)} {action}{cause}{' (dry run)' if dry_run else ''}")
        lines += [f"  fires {time['local']} ({time['at'].replace('.000Z', 'Z')})" for time in item.get("fires", [])]
        if dry_run:
            lines += [_change(change) for change in item.get("changes", [])]
    return lines


def name_of(item: dict[str, Any]) -> str:
    """`Agent acme/customer-support`, of an item of the server's answer."""
    return f"{item['kind']} {item['namespace']}/{item['name']}" if item.get("namespace") else f"{item['kind']} {item['name']}"


def _change(change: dict[str, Any]) -> str:
    def shown(key: str) -> str:
        return one_line(as_json(change[key]), 100)

    if "before" not in change:
        return styled(f"  + {change['field']}: {shown('after')}", "green")
    if "after" not in change:
        return styled(f"  - {change['field']}: {shown('before')}", "red")
    return styled(f"  ~ {change['field']}: {shown('before')} -> {shown('after')}", "yellow")
