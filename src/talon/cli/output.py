"""Data to stdout in the form that was asked for; everything else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from talon.cli.text import columns, escaped, one_line, safe, styled

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True, help="form of the output"
)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "") -> str:
    """Aligned columns. `empty` is said on stderr when there are no rows, so that stdout stays data."""
    if not rows:
        if empty:
            note(empty)
        return ""
    cells = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _fit_last(headers, cells, shutil.get_terminal_size().columns)
    widths = [max(columns(header), *(columns(row[i]) for row in cells)) for i, header in enumerate(headers)]
    head = "  ".join(styled(h + " " * (w - columns(h)), "bold") for h, w in zip(headers, widths, strict=True))
    body = ["  ".join(c + " " * (w - columns(c)) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([head.rstrip(), *body])


def _fit_last(headers: Sequence[str], cells: list[list[str]], width: int) -> None:
    """Cut the last column so that a row stays on one line of the terminal, if at least some of it fits."""
    before = sum(max(columns(headers[i]), *(columns(row[i]) for row in cells)) + 2 for i in range(len(headers) - 1))
    for row in cells:
        row[-1] = one_line(row[-1], max(width - before, 20))


def cell(value: Any) -> str:
    """A value as a table shows it: on one line, `-` for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return one_line(str(value), 80)


def emit(data: Any, output: str, as_table: Callable[[Any], str]) -> None:
    """Write `data` to stdout: as JSON, as YAML, or as the text that `as_table` makes of it (from `table`, or of safe texts)."""
    if output == "json":
        print(as_json(data, indent=2))
    elif output == "yaml":
        print(as_yaml(data), end="")
    elif text := as_table(data):
        print(text)


def as_json(data: Any, indent: int | None = None) -> str:
    """JSON; what could drive a terminal is escaped, other text stays readable."""
    return escaped(json.dumps(data, indent=indent, ensure_ascii=not _utf8()))


def as_yaml(data: Any) -> str:
    """Readable YAML that reads back as it was: keys in their order, texts of several lines as blocks; what could drive a terminal
    is quoted and escaped."""
    import yaml

    from talon.manifest.quoting import style_of

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if safe(value) != value else style_of(value)
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)  # pyright: ignore[reportUnknownMemberType]

    Dumper.add_representer(str, text)
    return escaped(yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=_utf8(), width=120))


def note(text: str) -> None:
    """A remark for people: to stderr."""
    print(safe(text), file=sys.stderr)


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
