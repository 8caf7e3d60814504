"""The readable result: what was reached, and every subject's numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.stats import median
from bench.targets import Rounds, Row, Value

COLUMNS: tuple[tuple[str, str], ...] = (
    ("turns/s", "turns_s"),
    ("done p50 ms", "done_ms.p50"),
    ("p99 ms", "done_ms.p99"),
    ("first p50 ms", "first_ms.p50"),
    ("first p95 ms", "first_ms.p95"),
    ("CPU ms/turn", "cpu_ms"),
    ("database", "database_cpu_ms"),
    ("commits/turn", "commits"),
    ("fsyncs/turn", "fsyncs"),
    ("WAL B/turn", "wal_bytes"),
    ("wall s", "wall_s"),
    ("peak MiB", "peak_mib"),
    ("errors", "errors"),
)


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as it is: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    pad: Callable[[int, str], str] = lambda column, text: (text.rjust if column else text.ljust)(widths[column])  # noqa: E731
    lines = ["| " + " | ".join(pad(column, text) for column, text in enumerate(row)) + " |" for row in (head, *rows)]
    rule = "| " + " | ".join("-" * (width - 1) + (":" if column else "-") for column, width in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def render(document: Mapping[str, Any], rounds: Rounds, rows: Sequence[Row]) -> str:
    """The whole result as Markdown."""
    facts = {**document["machine"], "database": f"PostgreSQL {document['postgres']}, its defaults, fsync on"}
    parts = [
        f"# Bench, {document['date']}, commit {document['commit']}",
        "One turn is message → model → tool → model → answer; the model takes 0 ms unless said; a new session for each turn; "
        f"PostgreSQL unless said. {len(rounds)} paired rounds, interleaved; a ratio is the median of the rounds' ratios. "
        'Wall times that differ by less than 1.3 × are marked "no difference".',
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## Targets",
        grid(("measure", "value", "at least", "reached", "aim", "reached", "remark"), [_target(row) for row in rows]),
    ]
    for name in dict.fromkeys(name for one in rounds for subject in one.values() for name in subject):
        parts += [f"## {name[0].upper()}{name[1:]}", _measure(name, rounds)]
    return "\n\n".join(parts) + "\n"


def _target(row: Row) -> tuple[str, ...]:
    target = row.target
    said = {True: "yes", False: "NO", None: "–"}
    unit = target.unit
    value = number(row.value) + (unit if row.value is not None else "")
    return (
        target.what,
        value,
        number(target.least) + unit,
        said[row.reached],
        number(target.aim) + unit,
        said[row.aimed],
        row.remark,
    )


def _measure(name: str, rounds: Rounds) -> str:
    """Every subject's medians in one measurement."""
    subjects = [subject for subject in rounds[0] if name in rounds[0][subject]]
    fields = _fields(rounds, subjects, name)
    rows = [(subject, *(_median(Value(subject, name, field), rounds) for _, field in fields)) for subject in subjects]
    return grid(("", *(title for title, _ in fields)), rows)


def _fields(rounds: Rounds, subjects: Sequence[str], name: str) -> list[tuple[str, str]]:
    """The columns that have a value; a measurement with none of the usual ones shows its own."""
    usual = [
        column
        for column in COLUMNS
        if any(value is not None for subject in subjects for value in Value(subject, name, column[1]).of(rounds))
    ]
    own: list[tuple[str, str]] = []
    for key, value in rounds[0][subjects[0]][name].items():
        if key.endswith("_of_turn"):
            own += [(f"{key.partition('_')[0]} of turn {turn}", f"{key}.{turn}") for turn in value]
        elif not usual and isinstance(value, int | float):
            own.append((key, key))
    return own or usual


def _median(value: Value, rounds: Rounds) -> str:
    known = [one for one in value.of(rounds) if one is not None]
    return number(median(known)) if known else "–"
