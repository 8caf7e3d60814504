"""A session's own wishes (its `config`) as flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

#: Flag -> the field of the config.
_FIELDS = {"model": "model", "thinking_level": "thinkingLevel", "verbose_level": "verboseLevel"}


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--model`, `--thinking-level` and `--verbose-level`, for a command that takes them as a mapping of options."""
    for option in reversed(
        (
            click.option(
                "--model", metavar="NAME", help="the session's model, asked first: provider/model, or a profile's or model's name"
            ),
            click.option(
                "--thinking-level", type=click.Choice(("off", "low", "medium", "high")), help="how much the session's models think"
            ),
            click.option(
                "--verbose-level/--no-verbose-level", default=None, help="whether visible thoughts are streamed and kept [they are]"
            ),
        )
    ):
        command = option(command)
    return command


def config_of(options: dict[str, Any]) -> dict[str, Any]:
    """What was given of them, as the API calls it; what was not given is not in it."""
    return {field: options[name] for name, field in _FIELDS.items() if options.get(name) is not None}
