"""`talon init`: a first agent that answers at once, in files that explain themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from talon.cli.errors import WrongUse
from talon.cli.output import note
from talon.cli.schema import schema_text

#: What the first line of the manifests names, so that editors complete and check them.
SCHEMA = ".talon/manifest.schema.json"


@click.command("init")
@click.argument("directory", default=".", metavar="[DIR]")
@click.option("--force", is_flag=True, help="overwrite files that are there")
def command(directory: str, force: bool) -> None:
    """Write a first agent, its tools and talon.yaml into DIR (default: here).

    The agent answers from a script, so that no key is needed; the README says how to give it a real model.

    \b
    Examples:
      talon init hello
      talon init --force
    """
    target = Path(directory)
    scaffold = {name: file.read_bytes() for name, file in _files(files("talon.cli") / "scaffold", "")}
    scaffold[SCHEMA] = schema_text("Manifest").encode()
    there = [name for name in scaffold if (target / name).exists()]
    if there and not force:
        listed = ", ".join(str(target / name) for name in there)
        raise WrongUse(f"these exist already: {listed}", "choose another directory, or overwrite them with --force")
    try:
        for name, data in scaffold.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
            print(target / name)
    except OSError as error:
        raise WrongUse(f"{error.filename}: cannot be written: {error.strerror}") from None
    change = "" if target.resolve() == Path.cwd() else f"cd {target} && "
    note(f"\nnext:  {change}talon up\nthen:  talon chat assistant     (in another terminal; it answers without a key)")


def _files(directory: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry
