"""`talon patch` and `talon label`: change a few fields of a resource, leave the others to whoever changes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import WrongUse
from talon.cli.kinds import Kind, resource_of
from talon.cli.objects import label as label_of
from talon.cli.output import as_json, as_yaml
from talon.domain.errors import TalonError

MERGE_PATCH = "application/merge-patch+json"


@click.command("patch", context_settings={"max_content_width": 110})
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-p", "--patch", "text", metavar="JSON|YAML", help="the fields to change; null removes one")
@click.option("-f", "--file", "file", metavar="FILE|-", help="the same from a file")
@click.option(
    "-o", "--output", type=click.Choice(["words", "yaml", "json"]), default="words", show_default=True, help="what to write"
)
@connection_options
def command(at: At, kind: str, name: str | None, text: str | None, file: str | None, output: str) -> None:
    """Change fields of a resource or session by a merge patch (RFC 7396): objects are merged, lists are replaced.

    \b
    Examples:
      talon patch agent customer-support -p '{"spec": {"features": {"tone": "warm"}}}'
      talon patch template customer-support -p 'definition: {customSpec: {systemPrompt: Be brief.}}'
      talon patch session customer-support/renewals -p '{"metadata": {"owner": "sales"}}'
    """
    found, names = resource_of(kind, name, "patched")
    after, changed = run(_patch(at, found, names, _body(text, file)))
    if output == "words":
        name = label_of(after) if found.is_resource else f"Session {at.namespace}/{'/'.join(names)}"
        print(f"{name} {'changed' if changed else 'unchanged'}")
    else:
        print(as_json(after, indent=2) if output == "json" else as_yaml(after).removesuffix("\n"))


@click.command("label", context_settings={"max_content_width": 110})
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME KEY=VALUE… KEY-…")
@connection_options
def label(at: At, words: tuple[str, ...]) -> None:
    """Set labels of a resource, or take them away (KEY-).

    \b
    Examples:
      talon label agent customer-support app=support tier=gold
      talon label agent/customer-support tier-
    """
    rest = words[1:] if "/" in words[0] else words[2:]
    found, names = resource_of(words[0], None if "/" in words[0] else words[1] if len(words) > 1 else None, "labelled")
    if not found.is_resource:
        raise WrongUse(f"{found.plural} have no labels")
    after, changed = run(_patch(at, found, names, {"metadata": {"labels": _labels(rest)}}))
    print(f"{label_of(after)} {'labelled' if changed else 'unchanged'}")


def _labels(words: Sequence[str]) -> dict[str, str | None]:
    labels: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not word.endswith("-"):
            raise WrongUse(f"{word!r}: expected KEY=VALUE, or KEY- to take it away")
        labels[key if equals else word[:-1]] = value if equals else None
    if not labels:
        raise WrongUse("expected KEY=VALUE, or KEY- to take it away")
    return labels


async def _patch(at: At, kind: Kind, names: Sequence[str], body: Any) -> tuple[Any, bool]:
    """-> (what it is now, whether it was something else before)."""
    path = kind.path(at, names)
    async with at.client() as client:
        before = await client.get(path)
        if not kind.is_resource:
            after = await client.call("PATCH", path, body=body)
            return after, {**before, "updated_at": ""} != {**after, "updated_at": ""}
        after = await client.call("PATCH", path, text=(MERGE_PATCH, as_json(body).encode()))
        return after, before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]


def _body(text: str | None, file: str | None) -> Any:
    """The patch of `--patch` or `--file`, JSON or YAML."""
    from talon.manifest.parse import parse

    if (text is None) == (file is None):
        raise WrongUse("expected one of --patch and --file")
    option = "--patch" if file is None else f"--file {file}"
    try:
        documents = parse((text or "").encode() if file is None else _read(file), "yaml")
    except OSError as error:
        raise WrongUse(f"{option}: cannot be read: {error.strerror}") from None
    except TalonError as error:
        raise WrongUse(f"{option}: {error.detail}") from None
    if problems := [problem.message for document in documents for problem in document.problems]:
        raise WrongUse(*(f"{option}: {problem}" for problem in problems))
    data: Any = documents[0].data if len(documents) == 1 else None
    if not isinstance(data, dict):
        raise WrongUse(f"{option}: expected one object with the fields to change")
    return cast(Any, data)


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
