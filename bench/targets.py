"""What has to be reached, and whether it was. Pure: rounds of readings in, rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bench.stats import is_noise, median, median_ratio

#: round -> subject -> measurement -> readings.
Rounds = Sequence[Mapping[str, Mapping[str, Mapping[str, Any]]]]


@dataclass(frozen=True)
class Value:
    """A number in a round's readings; `field` may go down with dots."""

    subject: str
    measure: str
    field: str

    def of(self, rounds: Rounds) -> list[float | None]:
        """It in each round; None where it was not measured."""
        found: list[float | None] = []
        for one in rounds:
            value: Any = one.get(self.subject, {}).get(self.measure, {})
            for key in self.field.split("."):
                value = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else None
            found.append(float(value) if isinstance(value, int | float) else None)
        return found


@dataclass(frozen=True)
class Target:
    """`ours`, divided by `base` if there is one, has to reach `least`, and should reach `aim`. `up`: more is better.

    `wall`: the ratio is one of wall times, in which small differences mean nothing.
    """

    what: str
    ours: Value
    base: Value | None
    least: float
    aim: float
    unit: str = ""
    up: bool = False
    wall: bool = False


@dataclass(frozen=True)
class Row:
    """How a target stands: its value (None: not measured), and whether it is reached."""

    target: Target
    value: float | None
    reached: bool | None
    aimed: bool | None
    remark: str


def _talon(measure: str, field: str) -> Value:
    return Value("talon", measure, field)


def _wall(what: str, measure: str, field: str, peer: str, least: float, aim: float, up: bool = False) -> Target:
    """A ratio of wall times to a peer in the same measurement."""
    return Target(f"{what} / {peer}", _talon(measure, field), Value(peer, measure, field), least, aim, " ×", up, wall=True)


def _most(what: str, measure: str, field: str, least: float, aim: float, unit: str = "") -> Target:
    """An absolute bound."""
    return Target(what, _talon(measure, field), None, least, aim, unit)


WAL = "wal_bytes"
TARGETS = (
    _wall("turns/s, 16 sessions", "16 sessions", "turns_s", "langgraph", 5, 10, up=True),
    _wall("turns/s, 16 sessions", "16 sessions", "turns_s", "steps", 0.6, 1.1, up=True),
    _wall("turns/s, 64 sessions", "64 sessions", "turns_s", "langgraph", 8, 15, up=True),
    _wall("turns/s, 64 sessions", "64 sessions", "turns_s", "steps", 1.0, 2.0, up=True),
    _wall("posted → done p50, one session", "1 session", "done_ms.p50", "langgraph", 0.5, 0.35),
    _wall("posted → done p50, one session", "1 session", "done_ms.p50", "steps", 1.5, 1.0),
    Target(
        "CPU per turn of the process, 16 sessions / langgraph",
        _talon("16 sessions", "cpu_ms"),
        Value("langgraph", "16 sessions", "cpu_ms"),
        0.2,
        0.1,
        " ×",
    ),
    _most("commits per turn, 1 session", "1 session", "commits", 5, 4),
    _most("commits per turn, 16 sessions", "16 sessions", "commits", 1.8, 1.2),
    _most("commits per turn, 64 sessions", "64 sessions", "commits", 0.6, 0.3),
    Target("WAL bytes per turn / langgraph", _talon("16 sessions", WAL), Value("langgraph", "16 sessions", WAL), 0.4, 0.3, " ×"),
    Target(
        "WAL bytes of a turn streamed by tokens / langgraph's turn, not streamed",
        _talon("tokens, 1 session", WAL),
        Value("langgraph", "1 session", WAL),
        0.7,
        0.5,
        " ×",
    ),
    Target(
        "WAL bytes of turn 200 / turn 1",
        _talon("one long session", "wal_of_turn.200"),
        _talon("one long session", "wal_of_turn.1"),
        1.2,
        1.05,
        " ×",
    ),
    _wall("turns/s, model of 300 ms, 64 sessions", "model of 300 ms", "turns_s", "bare", 0.97, 0.99, up=True),
    _wall("first token p50, 1 session", "tokens, 1 session", "first_ms.p50", "langgraph", 0.6, 0.4),
    _wall("first token p50, 64 sessions", "tokens, 64 sessions", "first_ms.p50", "langgraph", 0.12, 0.06),
    Target(
        "recovery, embedded, beyond process start and the tool",
        Value("talon-sqlite", "recovery", "beyond_s"),
        None,
        0.25,
        0.1,
        " s",
    ),
    _most("1,000 streaming sessions: errors", "crowd", "errors", 0, 0),
    _wall("1,000 streaming sessions: wall", "crowd", "wall_s", "bare", 1.1, 1.03),
    _most("1,000 streaming sessions: memory", "crowd", "peak_mib", 200, 120, " MiB"),
    _wall("1,000 on 1 CPU, 512 MiB: first token p95", "held crowd", "first_ms.p95", "bare", 1.2, 1.05),
    _most("1,000 on 1 CPU, 512 MiB: first token p95", "held crowd", "first_ms.p95", 500, 250, " ms"),
    _most("5,000 on 1 CPU, 512 MiB: errors", "large held crowd", "errors", 0, 0),
    _most("5,000 on 1 CPU, 512 MiB: wall", "large held crowd", "wall_s", 120, 12, " s"),
    Target(
        "SQLite, turns/s, 16 sessions / langgraph on SQLite",
        Value("talon-sqlite", "16 sessions", "turns_s"),
        Value("langgraph-sqlite", "16 sessions", "turns_s"),
        5,
        10,
        " ×",
        up=True,
        wall=True,
    ),
    Target(
        "SQLite, turns/s, 16 sessions / steps on SQLite",
        Value("talon-sqlite", "16 sessions", "turns_s"),
        Value("steps-sqlite", "16 sessions", "turns_s"),
        0.8,
        1.5,
        " ×",
        up=True,
        wall=True,
    ),
)


def judge(target: Target, rounds: Rounds) -> Row:
    """How `target` stands after `rounds`: the median of the ratios of each round, or of the values, to the three digits shown."""
    ours = target.ours.of(rounds)
    known = [value for value in ours if value is not None]
    value = median_ratio(ours, target.base.of(rounds)) if target.base else median(known) if known else None
    if value is None:
        return Row(target, None, None, None, "not measured")
    value = float(f"{value:.3g}")
    reached, aimed = (value >= bound if target.up else value <= bound for bound in (target.least, target.aim))
    remark = "no difference" if target.wall and is_noise(value) else ""
    return Row(target, value, reached, aimed, remark)
