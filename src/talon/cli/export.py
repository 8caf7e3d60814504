"""`talon export`: a namespace as manifests, one file for each, that apply again."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from talon.cli.client import path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.kinds import BY_NAME, KINDS
from talon.cli.output import note
from talon.cli.text import counted

_BETWEEN = re.compile(rb"^---[ \t]*\r?\n", re.MULTILINE)
#: What an export consists of, and what --force replaces: nothing else in the directory is touched.
OWN = ("namespace.yaml", *(kind.plural for kind in KINDS if kind.is_resource))


@click.command("export")
@click.argument("name", metavar="NAMESPACE")
@click.option("-o", "--output", "directory", metavar="DIR", help="one file for each resource, in directories by kind [stdout]")
@click.option("--force", is_flag=True, help="replace an earlier export in DIR; other files there stay")
@connection_options
def command(at: At, name: str, directory: str | None, force: bool) -> None:
    """Write a namespace as manifests: to standard output, or one file for each resource.

    They apply again, here or elsewhere: talon apply -f DIR. The values of secrets are not in them, and sessions are not: what they
    are is their journal. Namespaces that lie in it (acme:eu in acme) are exported by themselves. The files come all or not at all.

    \b
    Examples:
      talon export acme > acme.yaml
      talon export acme -o acme/
      talon export acme -o acme/ --force && git diff acme/
    """
    target = Path(directory).resolve() if directory else None
    if target is not None:
        check_target(target, force)

    async def work() -> bytes:
        async with at.client() as client:
            return await client.text(path_of("ns", name, "export"), "application/yaml")

    text = run(work())
    if target is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        return
    files = dict(_files(text))
    try:
        write_files(target, files)
    except OSError as error:
        raise Failed(f"{error.filename or target}: cannot be written: {error.strerror}; nothing was exported") from None
    for file in sorted(files):
        print(Path(directory or "") / file)
    note(f"{counted(len(files), 'resource')}; to apply them again: talon apply -f {directory}")


def check_target(target: Path, force: bool) -> None:
    """Raise `WrongUse` for a place that is no directory, or that has something in it and may not be replaced."""
    if target.exists() and not target.is_dir():
        raise WrongUse(f"{target} is no directory")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise WrongUse(f"{target} is not empty", "choose another directory, or replace an earlier export there with --force")


def _files(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Each document with its file: `agents/customer-support.yaml`."""
    from talon.manifest.parse import parse

    for chunk in _BETWEEN.split(text):
        if not chunk.strip():
            continue
        (document,) = parse(chunk, "yaml")
        name = document.data["metadata"]["name"]
        kind = BY_NAME[document.data["kind"].lower()]
        yield ("namespace.yaml" if kind.manifest == "Namespace" else f"{kind.plural}/{name}.yaml"), chunk


def write_files(target: Path, files: dict[str, bytes]) -> None:
    """Write all files beside `target`, then put them in its place: whoever interrupts it leaves what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = stage / "new"
        for name, text in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        if not target.exists() or not any(target.iterdir()):
            fresh.replace(target)
        else:
            _exchange(target, fresh, stage / "old")
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _exchange(target: Path, fresh: Path, old: Path) -> None:
    """Put the parts of an export in the places of those of an earlier one; on a failure everything goes back."""
    old.mkdir()
    moves: list[tuple[Path, Path]] = []

    def move(what: Path, where: Path) -> None:
        if os.path.lexists(what):
            what.replace(where)
            moves.append((what, where))

    try:
        for part in OWN:
            move(target / part, old / part)
            move(fresh / part, target / part)
    except BaseException:
        for what, where in reversed(moves):
            where.replace(what)
        raise
