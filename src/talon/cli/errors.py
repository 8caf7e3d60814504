"""What the command line itself finds wrong, before any server is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from talon.domain.errors import Refused


class WrongUse(Exception):
    """The command, its flags, a file or a setting is wrong: exit code 2. `lines` are shown to the user, one per mistake."""

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Failed(Exception):
    """The command did its work and the answer is a failure (a turn that did not complete): exit code 1."""

    exit_code = 1


def make_data_dir(directory: Path) -> None:
    """Make the data directory and those above it, if they are not there. Raises `WrongUse` if it cannot be made."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror
        raise WrongUse(f"data_dir: {directory} cannot be made: {why}; choose another --data-dir") from None


@contextlib.contextmanager
def found_here() -> Generator[None]:
    """What a room below refuses while this process starts is a mistake of its own files or settings: nobody else refused it."""
    try:
        yield
    except Refused as error:
        raise WrongUse(error.detail) from None
