"""`talon version`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from talon.cli.output import emit, output_option


@click.command("version")
@output_option
def command(output: str) -> None:
    """Show the version of Talon and of the Python under it.

    \b
    Examples:
      talon version
      talon version -o json
    """
    data = {"version": version("talon-runtime"), "python": platform.python_version(), "platform": platform.platform(terse=True)}
    emit(data, output, lambda d: f"talon {d['version']} (Python {d['python']}, {d['platform']})")
