"""`talon edit`: change a resource in an editor. What was typed is never lost, and never overwrites what somebody else changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.kinds import Item, resource_of
from talon.cli.merge import merge
from talon.cli.objects import label, writable
from talon.cli.output import as_yaml, note
from talon.domain import errors as err

#: Begins the lines that are ours: they are not part of the manifest.
MARK = "#| "
#: An editor that is a program, not a person, may never come to an end.
ROUNDS_MAX = 20
FALLBACKS = ("editor", "nano", "vi")


@click.command("edit", context_settings={"max_content_width": 110})
@click.argument("kind")
@click.argument("name", required=False)
@connection_options
def command(at: At, kind: str, name: str | None) -> None:
    """Change a resource in an editor ($VISUAL, $EDITOR).

    Saved and closed, it is applied; closed without a change, it stays as it is. What the server refuses is opened again with its
    errors on top. What others changed in the meantime is kept: only where both changed the same field you are asked. Text that
    could not be applied stays in a file, which is named.

    \b
    Examples:
      talon edit agent customer-support
      EDITOR="code --wait" talon edit template customer-support -n acme
    """
    found, names = resource_of(kind, name, "edited")
    if not found.is_resource:
        raise WrongUse("a session is not edited; change it with: talon patch session AGENT/SESSION -p '{\"metadata\": …}'")
    editor = _editor()
    path = found.path(at, names)

    def load() -> Item:
        return run(_get(at, path))

    Edit(at, path, load()).go(editor, load)


async def _get(at: At, path: str) -> Any:
    async with at.client() as client:
        return await client.get(path)


async def _put(at: At, path: str, body: Any, version: str) -> Any:
    async with at.client() as client:
        return await client.call("PUT", path, body=body, if_match=version)


class Edit:
    """One resource on its way through the editor. `base` is as it was read; `text` is what the user sees, without our lines."""

    def __init__(self, at: At, path: str, base: Item) -> None:
        self._at, self._path, self._base = at, path, base
        self._text = as_yaml(writable(base))
        self._problem: list[str] = []
        self._last_error: Exception | None = None
        handle, name = tempfile.mkstemp(prefix=f"talon-edit-{base['metadata']['name']}-", suffix=".yaml")
        os.close(handle)
        self._file = Path(name)

    def go(self, editor: str, load: Callable[[], Item]) -> None:
        """Edit and apply until it is accepted or given up. What was typed and not applied is left in the file, which is named."""
        typed = False
        try:
            for _ in range(ROUNDS_MAX):
                shown = self._shown()
                edited = _edited(editor, self._file, shown)
                if edited == shown or not _stripped(edited).strip():
                    break
                typed, self._text = True, _stripped(edited)
                if self._apply(load):
                    typed = False
                    return
            if self._last_error is not None:
                raise self._last_error
            note(f"{label(self._base)} is left as it is")
            typed = False
        finally:
            if typed:
                self._file.write_text(self._text, encoding="utf-8")
                note(f"your text is kept: {self._file}")
            else:
                self._file.unlink(missing_ok=True)

    def _shown(self) -> str:
        head = [f"{label(self._base)}, version {self._base['metadata']['resourceVersion']}.", *(self._problem or HELP)]
        return "".join(f"{MARK}{line}\n" for line in head) + self._text

    def _apply(self, load: Callable[[], Item]) -> bool:
        """Whether the text was applied; if not, why is in `_problem`."""
        try:
            mine = _one(self._text)
            while True:
                version = self._base["metadata"]["resourceVersion"]
                try:
                    after = run(_put(self._at, self._path, mine, version))
                    break
                except err.Refused as error:
                    if error.code != "precondition_failed":
                        raise
                    mine, conflicts = self._merged(mine, load())
                    if conflicts:
                        self._text, self._last_error = as_yaml(mine), error
                        self._problem = conflicts
                        return False
        except err.Refused as error:
            self._last_error = error
            self._problem = ["NOT APPLIED:", *_lines(error), "Correct it, save and close; or close without a change to give up."]
            return False
        same = after["metadata"]["resourceVersion"] == version
        print(f"{label(after)} {'unchanged' if same else 'changed'}")
        return True

    def _merged(self, mine: Any, fresh: Item) -> tuple[Any, list[str]]:
        """The user's changes on top of what others made of it; and what is to be said where both changed the same."""
        merged, conflicts = merge(writable(self._base), mine, writable(fresh))
        self._base = fresh
        note(f"{label(fresh)} was changed in the meantime (version {fresh['metadata']['resourceVersion']})")
        if not conflicts:
            return merged, []
        said = [f"  {one.field}: it is now {one.theirs}; you write {one.mine}" for one in conflicts]
        return merged, [
            "NOT APPLIED: somebody else changed the same fields in the meantime:",
            *said,
            "To have yours, delete these lines, save and close; or close without a change to give up.",
        ]


HELP = ("Save and close to apply it; close without a change to leave it as it is.",)


def _lines(error: err.Refused) -> list[str]:
    fields = [f"  {one.field + ': ' if one.field else ''}{one.message}" for one in error.errors]
    return [line for text in (fields or [error.detail]) for line in text.splitlines()]


def _one(text: str) -> Any:
    """The one document of the text. Raises `Refused` for what cannot be read."""
    from talon.manifest.parse import parse

    documents = parse(text.encode(), "yaml")
    if len(documents) != 1:
        raise err.Malformed("malformed", f"{len(documents)} documents where one is expected")
    if documents[0].problems:
        raise err.Invalid("invalid", "the text is wrong", documents[0].problems)
    return documents[0].data


def _stripped(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(MARK.rstrip()))


def _leave_alone(_signal: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN: that the editor would inherit."""


def _editor() -> str:
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or next((e for e in FALLBACKS if shutil.which(e)), "")
    if not chosen:
        raise WrongUse("no editor: set EDITOR, for example EDITOR=nano")
    return chosen


def _edited(editor: str, file: Path, text: str) -> str:
    """What the editor makes of the text. Ctrl-C in it is the editor's, not ours."""
    file.write_text(text, encoding="utf-8")
    before = signal.signal(signal.SIGINT, _leave_alone)
    try:
        status = subprocess.run(["sh", "-c", f'{editor} "$1"', "sh", str(file)], check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if status in (126, 127):
        raise WrongUse(f"the editor {editor!r} cannot be run: set EDITOR")
    if status:
        raise Failed(f"the editor {editor!r} ended with status {status}; nothing was applied")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file}: cannot be read: {error}") from None
