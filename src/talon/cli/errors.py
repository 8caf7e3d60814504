"""What the command line itself finds wrong, before any server is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

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


@contextlib.contextmanager
def found_here() -> Generator[None]:
    """What a room below refuses while this process starts is a mistake of its own files or settings: nobody else refused it."""
    try:
        yield
    except Refused as error:
        raise WrongUse(error.detail) from None
