"""`talon diff`: what an apply would change, as a unified diff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from talon.cli.apply import apply, apply_params, name_of, prune_options
from talon.cli.connection import At, connection_options, run
from talon.cli.documents import Source, collect, placed_in, warn
from talon.cli.errors import Failed, WrongUse
from talon.cli.kinds import BY_NAME, Item
from talon.cli.objects import changed, writable
from talon.cli.output import as_yaml
from talon.cli.unified import unified
from talon.domain import errors as err

if TYPE_CHECKING:
    from talon.cli.client import Client

HIDDEN = "(hidden)"


@click.command("diff", context_settings={"max_content_width": 110})
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="DIR|FILE|-", help="manifests; may be given again")
@prune_options
@connection_options
def command(at: At, files: tuple[str, ...], prune: bool, selector: str) -> int:
    """Show what an apply would change; change nothing.

    The server says what it would do: also which agents get a new revision because their template changes, and what is wrong.
    Exit code 0: nothing would change · 1: something would · 2: wrong use, or no server · 3: the server would refuse it.

    \b
    Examples:
      talon diff -f agents/
      talon diff -f agents/ --prune -l managed-by=git
      talon diff -f agents/ && echo nothing to do
    """
    params = apply_params(dry_run=True, prune=prune, selector=selector)
    sources = collect(files)
    try:
        text, warnings = run(_diff(at, sources, params))
    except Failed as error:
        raise WrongUse(str(error)) from None  # 1 would say that something differs
    except err.TalonError as error:
        if error.exit_code == 1:
            raise WrongUse(f"{error.detail} [{error.code}]") from None
        raise
    warn(sources, warnings)
    print(text, end="")
    return 1 if text else 0


async def _diff(at: At, sources: Sequence[Source], params: dict[str, str]) -> tuple[str, list[Any]]:
    async with at.client() as client:
        answer = await apply(client, sources, at.namespace, params)
        texts = [await _item(client, at, sources, item) for item in answer["items"] if item["action"] != "unchanged"]
    return "".join(texts), answer.get("warnings", [])


async def _item(client: Client, at: At, sources: Sequence[Source], item: dict[str, Any]) -> str:
    """What happens to one resource."""
    name, number = name_of(item), int(item["document"])
    source = sources[number - 1] if number else None
    to = f"{name} ({source.file})" if source else name
    if item["action"] == "created":
        after = _as_written(source, at.namespace) if source else None
        return unified("", as_yaml(after), "/dev/null", to) if after else f"# {name} created: {item['cause']}\n"
    before = await _stored(client, at, item)
    if item["action"] == "deleted":
        return unified(as_yaml(before), "", name, "/dev/null")
    text = unified(as_yaml(before), as_yaml(changed(before, item.get("changes", []))), f"{name} (stored)", to)
    return text or f"# {name} changed: {item.get('cause') or 'what it resolves to'}\n"


async def _stored(client: Client, at: At, item: dict[str, Any]) -> Item:
    kind = BY_NAME[item["kind"].lower()]
    place = At(at.server, item["namespace"] or at.namespace)
    return writable(await client.get(kind.path(place, [item["name"]])))


def _as_written(source: Source, namespace: str) -> Any:
    """The document as it goes to the server, without what only Talon writes and without a secret's value."""
    data = placed_in(namespace, source.document.data)
    if "kind" not in data:
        return data
    shown = writable(data)
    if data["kind"] == "Secret" and isinstance(shown.get("spec"), dict) and "value" in shown["spec"]:
        shown["spec"] = {**shown["spec"], "value": HIDDEN}
    return shown
