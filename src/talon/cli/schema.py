"""`talon schema`: the JSON Schemas of manifests, for editors, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from talon.cli.errors import WrongUse
from talon.cli.kinds import declared_kind
from talon.cli.output import as_json


@click.command("schema", context_settings={"max_content_width": 110})
@click.argument("kind", required=False)
@click.option("-o", "--output", "directory", metavar="DIR", help="write the schemas of all kinds, and of any manifest, into DIR")
def command(kind: str | None, directory: str | None) -> None:
    """Write the JSON Schema (2020-12) of a kind; without KIND, of any manifest.

    It needs no server. Editors with the YAML language server take it from a line at the head of a manifest:
    # yaml-language-server: $schema=manifest.schema.json

    \b
    Examples:
      talon schema agent
      talon schema > manifest.schema.json
      talon schema -o schemas/
    """
    from talon.manifest.schemas import ANY, NAMES

    if directory is None:
        print(schema_text(_name(kind) if kind else ANY), end="")
        return
    if kind:
        raise WrongUse("--output writes the schemas of all kinds; it goes with no KIND")
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            path = Path(directory) / file_name(name)
            path.write_text(schema_text(name), encoding="utf-8")
            print(path)
    except OSError as error:
        raise WrongUse(f"{error.filename}: cannot be written: {error.strerror}") from None


def schema_text(name: str) -> str:
    """A schema as the text of a file."""
    from talon.manifest.schemas import schema

    return as_json(schema(name), indent=2) + "\n"


def file_name(name: str) -> str:
    """`agent.schema.json`."""
    return f"{name.lower()}.schema.json"


def _name(kind: str) -> str:
    from talon.manifest.schemas import ANY

    if kind.lower() == ANY.lower():
        return ANY
    return declared_kind(kind, "schema").manifest
