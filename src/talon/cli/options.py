"""Flags of settings for click commands, made from the table: no setting is forgotten, none is written twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from talon.cli import leaves
from talon.cli.load import Loaded, load

NAMES = (
    "Each of these settings can stand in talon.yaml and in the environment too: --worker-drain-timeout-s is worker.drain_timeout_s "
    "in the file and TALON_WORKER_DRAIN_TIMEOUT_S in the environment. Flags win over the environment, the environment wins over "
    "the file. Providers have names of your own: providers.NAME.base_url, TALON_PROVIDERS_NAME_BASE_URL, "
    "--set providers.NAME.base_url=URL."
)


class SettingsCommand(click.Command):
    """A command whose help shows its settings group by group, after its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):  # the usage line has that
                continue
            path = _path_of(param.name or "")
            title = leaves.group_title(leaves.group_of(path)) if path in leaves.leaves() else "Options"
            sections.setdefault(title, []).append(record)
        for title in sorted(sections, key=lambda t: t != "Options"):
            with formatter.section(title):
                formatter.write_dl(sections[title])
        with formatter.section("Names"):
            formatter.write_text(NAMES)


def _param(path: str) -> str:
    return "setting__" + path.replace(".", "__")


def _path_of(param: str) -> str:
    return param.removeprefix("setting__").replace("__", ".") if param.startswith("setting__") else ""


def _option(leaf: leaves.Leaf) -> click.Option:
    short = leaves.SHORT_FLAGS.get(leaf.path)
    names = [short] if short and short != leaf.flag else []
    default = f" [{leaf.default()}]" if leaf.default() else ""
    later = " (not active in this version)" if leaf.extra.get("inactive") else ""
    kind = "LIST" if leaf.is_list else "N" if leaf.is_number else "true|false" if leaf.type is bool else "TEXT"
    metavar = "|".join(leaf.choices) or kind
    return click.Option([*names, leaf.flag, _param(leaf.path)], metavar=metavar, help=f"{leaf.info.description}{default}{later}")


def settings_options(only: Iterable[str] | None = None) -> Callable[[click.Command], click.Command]:
    """Give a command (of class `SettingsCommand`) `--config`, `--set` and the flags of all settings, or those of
    some groups or paths. Its callback receives them as `loaded: Loaded` in their place.

    Warnings go to stderr before the command begins. Mistakes are `WrongUse`, exit code 2.
    """
    wanted = None if only is None else set(only)

    def decorate(command: click.Command) -> click.Command:
        command.params.append(
            click.Option(["--config", "config"], metavar="FILE", help="settings file [TALON_CONFIG, else talon.yaml here]")
        )
        command.params.append(
            click.Option(
                ["--set", "sets"], multiple=True, metavar="PATH=VALUE", help="any setting: --set providers.acme.base_url=…"
            )
        )
        for leaf in leaves.leaves().values():
            if leaf.flag and (wanted is None or wanted & {leaf.path, leaves.group_of(leaf.path)}):
                command.params.append(_option(leaf))
        inner = command.callback
        if inner is None:
            raise TypeError("the command has no callback")

        def callback(config: str | None, sets: tuple[str, ...], **kwargs: Any) -> Any:
            flags: dict[str, str] = {}
            for name in list(kwargs):
                if path := _path_of(name):
                    value = kwargs.pop(name)
                    if value is not None:
                        flags[path] = value
            loaded = load(flags, sets, environ=os.environ, config=Path(config) if config else None)
            warn(loaded)
            return inner(loaded=loaded, **kwargs)

        command.callback = callback
        return command

    return decorate


def warn(loaded: Loaded) -> None:
    """Write the warnings to stderr, one line each."""
    for line in loaded.warnings:
        print(f"warning: {line}", file=sys.stderr)
