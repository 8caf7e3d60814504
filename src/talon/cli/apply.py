"""`talon apply`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from talon.cli.client import Client, path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.documents import Source, collect, said
from talon.cli.errors import WrongUse
from talon.cli.output import as_json, emit, note, output_option
from talon.cli.text import one_line, styled
from talon.domain.errors import FieldError, Refused, TalonError

_DOCUMENT = re.compile(r"document (\d+)")
SIGNS = {"created": "green", "changed": "yellow", "unchanged": "dim"}


@click.command("apply")
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="DIR|FILE|-", help="manifests; may be given again")
@click.option("--dry-run", is_flag=True, help="show what would change, change nothing")
@output_option
@connection_options
def command(at: At, files: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Create or change what manifests describe: all of it, or nothing.

    A directory is read with everything below it: *.yaml, *.yml, *.json (talon.yaml is left out).

    \b
    Examples:
      talon apply -f agents/
      talon apply -f agents/ --dry-run
      cat agent.yaml | talon apply -f -
    """
    sources = collect(files)

    async def work() -> dict[str, Any]:
        async with at.client() as client:
            return await apply(client, sources, at.namespace, dry_run=dry_run)

    answer = run(work())
    for warning in answer.get("warnings", []):
        note(f"warning: {_placed(sources, warning)}")
    emit(answer, output, lambda a: "\n".join(_lines(a, dry_run)))


async def apply(client: Client, sources: Sequence[Source], namespace: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Apply the documents in one request; -> the server's answer. Documents without a namespace go to `namespace`.

    Raises `Refused` with every wrong field at its file and line.
    """
    params = {"dry_run": "true"} if dry_run else {}
    body = [_placed_in(namespace, source.document.data) for source in sources]
    try:
        return await client.call("POST", path_of("apply"), body=body, params=params)
    except Refused as error:
        fields = tuple(FieldError("", _placed(sources, {"field": f.field, "message": f.message})) for f in error.errors)
        detail = "nothing was applied; what is wrong:" if fields else error.detail
        raise type(error)(error.code, detail, fields) from None


async def apply_at_start(server: str, paths: Sequence[Path]) -> None:
    """What `talon up` does with the setting `apply`: apply the files and directories to the server that it has just started.

    What is wrong with them is said on stderr and changes nothing; the server goes on with what it has.
    """
    try:
        async with Client(server) as client:
            sources = collect([str(path) for path in paths])
            answer = await apply(client, sources, "default")
    except WrongUse as error:
        note("\n".join(("error: the manifests of the setting `apply` were not applied:", *error.lines)))
    except TalonError as error:
        fields = "".join(f"\n  {f.message}" for f in error.errors)
        note(f"error: the manifests of the setting `apply` were not applied: {error.detail} [{error.code}]{fields}")
    else:
        for warning in answer.get("warnings", []):
            note(f"warning: {_placed(sources, warning)}")
        for item in answer["items"]:
            if item["action"] != "unchanged":
                note(f"{_name(item)} {item['action']}")


def _placed_in(namespace: str, document: Any) -> Any:
    """The document with `namespace` where it names none; what is no manifest goes as it is, for the server to refuse."""
    if not isinstance(document, dict):
        return document
    data = cast(dict[str, Any], document)
    metadata: Any = data.get("metadata")
    if "kind" not in data:
        return {"ns": namespace, **data}
    if data["kind"] == "Namespace" or not isinstance(metadata, dict):
        return data
    return {**data, "metadata": {"namespace": namespace, **cast(dict[str, Any], metadata)}}


def _placed(sources: Sequence[Source], problem: dict[str, Any]) -> str:
    """A remark of the server about `document N`, at the file and line where that stands."""
    field, message = str(problem.get("field") or ""), str(problem["message"])
    number = _DOCUMENT.match(message)
    if number is None or not 0 < int(number[1]) <= len(sources):
        return f"{field + ': ' if field else ''}{message}"
    return said(sources[int(number[1]) - 1], FieldError(field, message))


def _lines(answer: dict[str, Any], dry_run: bool) -> list[str]:
    lines: list[str] = []
    for item in answer["items"]:
        action = styled(item["action"], SIGNS.get(item["action"], "bold"))
        cause = f" ({item['cause']})" if item.get("cause") else ""
        lines.append(f"{_name(item)} {action}{cause}{' (dry run)' if dry_run else ''}")
        if dry_run:
            lines += [_change(change) for change in item.get("changes", [])]
    return lines


def _name(item: dict[str, Any]) -> str:
    return f"{item['kind']} {item['namespace']}/{item['name']}" if item.get("namespace") else f"{item['kind']} {item['name']}"


def _change(change: dict[str, Any]) -> str:
    def shown(key: str) -> str:
        return one_line(as_json(change[key]), 100)

    if "before" not in change:
        return styled(f"  + {change['field']}: {shown('after')}", "green")
    if "after" not in change:
        return styled(f"  - {change['field']}: {shown('before')}", "red")
    return styled(f"  ~ {change['field']}: {shown('before')} -> {shown('after')}", "yellow")
